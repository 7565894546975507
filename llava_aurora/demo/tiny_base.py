"""The pretrained tiny LLaVA of the package, and the depth VQ-VAE beside it; its README.md says what it can."""

import shutil
from pathlib import Path

from llava_aurora.demo.tiny_llava import VISION_TOWER
from llava_aurora.files import atomic_folder, read_json, write_json
from llava_aurora.tokens.depth import VQVAE_FOLDER

TINY_BASE = Path(__file__).resolve().parents[1] / "tiny_base"
TINY_VQVAE = TINY_BASE / VQVAE_FOLDER


def copy_tiny_base(out: Path) -> Path:
    """Copies it to a folder of its own, in which LLaVA finds the vision tower. Returns the folder of the tower."""
    with atomic_folder(out) as folder:
        shutil.copytree(TINY_BASE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(VQVAE_FOLDER, "README.md"))
        config = read_json(folder / "config.json", what="configuration of the tiny base")
        tower = out.absolute() / VISION_TOWER
        write_json(folder / "config.json", {**config, "mm_vision_tower": str(tower)}, indent=2)
    return tower


def tiny_frame() -> int:
    """Side in pixels of the images that its vision tower sees."""
    return int(read_json(TINY_BASE / VISION_TOWER / "config.json", what="vision tower of the tiny base")["image_size"])
