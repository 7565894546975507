"""Depth VQ-VAEs on disk: our own folders (config.json + model.safetensors) and the published .pt files.

A VQ-VAE is named by the fingerprint of its weights, as codes mean nothing without the codebook they come from.
"""

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_folder, read_json
from llava_aurora.vqvae.autoencoder import DepthVQVAE, DepthVQVAEConfig, build_depth_vqvae, config_from_dict

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_TYPE = "llava_aurora_depth_vqvae"
PUBLISHED_SUFFIXES = (".pt", ".pth")
PUBLISHED_IMAGE_SIZE = 320  # not to be read from the weights, which are convolutions
PUBLISHED_NAMES = {
    "_vq_vae._embedding": "quantizer.codebook",
    "_vq_vae._ema_cluster_size": "quantizer.cluster_size",
    "_vq_vae._ema_w": "quantizer.cluster_sum",
}


def fingerprint(model: DepthVQVAE) -> str:
    """sha256 (hex) of what decides which codes a map gets and how codes look: frame size, layers, codebook.

    Taken of the float32 values, so it survives a change of device and save/load, not a cast to fewer bits. The
    codebook's moving averages are left out: they matter to further training only.
    """
    digest = hashlib.sha256(f"{MODEL_TYPE} {model.config.image_size} {model.config.residual_blocks}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(("encoder.", "decoder.")) or name == "quantizer.codebook":
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_depth_vqvae(model: DepthVQVAE, path: str | Path) -> None:
    """Writes a checkpoint folder, whole or not at all; an older one of that name is replaced.

    Raises AuroraError if the folder holds other files, which would be lost, or the file system refuses.
    """
    refuse_foreign_files(path, expected={CONFIG_FILE, WEIGHTS_FILE})
    with atomic_folder(path) as folder:
        write_checkpoint_files(model, folder)


def write_checkpoint_files(model: DepthVQVAE, folder: Path) -> None:
    """Puts config.json and model.safetensors into a folder that the caller makes appear atomically."""
    values = {"model_type": MODEL_TYPE, **asdict(model.config), "fingerprint": fingerprint(model)}
    (folder / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # As bytes through Python's own file, so that a full disk is an OSError like everywhere else.
    (folder / WEIGHTS_FILE).write_bytes(save_safetensors(weights, metadata={"format": "pt"}))


def refuse_foreign_files(path: str | Path, *, expected: set[str]) -> None:
    """Guards a folder about to be replaced.

    Raises AuroraError if `path` is a file, or a folder that holds anything but `expected`.
    """
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise AuroraError(f"{path}: is a file, not a folder; choose another name")
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in expected)
    if foreign:
        raise AuroraError(f"{path}: holds files that are not part of a VQ-VAE ({foreign[0]}); choose another folder")


def load_depth_vqvae(path: str | Path, *, device: str | torch.device = "cpu") -> DepthVQVAE:
    """Loads a checkpoint folder of ours or a published .pt/.pth file; returned in eval mode.

    Of a published file the layers are inferred from the shapes, the frame is 320x320. Raises AuroraError naming the
    file and what is missing, unexpected or of the wrong shape in it.
    """
    path = Path(path)
    if path.is_dir():
        model = _load_folder(path)
    elif path.suffix.lower() in PUBLISHED_SUFFIXES and path.is_file():
        model = _load_published(path)
    else:
        raise AuroraError(f"{path}: expected a VQ-VAE folder or a published {'/'.join(PUBLISHED_SUFFIXES)} file")
    return model.to(device).eval()


def _load_folder(path: Path) -> DepthVQVAE:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            raise AuroraError(f"{path}: not a depth VQ-VAE, {name} is missing")
    config_file, file = path / CONFIG_FILE, path / WEIGHTS_FILE
    values = read_json(config_file, what="VQ-VAE configuration")
    if not isinstance(values, dict) or values.pop("model_type", None) != MODEL_TYPE:
        raise AuroraError(f"{config_file}: model_type is not {MODEL_TYPE}, so this is not a depth VQ-VAE")
    named = values.pop("fingerprint", None)
    try:
        config = config_from_dict(values)
    except ValueError as error:
        raise AuroraError(f"{config_file}: {error}") from error
    try:
        weights = load_safetensors(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise AuroraError(f"{file}: cannot read the weights: {error}") from error
    model = build_depth_vqvae(config)
    _load_weights(model, weights, file)
    if fingerprint(model) != named:
        raise AuroraError(f"{file}: not the weights that {CONFIG_FILE} beside it was written for (fingerprints differ)")
    return model


def _load_published(path: Path) -> DepthVQVAE:
    weights = {}
    for name, tensor in _read_pickled_weights(path).items():
        name = name.removeprefix("module.")
        weights[PUBLISHED_NAMES.get(name, name)] = tensor
    model = build_depth_vqvae(_infer_config(weights, path))
    # Our own count of updates, which published files lack; 1 keeps further training from drawing a new codebook.
    weights.setdefault("quantizer.updates", torch.ones((), dtype=torch.int64))
    _load_weights(model, weights, path, shown_as={ours: theirs for theirs, ours in PUBLISHED_NAMES.items()})
    return model


def _read_pickled_weights(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AuroraError(
            f"{path}: refused, as it is no plain file of weights (it may run code when loaded); "
            "save only its `weights` on a machine that may run it"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AuroraError(f"{path}: cannot be read as a PyTorch file: {reason}") from error
    weights = content.get("weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise AuroraError(f"{path}: expected a dictionary of tensors under the key `weights`")
    return weights


def _infer_config(weights: dict[str, Tensor], path: Path) -> DepthVQVAEConfig:
    """Reads widths and depths off the names and shapes: the last of the encoder's plain convolutions is the 1x1."""
    codebook = weights.get("quantizer.codebook")
    if codebook is None or codebook.ndim != 2:
        raise AuroraError(f"{path}: not a depth VQ-VAE, `_vq_vae._embedding` (codes, dimensions) is missing")
    blocks = sum(1 for name in weights if re.fullmatch(r"encoder\.\d+\.net\.0\.weight", name))
    positions = sorted(int(name.split(".")[1]) for name in weights if re.fullmatch(r"encoder\.\d+\.weight", name))
    channels = [len(weights[f"encoder.{position}.weight"]) for position in positions[:-1]]
    settings: dict[str, Any] = {"channels": channels, "residual_blocks": blocks}
    try:
        return DepthVQVAEConfig(
            image_size=PUBLISHED_IMAGE_SIZE, codebook_size=codebook.shape[0], code_dim=codebook.shape[1], **settings
        )
    except ValueError as error:
        raise AuroraError(f"{path}: its layers are not those of the published depth VQ-VAE: {error}") from error


def _load_weights(
    model: DepthVQVAE, weights: dict[str, Tensor], file: Path, shown_as: Mapping[str, str] = MappingProxyType({})
) -> None:
    expected = model.state_dict()
    for name, tensor in expected.items():
        shown = shown_as.get(name, name)
        if name not in weights:
            raise AuroraError(f"{file}: tensor {shown} {tuple(tensor.shape)} is missing")
        if weights[name].shape != tensor.shape:
            raise AuroraError(
                f"{file}: tensor {shown}: expected shape {tuple(tensor.shape)}, found {tuple(weights[name].shape)}"
            )
    unexpected = sorted(set(weights) - set(expected))
    if unexpected:
        raise AuroraError(f"{file}: unexpected tensor {unexpected[0]} ({len(unexpected)} in all)")
    model.load_state_dict(weights)
