"""LLaVA's forward pass and loss for pretraining, quick on CPUs: bfloat16 matrix products, parameters stay float32.

The arithmetic is that of LLaVA's Llama, CLIP tower and `mlp2x_gelu` projector (a test compares them); the parameters
are the model's own, so that what is trained here is saved as it stands. Written out because the same under autocast
spends most of its time between the products: this is twice as quick on one core with AMX.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

Parameters = Mapping[str, Tensor]
IN_MODEL = "model.vision_tower.vision_tower."
TOWER = f"{IN_MODEL}vision_model."  # as files name it, whichever transformers is installed


def rotary(length: int, head: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of Llama's rotary embedding, float32 (length, head) each."""
    frequencies = theta ** -(torch.arange(0, head, 2).float() / head)
    phases = torch.arange(length).float()[:, None] * frequencies.repeat(2)
    return phases.cos(), phases.sin()


def linear(x: Tensor, parameters: Parameters, name: str, *, dtype: torch.dtype) -> Tensor:
    bias = parameters.get(f"{name}.bias")
    y = F.linear(x.to(dtype), parameters[f"{name}.weight"].to(dtype))
    return y if bias is None else y + bias.to(dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """(B, H, T, D) each; mask: (T, T), added to the scores. Products of batches, with few passes between them."""
    batch, heads, length, _ = q.shape
    q, k, v = (x.reshape(batch * heads, length, -1) for x in (q * q.shape[-1] ** -0.5, k, v))
    scores = torch.bmm(q, k.transpose(1, 2)) if mask is None else torch.baddbmm(mask.to(q.dtype), q, k.transpose(1, 2))
    return torch.bmm(torch.softmax(scores, dim=-1), v).unflatten(0, (batch, heads))


def see(parameters: Parameters, images: Tensor, *, patch: int, heads: int, dtype: torch.dtype) -> Tensor:
    """Images float32 (B, 3, S, S), normalised, to image tokens (B, (S / patch)², width) of the language model."""
    batch, channels, side, _ = images.shape
    cells = side // patch
    pieces = images.reshape(batch, channels, cells, patch, cells, patch).permute(0, 2, 4, 1, 3, 5)
    kernel = parameters[f"{TOWER}embeddings.patch_embedding.weight"]
    x = F.linear(pieces.reshape(batch, cells**2, -1).to(dtype), kernel.reshape(len(kernel), -1).to(dtype)).float()
    first = parameters[f"{TOWER}embeddings.class_embedding"].expand(batch, 1, -1)
    x = torch.cat([first, x], dim=1) + parameters[f"{TOWER}embeddings.position_embedding.weight"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], parameters[f"{name}.weight"], parameters[f"{name}.bias"], 1e-5)

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    x = norm(x, f"{TOWER}pre_layrnorm")
    layer = 0
    while f"{TOWER}encoder.layers.{layer}.layer_norm1.weight" in parameters:
        at = f"{TOWER}encoder.layers.{layer}."
        y = norm(x, f"{at}layer_norm1").to(dtype)
        q, k, v = (split(linear(y, parameters, f"{at}self_attn.{which}_proj", dtype=dtype)) for which in "qkv")
        y = attend(q, k, v, None).transpose(1, 2).flatten(2)
        x = x + linear(y, parameters, f"{at}self_attn.out_proj", dtype=dtype).float()
        y = linear(norm(x, f"{at}layer_norm2"), parameters, f"{at}mlp.fc1", dtype=dtype)
        x = x + linear(y * torch.sigmoid(1.702 * y), parameters, f"{at}mlp.fc2", dtype=dtype).float()
        layer += 1
    y = F.gelu(linear(x[:, 1:], parameters, "model.mm_projector.0", dtype=dtype))
    return linear(y, parameters, "model.mm_projector.2", dtype=dtype).float()


def language(
    parameters: Parameters, x: Tensor, *, heads: int, theta: float, epsilon: float, dtype: torch.dtype
) -> Tensor:
    """Embedded tokens float32 (B, T, D) to logits (B, T, V), every row of its own."""
    length, width = x.shape[1:]
    cos, sin = (each.to(x.device, dtype) for each in rotary(length, width // heads, theta))
    mask = torch.full((length, length), float("-inf"), device=x.device).triu(1)

    def norm(x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * parameters[f"{name}.weight"]

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    layer = 0
    while f"model.layers.{layer}.input_layernorm.weight" in parameters:
        at = f"model.layers.{layer}."
        y = norm(x, f"{at}input_layernorm").to(dtype)
        q, k, v = (
            linear(y, parameters, f"{at}self_attn.{which}_proj", dtype=dtype).unflatten(-1, (heads, -1)).transpose(1, 2)
            for which in "qkv"
        )
        y = attend(turned(q), turned(k), v, mask).transpose(1, 2).flatten(2)
        x = x + linear(y, parameters, f"{at}self_attn.o_proj", dtype=dtype).float()
        y = norm(x, f"{at}post_attention_layernorm").to(dtype)
        gate, up = (linear(y, parameters, f"{at}mlp.{which}_proj", dtype=dtype) for which in ("gate", "up"))
        x = x + linear(F.silu(gate) * up, parameters, f"{at}mlp.down_proj", dtype=dtype).float()
        layer += 1
    return linear(norm(x, "model.norm"), parameters, "lm_head", dtype=dtype)
