"""Checks of training flags against each other and against the disk, before a model is loaded."""

import argparse
import importlib.util
import json
import tempfile
from itertools import islice
from pathlib import Path

from llava_aurora.errors import AuroraError

_LOOKED_FOR = 1000  # records whose images are looked for before a model is loaded


def check_flags(flags: argparse.Namespace) -> None:
    """Checks flags against each other and against the disk.

    Raises AuroraError for the first that cannot work, naming the flag, what is wrong with it, and the remedy.
    """
    from llava_aurora.compatibility import groups_by_length
    from llava_aurora.data.curriculum.schedule_file import read_schedule
    from llava_aurora.data.transforms.values import VALUE_SOURCES
    from llava_aurora.model.aurora_llama import tower_name
    from llava_aurora.model.checkpoint import check_tower_weights
    from llava_aurora.model.context_mask import ContextMask
    from llava_aurora.model.folders import check_trainable, is_path, model_settings
    from llava_aurora.model.losses import parse_aux_losses

    for flag, remedy in {
        "data_path": "the JSON file of training records; `llava-aurora data records --help` shows how to make one",
        "image_folder": "the folder that the records' images are named from",
        "eval_data_path": "a JSON file of records",
        "eval_image_folder": "the folder that their images are named from; --image_folder if left out",
        "pretrain_mm_mlp_adapter": "the mm_projector.bin that scripts/pretrain_aurora.sh leaves",
    }.items():
        _check_exists(flag, getattr(flags, flag), remedy)
    _check_images(flags.data_path, flags.image_folder)
    for flag in ("model_name_or_path", "vision_tower"):
        if is_path(getattr(flags, flag)):
            _check_exists(flag, getattr(flags, flag), "a folder, or a name on the Hugging Face hub")
    if not flags.vision_tower:
        raise AuroraError("--vision_tower is missing: the folder or hub name of a CLIP vision tower")
    if flags.deepspeed and not flags.deepspeed.lstrip().startswith("{"):
        _check_exists("deepspeed", flags.deepspeed, "one of the files in deepspeed_configs/, or your own")
    if flags.fresh_points and flags.dataloader_persistent_workers:
        raise AuroraError("--fresh_points needs new workers in each epoch; leave out --dataloader_persistent_workers")
    if flags.value_step not in ("", *VALUE_SOURCES):
        raise AuroraError(f"--value_step {flags.value_step}: available: {', '.join(VALUE_SOURCES)}")
    if flags.value_step and not flags.coordinate_step:
        raise AuroraError("--value_step writes each value after coordinates, which --coordinate_step False leaves out")
    if "attention" in parse_aux_losses(flags.aux_losses) and flags.plain_coordinates:
        raise AuroraError("--aux_losses attention needs coordinate tokens: leave out --plain_coordinates True")
    orders = {
        "--curriculum ''": flags.curriculum,
        "--group_by_modality_length False": flags.group_by_modality_length,
        "--group_by_length False": groups_by_length(flags),
    }
    others = [flag for flag, on in orders.items() if on]
    if others and not flags.shuffle:
        remedy = " ".join(others)
        raise AuroraError(f"--shuffle False keeps the order of the file, and other flags change it: add {remedy}")
    if flags.curriculum:
        read_schedule(flags.curriculum)
    if flags.lengths_per_step < 1:
        raise AuroraError(f"--lengths_per_step {flags.lengths_per_step}: must be 1 or more")
    if flags.lengths_per_step > 1 and not (flags.curriculum and flags.group_by_modality_length):
        raise AuroraError("--lengths_per_step needs --curriculum and --group_by_modality_length True")
    ContextMask.parse(flags.information_bottleneck, probability=flags.information_bottleneck_probability)
    if not 0 <= flags.span_mask_probability <= 1:
        raise AuroraError(f"--span_mask_probability {flags.span_mask_probability}: must be in [0, 1]")
    if not 0 <= flags.span_noise_probability < 1:
        raise AuroraError(
            f"--span_noise_probability {flags.span_noise_probability}: must be in [0, 1), so that some masks are left"
        )
    if flags.span_noise_probability and not flags.span_mask_probability:
        raise AuroraError("--span_noise_probability is a share of the maps of --span_mask_probability, which is 0")
    if not 0 <= flags.code_noise < 1:
        raise AuroraError(f"--code_noise {flags.code_noise}: must be in [0, 1); with 1 no answer would be learned")
    if flags.code_noise and flags.span_mask_probability:
        raise AuroraError("--code_noise and --span_mask_probability both change the codes of maps: give one of them")
    _check_quantization(flags)
    check_trainable(flags.model_name_or_path)
    base = Path(flags.model_name_or_path)
    check_tower_weights(tower_name(base, model_settings(base)) or flags.vision_tower)  # LLaVA keeps its base's tower
    _check_aspect_ratio(flags)
    _check_depth_tokens(flags)
    _check_output_folder(flags.output_dir)


