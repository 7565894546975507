"""Depth maps a second through the VQ-VAE: one at a time, in batches, and in other layouts, runtimes and types.

    python scripts/benchmark_vqvae.py                           # the published size on the CPU, some minutes
    python scripts/benchmark_vqvae.py --threads 1 --no-compile
    python scripts/benchmark_vqvae.py --model demo_output/work/vqvae --device cuda --batches 64

Random weights and smooth random maps if no model is given; the codebook is made of encoder outputs, so that many codes
are in use. "One at a time" is a map a call through the layers as torch makes them. "As built" is what build_depth_vqvae
makes of them: channels last, ReLUs in place. Other ways start from that, with as many maps as --batches names first.
All take turns; shown are medians over rounds, a ratio is taken within its round. Each is held against one at a time:
the same codes, the same maps within 1e-4; the script fails if they are not, but for bfloat16, which is shown as
information. "Of the bound" is the rate of multiplying, in percent of what a large product of float32 matrices reaches
in the same rounds: no way that multiplies as often, in this type, is faster than 100. The last line is JSON.

Example: python scripts/benchmark_vqvae.py --maps 32 --batches 8 32 --rounds 5 --threads 2
"""

import argparse
import copy
import importlib.util
import io
import os
import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import side_by_side
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from llava_aurora.demo.presets import PRESETS
from llava_aurora.vqvae import DepthVQVAE, DepthVQVAEConfig, build_depth_vqvae, load_depth_vqvae, perplexity

PLAIN = "one at a time"
PRODUCT = "product of matrices"
PRODUCT_SIZE = 2048
TOLERANCE = 1e-4
SIZES = {"published": DepthVQVAEConfig(), **{name: preset.vqvae for name, preset in PRESETS.items()}}


