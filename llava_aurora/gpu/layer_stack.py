"""A LLaVA of a published width with few layers and random weights, records to train it on, and what a step computes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llava.model import LlavaLlamaForCausalLM
from llava.model.language_model.llava_llama import LlavaConfig
from PIL import Image
from sentencepiece import sentencepiece_model_pb2
from transformers import CLIPVisionConfig, CLIPVisionModel

from llava_aurora.compatibility import save_tower, write_old_rope_names
from llava_aurora.demo.tiny_llava import VISION_TOWER, TinyLlavaConfig, build_tiny_llava
from llava_aurora.model_sizes import LlavaSizes
from llava_aurora.tasks.depth import DepthFacts
from llava_aurora.tasks.points import letter_points
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, depth_family, pixel_family

FAMILIES = (depth_family(), pixel_family())
NEW_TOKENS = sum(len(family.tokens) for family in FAMILIES)
_LENGTH = 2048


def write_records(path: Path, *, generations: int, images: int) -> list[dict[str, Any]]:
    """Writes a record for each of `generations` images with a map, and a chain and a direct question about `images`."""
    writer = RecordWriter(prompts=Prompts(), families=FAMILIES)
    rng, records = np.random.default_rng(0), []
    for number in range(generations):
        about: dict[str, Any] = {"name": f"map_{number}", "image": f"map_{number}.jpg", "rng": rng}
        records.append(writer.write("depth_generation", DepthFacts((), rng.integers(0, 128, 100).tolist()), **about))
    for number in range(images):
        about = {"name": f"points_{number}", "image": f"points_{number}.jpg", "rng": rng}
        places = [(int(x), int(y)) for x, y in rng.integers(0, 336, (4, 2))]
        points = letter_points(places, rng.permutation(256)[:4].tolist(), rng)
        records.append(writer.write("depth_chain", DepthFacts(points, rng.integers(0, 128, 100).tolist()), **about))
        records.append(writer.write("depth_direct", DepthFacts(points), **about))
    path.write_text(json.dumps(records), encoding="utf-8")
    return records


def write_images(folder: Path, records: Sequence[dict[str, Any]], *, side: int) -> None:
    """Writes the images of records, squares of random colours."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for name in sorted({record["image"] for record in records}):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / name, quality=92)


def words_of(records: Sequence[dict[str, Any]]) -> list[str]:
    """The text of records without perception tokens, for a tokenizer to be trained on."""
    vocabulary = PerceptionVocabulary(FAMILIES)
    return [vocabulary.remove_from(turn["value"]) for record in records for turn in record["conversations"]]


def build_layer_stack(
    out: Path,
    sizes: LlavaSizes,
    *,
    texts: Sequence[str],
    rows: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Writes a LLaVA of these sizes with random weights.

    Most words of its vocabulary are never used: what a row costs does not depend on its word.

    Args:
        out: its folder; the vision tower lies in a folder inside it.
        texts: that its tokenizer is trained on.
        rows: of both matrices; as many as words if left out.
        device: that the weights are drawn on.
        dtype: of the saved weights.
    """
    vision = sizes.vision
    shape = {"width": 16, "layers": 1, "heads": 1, "vision_width": 16, "vision_layers": 1, "vision_heads": 1}
    tiny = TinyLlavaConfig(**shape, frame=vision.image, patch=vision.patch, vocabulary=420, max_length=_LENGTH)
    build_tiny_llava(out, corpus=texts, config=tiny, seed=0)
    _fill_tokenizer(out / "tokenizer.model", sizes.vocabulary)
    torch.manual_seed(0)
    with torch.device(device):
        tower: Any = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=vision.hidden,
                intermediate_size=vision.intermediate,
                num_hidden_layers=vision.layers,
                num_attention_heads=max(1, vision.hidden // 64),
                image_size=vision.image,
                patch_size=vision.patch,
            )
        )
        tower.to(dtype)
        save_tower(tower, out / VISION_TOWER, tower.state_dict())
        config = LlavaConfig.from_pretrained(out)
        config.update(
            {
                "hidden_size": sizes.hidden,
                "intermediate_size": sizes.intermediate,
                "num_hidden_layers": sizes.layers,
                "num_attention_heads": sizes.heads,
                "num_key_value_heads": sizes.kv_heads,
                "head_dim": sizes.hidden // sizes.heads,
                "vocab_size": rows or sizes.vocabulary,
                "initializer_range": 0.02,
                "mm_hidden_size": vision.hidden,
                "mm_vision_tower": str((out / VISION_TOWER).absolute()),
            }
        )
        model: Any = LlavaLlamaForCausalLM(config)
        model.to(dtype).save_pretrained(out)
    write_old_rope_names(out)


def _fill_tokenizer(path: Path, words: int) -> None:
    """Adds unused pieces to a tokenizer, up to so many words."""
    proto: Any = sentencepiece_model_pb2
    model = proto.ModelProto.FromString(path.read_bytes())
    for number in range(words - len(model.pieces)):
        model.pieces.add(piece=f"<unused_{number}>", score=0.0, type=proto.ModelProto.SentencePiece.UNUSED)
    path.write_bytes(model.SerializeToString())


def step_flops(sizes: LlavaSizes, *, batch: int, length: int, labels: int, new_tokens: int) -> float:
    """Multiplications and additions of a step that trains the whole language model over a frozen tower.

    What is computed again under checkpointing is not counted, and of attention the half below the diagonal: model
    FLOPs as in PaLM (arXiv 2204.02311, app. B).

    Args: batch: records; length: tokens of each, image tokens included; labels: of the batch, which alone have logits;
        new_tokens: rows of the head beside the vocabulary's.
    """
    tokens = batch * length
    attention = 2 * sizes.layers * sizes.hidden * length * tokens
    head = 2 * sizes.hidden * (sizes.vocabulary + new_tokens) * labels
    patches = batch * sizes.vision.patches
    trained = 2 * sizes.linear * tokens + attention + head + 2 * sizes.projector * patches
    return 3 * trained + 2 * sizes.vision.weights * patches
