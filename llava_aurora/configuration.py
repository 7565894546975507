"""The flags of a training run: LLaVA's three argument groups, extended.

Importing this module imports LLaVA's training code; nothing is changed there (training/integration.py does that).
"""

import json
import os
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.state import AcceleratorState, PartialState
from llava.train import train as upstream

from llava_aurora.errors import AuroraError
from llava_aurora.listed import listed


class BaseModelName(str):
    """The name of a model in which "mpt" is never found.

    LLaVA's train() takes every name with these letters ("prompt", "attempt") for an MPT model, and runs its code.
    """

    def __contains__(self, part: object, /) -> bool:
        return part != "mpt" and super().__contains__(str(part))


@dataclass
class ModelArguments(upstream.ModelArguments):
    perception_modalities: str = field(
        default="",
        metadata={"help": "Perception tokens to add, separated by commas: depth,box. Empty: upstream's LLaVA."},
    )
    depth_vqvae: str | None = field(
        default=None, metadata={"help": "Folder (or published .pt file) of the VQ-VAE behind the depth tokens."}
    )
    depth_raster_rows: bool = field(
        default=False, metadata={"help": "Write a label before each row of a depth map; maps in records get them."}
    )
    coordinate_frame: int = field(
        default=336, metadata={"help": "Side in pixels of the frame that coordinates refer to; one token per pixel."}
    )
    modality_options: str = field(
        default="{}", metadata={"help": 'Settings of other kinds as JSON: \'{"name": {"setting": 1}}\'.'}
    )
    perception_init: str = field(
        default="neighbours",
        metadata={
            "help": "Initial rows of new tokens: 'mean' of the vocabulary, mean + 'noise', 'words' (of what a token"
            " stands for), or 'neighbours' (mean + noise, similar for tokens of similar meaning)."
        },
    )
    train_base_vocabulary: bool = field(
        default=False,
        metadata={"help": "With LoRA: train the embeddings of the original vocabulary too, as AURORA did."},
    )
    unfreeze_mm_vision_tower: bool = field(default=False, metadata={"help": "Train the vision tower too."})

    def __post_init__(self) -> None:
        # Paths end up in config.json and adapter_config.json, which are read from other working directories.
        for name, kind in (("model_name_or_path", BaseModelName), ("vision_tower", str)):
            value = getattr(self, name)
            if value:
                setattr(self, name, kind(Path(value).absolute() if Path(value).is_dir() else value))

    def kind_settings(self) -> dict[str, dict[str, Any]]:
        """Settings of each kind asked for, by name.

        Raises AuroraError if --modality_options is not a JSON object of objects, or names a kind not asked for.
        """
        names = listed(self.perception_modalities)
        try:
            options = json.loads(self.modality_options)
        except ValueError as error:
            raise AuroraError(f"--modality_options is not valid JSON: {error}") from error
        known: dict[str, dict[str, Any]] = {
            "depth": {"vqvae": self.depth_vqvae, **({"raster_rows": True} if self.depth_raster_rows else {})},
            "box": {"frame": self.coordinate_frame},
        }
        if not isinstance(options, dict) or not all(isinstance(value, dict) for value in options.values()):
            raise AuroraError('--modality_options must map names to settings: \'{"name": {"setting": 1}}\'')
        if unknown := set(options) - set(names):
            raise AuroraError(f"--modality_options names {', '.join(sorted(unknown))}, not in --perception_modalities")
        return {name: {**known.get(name, {}), **options.get(name, {})} for name in names}


