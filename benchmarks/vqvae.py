"""Depth maps a second through the VQ-VAE: one at a time and in batches, with plain layers and as it is built.

    python benchmarks/vqvae.py                           # the published size on the CPU, some minutes
    python benchmarks/vqvae.py --size demo --threads 1
    python benchmarks/vqvae.py --model llava_aurora/tiny_base/depth_vqvae --device cuda --batches 64

Without --model: random weights, with a codebook of encoder outputs so that many codes are in use. "Plain" are layers
as torch makes them; "as built" is what build_depth_vqvae makes of them: channels last, ReLUs in place. Every way has to
give the codes and, within 1e-4, the maps of the plain layers one map at a time. "Of the bound" is the rate of
multiplications as a share of that of a large matrix product in the same rounds.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import Parser, interleaved, rate, report, times_as_fast
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from llava_aurora.demo.tiny_base import TINY_VQVAE
from llava_aurora.vqvae import DepthVQVAE, DepthVQVAEConfig, build_depth_vqvae, load_depth_vqvae, perplexity

PLAIN, PRODUCT = "plain, one at a time", "matrix product"
SIDE = 2048  # of the matrices
TOLERANCE = 1e-4
SIZES = {"published": DepthVQVAEConfig(), "demo": load_depth_vqvae(TINY_VQVAE).config}


@dataclass(frozen=True)
class Way:
    """Args: model; batch: maps at once."""

    model: DepthVQVAE
    batch: int

    @torch.no_grad()
    def run(self, what: str, values: Tensor) -> Tensor:
        function = getattr(self.model, what)
        return torch.cat([function(part) for part in values.split(self.batch)])


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--model", type=Path, help="a trained VQ-VAE; random weights if left out")
    parser.add_argument("--size", choices=list(SIZES), default="published", help="of the random weights")
    parser.number("--maps", 32, "a round")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32], help="maps at once")
    options = parser.options()
    torch.backends.cudnn.allow_tf32 = False  # its ten bits would make codes depend on the kernel that cuDNN picks
    model = load_depth_vqvae(options.model) if options.model else random_model(SIZES[options.size])
    model.to(options.device)
    maps = smooth_maps(options.maps, size=model.config.image_size, seed=1).to(options.device)
    ways = {PLAIN: Way(plain_copy(model), 1), "as built, one at a time": Way(model, 1)}
    for batch in options.batches:
        ways[f"plain, batch {batch}"] = Way(ways[PLAIN].model, batch)
        ways[f"as built, batch {batch}"] = Way(model, batch)
    codes = ways[PLAIN].run("encode", maps)
    rows = compare(ways, "encode", maps, _equal_codes, options)
    rows += compare(ways, "decode", codes, _largest_difference, options)
    report("vqvae", rows, options, perplexity=float(perplexity(codes, model.config.codebook_size)))
    if wrong := [row["way"] for row in rows if not row["same"]]:
        raise SystemExit(f"{', '.join(wrong)}: other codes or maps than {PLAIN}")


def _equal_codes(found: Tensor, expected: Tensor) -> dict[str, Any]:
    return {"equal_codes": float((found == expected).double().mean()), "same": torch.equal(found, expected)}


def _largest_difference(found: Tensor, expected: Tensor) -> dict[str, Any]:
    difference = float((found - expected).abs().max())
    return {"largest_difference": difference, "same": difference <= TOLERANCE}


def compare(
    ways: dict[str, Way],
    what: str,
    values: Tensor,
    difference: Callable[[Tensor, Tensor], dict[str, Any]],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """A row for each way: maps a second, how many times as fast as the plain way, how near to the bound, how equal."""
    with FlopCounterMode(display=False) as counter:
        expected = ways[PLAIN].run(what, values)
    products = counter.get_total_flops() / (2 * SIDE**3)  # that multiply as often as all maps do
    left = torch.randn(SIDE, SIDE, device=options.device)
    timed: dict[str, Callable[[], Any]] = {name: lambda way=way: way.run(what, values) for name, way in ways.items()}
    seconds = interleaved({**timed, PRODUCT: lambda: left @ left}, rounds=options.rounds)
    return [
        {
            "what": what,
            "way": name,
            "maps_a_second": rate(seconds[name], len(values)),
            **times_as_fast(seconds, name, PLAIN),
            "of_the_bound": products * times_as_fast(seconds, name, PRODUCT)["times_as_fast"],
            **difference(way.run(what, values), expected),
        }
        for name, way in ways.items()
    ]


# --- models and maps --------------------------------------------------------------------------------------------------


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


if __name__ == "__main__":
    main()
