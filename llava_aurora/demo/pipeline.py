"""The demo, from nothing to a report: scenes, VQ-VAE, codes, records, a tiny LLaVA, fine-tuning, questions, pictures.

Every stage leaves a folder and is skipped when that folder is there, so a demo that was stopped goes on where it was.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from llava_aurora.atomic import atomic_folder, read_json, write_json
from llava_aurora.data.prompts import Prompts
from llava_aurora.data.records import RecordWriter
from llava_aurora.data.scenes.photograph import load_photograph
from llava_aurora.data.scenes.scene_folder import write_scenes
from llava_aurora.data.scenes.scene_records import SceneTasks, write_scene_records
from llava_aurora.demo.launch import REPOSITORY, finetune_command, run_training
from llava_aurora.demo.presets import PRESETS
from llava_aurora.demo.tiny_llava import VISION_TOWER, build_tiny_llava
from llava_aurora.errors import AuroraError
from llava_aurora.vocabulary import PerceptionVocabulary, TokenFamily, depth_family, pixel_family
from llava_aurora.vqvae.checkpoint import load_depth_vqvae
from llava_aurora.vqvae.folders import encode_folder, read_codes
from llava_aurora.vqvae.training import train_depth_vqvae

# What held-out scenes are asked: everything, so that the report can say what was learned and what was not.
HELD_OUT_TASKS = (
    "depth_generation",
    "depth_chain_from_coordinates",
    "depth_direct_from_coordinates",
    "depth_chain",
    "counting_chain",
    "counting_direct",
)


class Demo:
    """Args: name: of the preset; out: the output folder, whose folder `work` holds what the stages leave."""

    def __init__(self, *, name: str, out: Path) -> None:
        if name not in PRESETS:
            raise AuroraError(f"unknown preset {name!r}; there are: {', '.join(PRESETS)}")
        self.name = name
        self.preset = PRESETS[name]
        self.out = out
        self.work = out / "work"
        self.console = Console()
        self.seconds: dict[str, float] = {}

    def run(self) -> Path:
        """Runs every stage. Returns the path of the report.

        Raises:
            AuroraError: if the folder was made with other sizes, or a stage fails.
        """
        load_photograph(frame=self.preset.model.frame)  # what is missing for the last stage is said before the first
        self._claim()
        self._stage("Render scenes", self.work / "scenes", self._scenes)
        self._stage("Train the depth VQ-VAE", self.work / "vqvae", self._vqvae)
        self._stage("Encode maps and write records", self.work / "records", self._records)
        self._stage("Build a tiny LLaVA", self.work / "base", self._base)
        self._stage("Fine-tune it with perception tokens", self.work / "model", self._finetune)
        started = time.perf_counter()
        self.console.rule("Ask it about scenes it has never seen")
        from llava_aurora.demo.report import write_report

        report = write_report(self)
        self.console.print(f"Report: {report} ({time.perf_counter() - started:.0f} s)")
        return report

    @property
    def images(self) -> Path:
        """The held-out scenes."""
        return self.work / "scenes" / "held_out"

    def _claim(self) -> None:
        """A folder belongs to the sizes it was begun with."""
        path = self.work / "preset.json"
        wanted = json.loads(json.dumps(asdict(self.preset)))
        if path.is_file() and read_json(path, what="sizes of the demo") != wanted:
            raise AuroraError(f"{self.out}: holds a demo of other sizes; remove it or choose another folder with --out")
        write_json(path, wanted)

    def _stage(self, title: str, folder: Path, stage: Callable[[Path], None]) -> None:
        """Runs one stage into a marked folder; a folder without its mark is a stage that was cut off."""
        self.console.rule(title)
        mark = folder.with_suffix(".seconds.json")
        if not mark.is_file():
            started = time.perf_counter()
            stage(folder)
            write_json(mark, round(time.perf_counter() - started, 1))
        self.seconds[title] = read_json(mark, what="time of a stage")
        self.console.print(f"{folder}: {self.seconds[title]:.0f} s")

    def _scenes(self, folder: Path) -> None:
        preset = self.preset
        for name, count, seed in (
            ("train", preset.scenes, preset.seed),
            ("held_out", preset.held_out, preset.seed + 1),
        ):
            write_scenes(out=folder / name, count=count, seed=seed, config=preset.scene, workers=preset.ranks)

    def _vqvae(self, folder: Path) -> None:
        preset = self.preset
        train_depth_vqvae(
            depth_maps=self.work / "scenes" / "train" / "depth",
            out=folder,
            config=preset.vqvae,
            epochs=preset.vqvae_epochs,
            learning_rate=1e-3,
            learning_rate_decay=0.8,
            decay_steps=460,
            seed=preset.seed,
            resume=True,
        )

    def _records(self, folder: Path) -> None:
        preset = self.preset
        vqvae = load_depth_vqvae(self.work / "vqvae")
        depth, pixels = self._families()
        writer = RecordWriter(prompts=Prompts.plain(), depth=depth, pixels=pixels)
        asked = {
            "train": (preset.shares, preset.seed),
            "held_out": (dict.fromkeys(HELD_OUT_TASKS, 1.0), preset.seed + 1),
        }
        with atomic_folder(folder) as temporary:
            for name, (shares, seed) in asked.items():
                scenes = self.work / "scenes" / name
                codes = temporary / f"{name}_codes.jsonl"
                encode_folder(model=vqvae, maps=scenes / "depth", out=codes)
                write_scene_records(
                    temporary / f"{name}.json",
                    scenes=scenes,
                    codes=read_codes(codes, model=vqvae).codes,
                    writer=writer,
                    tasks=SceneTasks(
                        shares=shares, points=preset.points, coordinate_frame=preset.model.frame, seed=seed
                    ),
                )

    def _families(self) -> tuple[TokenFamily, TokenFamily]:
        vqvae = self.preset.vqvae
        depth = depth_family(codebook_size=vqvae.codebook_size, codes_per_map=vqvae.grid**2)
        return depth, pixel_family(frame=self.preset.model.frame)

    def _base(self, folder: Path) -> None:
        records = read_json(self.work / "records" / "train.json", what="training records")
        vocabulary = PerceptionVocabulary(self._families())
        corpus = [
            vocabulary.remove_from(turn["value"]) for record in records[:4000] for turn in record["conversations"]
        ]
        build_tiny_llava(folder, corpus=corpus, config=self.preset.model, seed=self.preset.seed)

    def _finetune(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        command = finetune_command(self._flags(folder), ranks=self.preset.ranks)
        write_json(self.work / "command.json", command)
        run_training(command, log=self.work / "training.log", description="Fine-tuning")

    def _flags(self, folder: Path) -> list[str]:
        base, preset = self.work / "base", self.preset
        flags: dict[str, object] = {
            "deepspeed": REPOSITORY / "deepspeed_configs" / "zero3.json",
            "model_name_or_path": base,
            "version": "v1",
            "data_path": self.work / "records" / "train.json",
            "image_folder": self.work / "scenes" / "train",
            "vision_tower": base / VISION_TOWER,
            "unfreeze_mm_vision_tower": True,
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -1,
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            "perception_modalities": "depth,box",
            "depth_vqvae": self.work / "vqvae",
            "coordinate_frame": preset.model.frame,
            "output_dir": folder,
            "num_train_epochs": preset.epochs,
            "per_device_train_batch_size": preset.batch,
            "learning_rate": preset.learning_rate,
            "span_mask_probability": preset.masked_maps,
            "adam_beta2": 0.98,
            "lr_scheduler_type": "cosine",
            "warmup_ratio": 0.03,
            "weight_decay": 0.0,
            "model_max_length": preset.model.max_length,
            "group_by_modality_length": True,
            "lazy_preprocess": True,
            "save_strategy": "no",
            "logging_steps": 0.02,  # of all steps
            "report_to": "none",
            "disable_tqdm": True,
            "seed": preset.seed,
        }
        return [part for name, value in flags.items() for part in (f"--{name}", str(value))]
