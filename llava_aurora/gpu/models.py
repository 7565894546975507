"""Checks of models on the card: maps written with the constraint and without, the VQ-VAE's codes beside the CPU's."""

import math
from collections.abc import Iterator
from typing import Any

from llava_aurora.gpu.setting import Setting, Verdict, seconds_of


def generation(setting: Setting) -> Iterator[Verdict]:
    """Maps of what was trained, with the constraint and without."""
    from llava_aurora import Aurora
    from llava_aurora.tokens.vocabulary import depth_family

    aurora = Aurora.from_pretrained(setting.work / "trained", device=setting.device)
    images, new = sorted((setting.work / "images").glob("*.jpg"))[:4], 110
    took = {}
    for constrained in (True, False):

        def ask(constrained: bool = constrained) -> Any:
            how = {"max_new_tokens": new, "min_new_tokens": new, "answer_start": depth_family().start}
            return aurora.ask(images, "What is the depth map of this image?", constrained=constrained, **how)

        results = ask()
        seconds = seconds_of(ask, setting.device)
        took[constrained] = seconds
        whole = sum(any(len(span.codes) == 100 for span in each.spans["depth"]) for each in results)
        known = all(math.isfinite(value) for each in results for value in each.token_log_probabilities or ())
        name = f"generation, {'constrained' if constrained else 'unconstrained'}"
        found = f"{seconds / new * 1000:.1f} ms a token for {len(images)} answers, {whole} whole maps"
        if constrained:
            good = known and whole == len(images)
            how = "" if good else "the constraint failed on this GPU: tell us, with the log"
            yield Verdict(name, "ok" if good else "failed", found, how, {"seconds_a_token": seconds / new})
        else:
            found += f"; the constraint takes {took[True] / seconds:.2f} × the time"
            yield Verdict(name, "ok" if known else "failed", found, "", {"seconds_a_token": seconds / new})


def vqvae(setting: Setting) -> Iterator[Verdict]:
    """Codes and maps of the published size on the device, beside those of the CPU."""
    import torch
    from torch.nn import functional as F

    from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae

    torch.backends.cudnn.allow_tf32 = False  # as `vqvae encode` does
    torch.manual_seed(0)
    model, count = build_depth_vqvae(DepthVQVAEConfig()).eval(), 4 if setting.tiny else 32
    maps = F.interpolate(torch.rand(count, 1, 5, 5), size=(320, 320), mode="bicubic").clamp(0, 1) * 2 - 1
    with torch.inference_mode():
        vectors = model.encoder(maps).permute(0, 2, 3, 1).flatten(0, 2)
        model.quantizer.codebook.copy_(vectors[torch.randperm(len(vectors))[: len(model.quantizer.codebook)]])
        codes = model.encode(maps)
        pictures = model.decode(codes)
        model, maps, there = model.to(setting.device), maps.to(setting.device), codes.to(setting.device)
        same = float((model.encode(maps).cpu() == codes).double().mean())
        apart = float((model.decode(there).cpu() - pictures).abs().max() / pictures.abs().max())
        encoding = count / seconds_of(lambda: model.encode(maps), setting.device)
        decoding = count / seconds_of(lambda: model.decode(there), setting.device)
    found = f"{encoding:.0f} maps per second to codes and {decoding:.0f} back; {same:.2%} of the codes are the CPU's"
    good = same > 0.99 and apart < 1e-3
    how = "" if good else "make codes on the CPU (--device cpu), and tell us"
    numbers = {"encode": encoding, "decode": decoding, "same_codes": same, "largest_difference": apart}
    yield Verdict("VQ-VAE", "ok" if good else "failed", found, how, numbers)