@dataclass(frozen=True)
class Way:
    """A model, how many maps it takes at once, and whether it has to give what the plain way gives."""

    model: DepthVQVAE
    batch: int
    exact: bool = True
    inference_mode: bool = False

    def encode(self, maps: Tensor) -> Tensor:
        return self._through(self.model.encode, maps)

    def decode(self, codes: Tensor) -> Tensor:
        return self._through(self.model.decode, codes)

    def _through(self, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        with torch.inference_mode() if self.inference_mode else torch.no_grad():
            return torch.cat([function(batch) for batch in values.split(self.batch)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a trained VQ-VAE; random weights if left out")
    parser.add_argument("--size", choices=list(SIZES), default="published", help="of the random weights")
    parser.add_argument("--maps", type=int, default=32, help="a round")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32], help="maps at once; divisors of --maps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the CPU; torch's own number if left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes a minute")
    options = parser.parse_args()
    if min(options.maps, options.rounds, *options.batches) < 1:
        parser.error("--maps, --rounds and --batches are at least 1")
    if any(options.maps % batch for batch in options.batches):
        parser.error(f"--batches: each has to divide --maps ({options.maps})")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # its ten bits would make codes depend on the kernel that cuDNN picks

    model = load_depth_vqvae(options.model) if options.model else random_model(SIZES[options.size])
    model.to(options.device)
    size = model.config.image_size
    maps = smooth_maps(options.maps, size=size, seed=1).to(options.device)
    ways, left_out = ways_of(model, maps, options)
    codes = ways[PLAIN].encode(maps)
    encoding = compare(ways, lambda way: way.encode(maps), options)
    decoding = compare(ways, lambda way: way.decode(codes), options)
    for way, result in encoding.items():
        found = ways[way].encode(maps)
        result["equal_codes"] = float((found == codes).double().mean())
        result["same"] = result["equal_codes"] == 1.0
    expected = ways[PLAIN].decode(codes)
    for way, result in decoding.items():
        result["largest_difference"] = float((ways[way].decode(codes) - expected).abs().max())
        result["same"] = result["largest_difference"] <= TOLERANCE
    bound = {"encode": at_most(encoding), "decode": at_most(decoding)}
    show(encoding, decoding, left_out, bound, title=f"{options.maps} maps of {size} × {size}, {options.device}")
    side_by_side.print_json(
        "vqvae",
        model=str(options.model) if options.model else options.size,
        parameters=sum(weight.numel() for weight in model.parameters()),
        maps=options.maps,
        image_size=size,
        rounds=options.rounds,
        device=options.device,
        perplexity=round(perplexity(codes, model.config.codebook_size), 2),
        encode=encoding,
        decode=decoding,
        at_most_times_as_fast=bound,
        left_out=left_out,
    )
    wrong = [
        name for name, way in ways.items() if way.exact and not (encoding[name]["same"] and decoding[name]["same"])
    ]
    if wrong:
        raise SystemExit(f"{', '.join(wrong)}: other codes or maps than one at a time")


# --- what is measured -------------------------------------------------------------------------------------------------


def plain_copy(model: DepthVQVAE) -> DepthVQVAE:
    """With layers as torch makes them."""
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    for layer in plain.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return plain


@torch.no_grad()
def random_model(config: DepthVQVAEConfig) -> DepthVQVAE:
    """Random weights that keep the differences between maps through all layers, and a codebook that is made of them."""
    model = build_depth_vqvae(config).eval()
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
    maps = smooth_maps(max(4, -(-2 * config.codebook_size // config.grid**2)), size=config.image_size, seed=0)
    vectors = model.encoder(maps).permute(0, 2, 3, 1).flatten(0, 2)
    model.quantizer.codebook.copy_(vectors[torch.randperm(len(vectors), generator=generator)[: config.codebook_size]])
    last = model.decoder[-1]
    last.weight.div_(model.decode(model.encode(maps)).abs().max())  # maps of about [-1, 1], as a trained decoder's
    return model


def smooth_maps(count: int, *, size: int, seed: int) -> Tensor:
    """Random hills: float32 (count, 1, size, size) in [-1, 1]."""
    hills = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    maps = F.interpolate(hills, size=(size, size), mode="bicubic", align_corners=True)
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return ((maps - low) / (high - low) * 255).round() / 127.5 - 1


def ways_of(model: DepthVQVAE, maps: Tensor, options: argparse.Namespace) -> tuple[dict[str, Way], dict[str, str]]:
    """What takes turns, by name; and what is left out, with the reason."""
    plain, first = plain_copy(model), options.batches[0]
    ways = {PLAIN: Way(plain, 1)}
    ways |= {f"batch {batch}": Way(plain, batch) for batch in options.batches}
    ways["as built, one at a time"] = Way(model, 1)
    ways |= {f"as built, batch {batch}": Way(model, batch) for batch in options.batches}
    ways[f"inference_mode, batch {first}"] = Way(model, first, inference_mode=True)
    left_out: dict[str, str] = {}
    for name, make in (("torch.compile", compiled), ("ONNX Runtime", in_onnx_runtime)):
        made = make(model, maps[:first], options)
        if isinstance(made, str):
            left_out[name] = made
        else:
            ways[f"{name}, batch {first}"] = Way(made, first)
    ways[f"bfloat16, batch {first}"] = Way(in_bfloat16(model), first, exact=False)
    return ways, left_out


def with_parts(model: DepthVQVAE, *, encoder: nn.Module, decoder: nn.Module) -> DepthVQVAE:
    """Another encoder and decoder around the same codebook."""
    return DepthVQVAE(encoder=encoder, quantizer=model.quantizer, decoder=decoder, config=model.config).eval()


class InBfloat16(nn.Module):
    """Layers computed in bfloat16, from and to float32."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = copy.deepcopy(layers).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.bfloat16()).float()


def in_bfloat16(model: DepthVQVAE) -> DepthVQVAE:
    """Encoder and decoder in bfloat16; the nearest code is found in float32."""
    return with_parts(model, encoder=InBfloat16(model.encoder), decoder=InBfloat16(model.decoder))


def compiled(model: DepthVQVAE, maps: Tensor, options: argparse.Namespace) -> DepthVQVAE | str:
    """By torch.compile, or why not."""
    if options.no_compile:
        return "not asked for (--no-compile)"
    compilers = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    if options.device == "cpu" and not any(compiler and shutil.which(compiler) for compiler in compilers):
        return "no C++ compiler is installed"
    made = with_parts(model, encoder=torch.compile(model.encoder), decoder=torch.compile(model.decoder))
    try:
        Way(made, len(maps)).decode(Way(made, len(maps)).encode(maps))
    except RuntimeError as error:  # what torch.compile's own errors are, such as a compiler's without Python's headers
        return f"does not compile here: {str(error).strip().splitlines()[0]}"
    return made


class OnnxSession(nn.Module):
    """Layers run by ONNX Runtime, for batches of the size of an example."""

    def __init__(self, layers: nn.Module, example: Tensor, *, threads: int) -> None:
        super().__init__()
        import onnxruntime

        written = io.BytesIO()
        torch.onnx.export(layers, (example,), written, dynamo=False, input_names=["x"], output_names=["y"])
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(written.getvalue(), settings, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"x": x.contiguous().numpy()})[0])


def in_onnx_runtime(model: DepthVQVAE, maps: Tensor, options: argparse.Namespace) -> DepthVQVAE | str:
    """By ONNX Runtime, or why not."""
    if options.device != "cpu":
        return "measured on the CPU only"
    for package in ("onnxruntime", "onnx"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    with torch.no_grad():
        vectors = model.encoder(maps)
    threads = torch.get_num_threads()
    return with_parts(
        model,
        encoder=OnnxSession(model.encoder, maps, threads=threads),
        decoder=OnnxSession(model.decoder, vectors, threads=threads),
    )


# --- measured and shown -----------------------------------------------------------------------------------------------


def compare(
    ways: dict[str, Way], run: Callable[[Way], Tensor], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Maps a second of each way, how many times as fast as the plain one it is, and how near to the bound."""
    with FlopCounterMode(display=False) as counter:
        run(ways[PLAIN])
    left = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=options.device)
    seconds = side_by_side.interleaved(
        {name: lambda way=way: run(way) for name, way in ways.items()} | {PRODUCT: lambda: left @ left},
        rounds=options.rounds,
    )
    work = counter.get_total_flops() / (2 * PRODUCT_SIZE**3)  # of all maps, in such products
    results: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        least, most = side_by_side.spread(seconds, PLAIN, name)
        results[name] = {
            "maps_per_second": round(options.maps / statistics.median(seconds[name]), 2),
            "times_as_fast": round(side_by_side.ratio(seconds, PLAIN, name), 3),
            "least": round(least, 3),
            "most": round(most, 3),
            "of_the_bound": float(f"{work * side_by_side.ratio(seconds, PRODUCT, name):.4g}"),
            "exact": way.exact,
        }
    return results


def at_most(results: dict[str, dict[str, Any]]) -> float:
    """How many times as fast as one at a time a way would be that multiplies as fast as matrices are."""
    return round(1 / results[PLAIN]["of_the_bound"], 2)


def show(
    encoding: dict[str, dict[str, Any]],
    decoding: dict[str, dict[str, Any]],
    left_out: dict[str, str],
    bound: dict[str, float],
    *,
    title: str,
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{title}, {torch.get_num_threads()} threads; maps a second")
    table.add_column("way")
    rate = ("times as fast", "of the bound")
    for heading in ("encode", *rate, "equal codes", "decode", *rate, "largest difference"):
        table.add_column(heading, justify="right")
    for name, result in encoding.items():
        other = decoding[name]
        table.add_row(
            name,
            f"{result['maps_per_second']:.1f}",
            times(result),
            f"{result['of_the_bound']:.0%}",
            f"{result['equal_codes']:.2%}",
            f"{other['maps_per_second']:.1f}",
            times(other),
            f"{other['of_the_bound']:.0%}",
            f"{other['largest_difference']:.1e}",
        )
    console = Console(width=160)
    console.print(table)
    limits = ", ".join(f"{what} {limit:.1f} times" for what, limit in bound.items())
    console.print(f"At most, in float32, as fast as {PLAIN}: {limits}", highlight=False)
    for name, reason in left_out.items():
        console.print(f"{name}: left out, {reason}", highlight=False)


def times(result: dict[str, Any]) -> str:
    """Median, least and most."""
    return f"{result['times_as_fast']:.2f} ({result['least']:.2f}–{result['most']:.2f})"


if __name__ == "__main__":
    main()
