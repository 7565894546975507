"""Stages that are done once, and the steps of training a small model from nothing: VQ-VAE, base model, flags."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from llava_aurora.demo.launch import REPOSITORY
from llava_aurora.demo.tiny_llava import VISION_TOWER, TinyLlavaConfig, build_tiny_llava
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json, write_json
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, TokenFamily, depth_family, pixel_family
from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig
from llava_aurora.vqvae.training import train_depth_vqvae

_CORPUS = 4000  # records that a tokenizer is trained on


class Stages:
    """Runs stages into marked folders. A stage whose mark is there is done; without its mark it was cut off.

    Args:
        console: says what is done.

    Attributes:
        seconds: what each stage took, by its title.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}

    def run(self, title: str, folder: Path, stage: Callable[[Path], None]) -> None:
        """Runs `stage` on its folder unless it is done."""
        self.console.rule(title)
        mark = folder.with_name(f"{folder.name}.seconds.json")
        if not mark.is_file():
            started = time.perf_counter()
            stage(folder)
            write_json(mark, round(time.perf_counter() - started, 1))
        self.seconds[title] = read_json(mark, what="time of a stage")
        self.console.print(f"{folder}: {self.seconds[title]:.0f} s")


def claim_folder(out: Path, mark: Path, sizes: Any, *, what: str) -> None:
    """A folder belongs to the sizes it was begun with.

    Args:
        out: the folder, for the message.
        mark: the file in it that keeps the sizes.
        sizes: a dataclass.
        what: is made there: "demo".

    Raises:
        AuroraError: if it was begun with others; it names those that differ.
    """
    wanted = json.loads(json.dumps(asdict(sizes)))
    found = read_json(mark, what=f"sizes of the {what}") if mark.is_file() else wanted
    if found != wanted:
        names = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
        raise AuroraError(
            f"{out}: holds a {what} of other sizes ({', '.join(names)}); remove it or choose another folder with --out"
        )
    write_json(mark, wanted)


def train_small_vqvae(
    depth_maps: Path, out: Path, *, config: DepthVQVAEConfig, epochs: int, seed: int, device: str = "cpu"
) -> None:
    """Trains a VQ-VAE on few maps: at a rate that starts high and falls fast. Resumes."""
    train_depth_vqvae(
        depth_maps=depth_maps,
        out=out,
        config=config,
        epochs=epochs,
        learning_rate=1e-3,
        learning_rate_decay=0.8,
        decay_steps=460,
        seed=seed,
        resume=True,
        device=device,
    )


def token_families(vqvae: DepthVQVAEConfig, *, frame: int) -> tuple[TokenFamily, TokenFamily]:
    """Depth and coordinate tokens."""
    return depth_family(codebook_size=vqvae.codebook_size, codes_per_map=vqvae.grid**2), pixel_family(frame=frame)


def build_base(
    out: Path, *, records: Path, families: tuple[TokenFamily, ...], config: TinyLlavaConfig, seed: int
) -> None:
    """A LLaVA with random weights, whose tokenizer knows the words of some records but none of their tokens."""
    vocabulary = PerceptionVocabulary(families)
    some = read_json(records, what="training records")[:_CORPUS]
    corpus = [vocabulary.remove_from(turn["value"]) for record in some for turn in record["conversations"]]
    build_tiny_llava(out, corpus=corpus, config=config, seed=seed)


def small_model_flags(
    *, base: Path, records: Path, images: Path, vqvae: Path, out: Path, config: TinyLlavaConfig
) -> dict[str, object]:
    """Flags of scripts/finetune_aurora.sh that training a small model from nothing takes whatever it is taught."""
    return {
        "deepspeed": REPOSITORY / "deepspeed_configs" / "zero3.json",
        "model_name_or_path": base,
        "version": "v1",
        "data_path": records,
        "image_folder": images,
        "vision_tower": base / VISION_TOWER,
        "unfreeze_mm_vision_tower": True,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -1,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "perception_modalities": "depth,box",
        "depth_vqvae": vqvae,
        "coordinate_frame": config.frame,
        "output_dir": out,
        "adam_beta2": 0.98,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.03,
        "weight_decay": 0.0,
        "model_max_length": config.max_length,
        "lazy_preprocess": True,
        "logging_steps": 0.02,  # of all steps
        "report_to": "none",
        "disable_tqdm": True,
    }


def as_arguments(flags: Mapping[str, object]) -> list[str]:
    """Flags as a command line has them."""
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]
