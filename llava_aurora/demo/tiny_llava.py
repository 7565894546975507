"""A LLaVA small enough to be trained from nothing on two cores: a tiny Llama, a tiny CLIP, a SentencePiece tokenizer.

Everything is saved as an ordinary LLaVA checkpoint, so that what comes after cannot tell it from a real one.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from llava.conversation import conv_templates
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from llava_aurora.compatibility import LlamaTokenizer, save_tower, vision_transformer, write_old_rope_names
from llava_aurora.files import atomic_folder

VISION_TOWER = "vision_tower"


@dataclass(frozen=True, kw_only=True)
class TinyLlavaConfig:
    """Sizes. The defaults are those of the demo: one image token for each of its 6 × 6 codes."""

    frame: int = 96
    patch: int = 16
    vision_width: int = 128
    vision_layers: int = 3
    width: int = 128
    layers: int = 3
    heads: int = 4
    vision_heads: int = 4
    vocabulary: int = 640
    max_length: int = 512


def build_tiny_llava(
    out: Path, *, corpus: Iterable[str], config: TinyLlavaConfig, seed: int, pieces: Sequence[str] = ()
) -> Path:
    """Writes a LLaVA with random weights.

    Args:
        out: its folder; the vision tower lies in a folder inside it. Replaced if it is there.
        corpus: texts the tokenizer is trained on; LLaVA's conversation template is added.
        config: sizes.
        seed: of the weights.
        pieces: of the tokenizer, whatever the corpus says; "▁" is a blank.

    Returns:
        the folder of the vision tower.
    """
    torch.manual_seed(seed)
    with atomic_folder(out) as folder:
        sizes = {"vocabulary": config.vocabulary, "max_length": config.max_length}
        tokenizer = train_tokenizer(corpus, folder=folder, pieces=pieces, **sizes)
        tokenizer.save_pretrained(folder)
        tower = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=config.vision_width,
                intermediate_size=2 * config.vision_width,
                num_hidden_layers=config.vision_layers,
                num_attention_heads=config.vision_heads,
                image_size=config.frame,
                patch_size=config.patch,
            )
        )
        _place_patches(tower)
        save_tower(tower, folder / VISION_TOWER, tower.state_dict())
        side = {"height": config.frame, "width": config.frame}
        CLIPImageProcessor(size=side, crop_size=side, do_center_crop=False).save_pretrained(folder / VISION_TOWER)
        language = LlavaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=2 * config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_length,
            initializer_range=0.05,  # 0.02 suits widths of thousands
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **_multimodal_settings(config, folder),
        )
        model = LlavaLlamaForCausalLM(language)
        model.config.mm_vision_tower = str((out / VISION_TOWER).absolute())
        model.save_pretrained(folder)
        write_old_rope_names(folder)
    return out / VISION_TOWER


@torch.no_grad()
def _place_patches(tower: Any) -> None:
    """Starts the position embeddings from sines of row and column, as loud as the patches.

    Learned from scratch, where a patch lies takes longer than what is in it.
    """
    embeddings = vision_transformer(tower).embeddings
    side = tower.config.image_size // tower.config.patch_size
    bands = tower.config.hidden_size // 4
    frequencies = 10_000 ** -(torch.arange(bands) / bands)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    phases = [place.reshape(-1, 1) * frequencies for place in (columns, rows)]
    waves = torch.cat([wave for phase in phases for wave in (phase.sin(), phase.cos())], dim=1)
    embeddings.position_embedding.weight[1:] = waves


def train_tokenizer(
    corpus: Iterable[str], *, folder: Path, vocabulary: int, max_length: int, pieces: Sequence[str] = ()
) -> LlamaTokenizer:
    """Trains a SentencePiece tokenizer in the manner of Llama's (BPE, bytes as fallback, split digits)."""
    template = conv_templates["vicuna_v1"]
    texts = [f"{template.system} {' '.join(f'{role}:' for role in template.roles)} {text}" for text in corpus]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in texts for line in text.split("\n") if line),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=list(pieces),
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    path = folder / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return LlamaTokenizer(str(path), legacy=False, model_max_length=max_length)


def _multimodal_settings(config: TinyLlavaConfig, folder: Path) -> dict[str, Any]:
    return {
        "mm_vision_tower": str(folder / VISION_TOWER),
        "mm_hidden_size": config.vision_width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -1,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
    }