def names_tasks(data_path: str) -> bool:
    """Whether some record of a file names its task, which a curriculum needs. Raises AuroraError as reading does."""
    from llava_aurora.data.store.record_file import unchecked_records
    from llava_aurora.tasks.registry import task_of

    records = (record for _, _, record in unchecked_records(data_path))
    return any(isinstance(record, dict) and task_of(record) is not None for record in records)


def _check_exists(flag: str, path: str | None, remedy: str) -> None:
    if path and not Path(path).exists():
        raise AuroraError(f"--{flag} {path}: no such file or folder (from {Path.cwd()}); it is {remedy}")


def _check_images(data_path: str, folder: str | None) -> None:
    """Looks for the images of the first records; `llava-aurora data check` looks for all."""
    from llava_aurora.data.store.record_file import images_of, unchecked_records

    if not folder:
        return
    for part, index, record in islice(unchecked_records(data_path), _LOOKED_FOR):
        for image in images_of(record) if isinstance(record, dict) else ():
            if isinstance(image, str) and not Path(folder, image).exists():
                raise AuroraError(
                    f"{part}: record {index}: its image {image} is not in --image_folder {folder}; `llava-aurora data"
                    " check --help` finds every such record"
                )


def _check_aspect_ratio(flags: argparse.Namespace) -> None:
    from llava_aurora.data.images.frame import ASPECT_RATIOS
    from llava_aurora.model.folders import model_settings

    given, base = flags.image_aspect_ratio, flags.model_name_or_path
    known = (*ASPECT_RATIOS, "anyres")
    if given not in known:  # LLaVA takes any other for square
        raise AuroraError(f"--image_aspect_ratio {given}: available: {', '.join(known)}")
    if given != "resize" and model_settings(base).get("image_aspect_ratio") == "resize":
        raise AuroraError(
            f"--image_aspect_ratio {given}: {base} was trained on images resized to the whole frame, so that the"
            " coordinates that it knows would not fit; set --image_aspect_ratio resize"
        )


def _check_output_folder(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise AuroraError(f"--output_dir {folder}: cannot be written ({error.strerror})") from error


def _check_quantization(flags: argparse.Namespace) -> None:
    if flags.bits not in (4, 8):
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise AuroraError(f"--bits {flags.bits} needs bitsandbytes; run: pip install bitsandbytes")
    if flags.deepspeed and _zero_stage(flags.deepspeed) == 3:
        raise AuroraError(
            f"--bits {flags.bits} cannot be combined with ZeRO-3, which would have to partition quantized weights;"
            " use --deepspeed deepspeed_configs/zero2.json"
        )


def _zero_stage(config: str) -> int:
    """The stage in a DeepSpeed configuration, a file or the JSON itself."""
    try:
        settings = json.loads(config if config.lstrip().startswith("{") else Path(config).read_text(encoding="utf-8"))
        return int(settings.get("zero_optimization", {}).get("stage", 0))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise AuroraError(f"--deepspeed {config}: not a DeepSpeed configuration in JSON: {error}") from error


def _check_depth_tokens(flags: argparse.Namespace) -> None:
    from llava_aurora.configuration import ModelArguments

    names = ModelArguments.__dataclass_fields__
    settings = ModelArguments(**{name: getattr(flags, name) for name in names}).kind_settings()
    if "depth" not in settings:
        return
    remedy = "a folder of `llava-aurora vqvae train`, or a published .pt file"
    vqvae = settings["depth"].get("vqvae")
    if not vqvae:
        raise AuroraError(f"--depth_vqvae is missing, which --perception_modalities depth needs: {remedy}")
    _check_exists("depth_vqvae", str(vqvae), remedy)


def attention_kernel(flags: argparse.Namespace) -> tuple[str, str]:
    """The attention implementation for these flags, and why."""
    from llava_aurora import installation

    kernel, reason = installation.attention_kernel()
    if flags.information_bottleneck and kernel != "sdpa":
        return "sdpa", "--information_bottleneck hides some tokens from others; FlashAttention takes no such mask"
    return kernel, reason