@dataclass
class DataArguments(upstream.DataArguments):
    curriculum: str = field(
        default="",
        metadata={"help": "Order of the tasks: linear, softmax, constant, or a YAML file. Empty: as upstream."},
    )
    shuffle: bool = field(
        default=True, metadata={"help": "False: records in the order of the file, which then holds all epochs."}
    )
    train_tasks: str = field(
        default="",
        metadata={"help": "Train only on these tasks or kinds (atomic, chain, direct), separated by commas."},
    )
    coordinate_step: bool = field(
        default=True, metadata={"help": "False: chains about marked points leave out the points' coordinates."}
    )
    value_step: str = field(
        default="",
        metadata={"help": "interpolated: depth chains also state a value per point, interpolated from codes."},
    )
    fresh_points: bool = field(default=False, metadata={"help": "Draw new points for depth questions in each epoch."})
    prompts: str | None = field(
        default=None, metadata={"help": "JSON file with the wording of the records, for --fresh_points."}
    )
    plain_coordinates: bool = field(
        default=False, metadata={"help": "Write coordinates as plain numbers instead of tokens."}
    )
    image_aspect_ratio: str = field(
        default="square",
        metadata={"help": "How images are made square: square (cropped), pad, or resize (stretched, as AURORA)."},
    )
    image_orientation: Literal["stored", "upright"] = field(
        default="stored",
        metadata={"help": "upright: apply the EXIF orientation. stored: ignore it, like LLaVA."},
    )
    image_cache: str = field(
        default="", metadata={"help": "Folder for decoded and resized images, shared by ranks and runs. Empty: none."}
    )
    image_cache_gb: float = field(default=50.0, metadata={"help": "Maximum size of this folder in GB."})
    eval_data_path: str | None = field(
        default=None, metadata={"help": "Records to evaluate on every --eval_steps (with --eval_strategy steps)."}
    )
    eval_image_folder: str | None = field(
        default=None, metadata={"help": "The folder of their images; default: --image_folder."}
    )


@dataclass
class TrainingArguments(upstream.TrainingArguments):
    perception_lr: float | None = field(
        default=None, metadata={"help": "Learning rate of the new tokens' rows; default: --learning_rate."}
    )
    mm_vision_tower_lr: float | None = field(
        default=None, metadata={"help": "Learning rate of the vision tower; default: --learning_rate."}
    )
    lengths_per_step: int = field(
        default=1,
        metadata={"help": "With a curriculum and batches of similar length: number of lengths per step, to mix tasks."},
    )
    aux_losses: str = field(
        default="",
        metadata={
            "help": "Losses beside the next-token loss, as NAME=WEIGHT or NAME=WEIGHT@FIRST_STEP, separated by commas:"
            " reconstruction (decoded maps), attention (where heads look for coordinates, values and answers), answer"
            " (a chain's answer tokens once more). Example: reconstruction=1@200,attention=0.2,answer=0.3"
        },
    )
    information_bottleneck: str = field(
        default="",
        metadata={"help": "What tokens after a map cannot attend to: chain, image, or chain,image."},
    )
    information_bottleneck_probability: float = field(
        default=0.5, metadata={"help": "Share of the answers trained like that; at inference nothing is hidden."}
    )
    span_mask_probability: float = field(
        default=0.0,
        metadata={"help": "Share of maps whose codes are masked in training, so that they can be written in one pass."},
    )
    span_noise_probability: float = field(
        default=0.0,
        metadata={"help": "Share of these maps with random codes instead of masks, for refinement passes."},
    )
    code_noise: float = field(
        default=0.0,
        metadata={
            "help": "Share of maps whose codes are learned behind partly random ones, so that they depend on the image;"
            " of the others only what follows the map is learned. 0.6 for small models."
        },
    )
    eval_pictures: int = field(
        default=4, metadata={"help": "Number of decoded maps of evaluation records to log to TensorBoard."}
    )
    # The Trainer's default replaces NaN by 0 in the log, so that a broken run looks like a perfect one.
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Log a NaN loss as 0, the default of transformers; here NaN is logged as NaN."}
    )

    @cached_property
    def _setup_devices(self) -> torch.device:
        """Connects DeepSpeed's ranks on CPUs by gloo, for which accelerate 1.13 and later would need `--use_cpu`.

        transformers leaves DeepSpeed out under `--use_cpu`. So the ranks are connected before it looks for them.
        """
        if self.deepspeed and "LOCAL_RANK" in os.environ and not torch.cuda.is_available():
            AcceleratorState._reset_state(reset_partial_state=True)
            os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"  # until transformers itself sets it
            PartialState(backend="gloo", timeout=timedelta(seconds=self.ddp_timeout))
            del os.environ["ACCELERATE_USE_DEEPSPEED"]
            self.accelerator_config.use_configured_state = True
        return super()._setup_devices
