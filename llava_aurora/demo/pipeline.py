"""The demo, from nothing to a report: scenes, VQ-VAE, codes, records, a tiny LLaVA, fine-tuning, questions, pictures.

Every stage leaves a folder and is skipped when that folder is there, so a demo that was stopped goes on where it was.
"""

import shutil
import time
from pathlib import Path

from rich.console import Console

from llava_aurora.data.sources.scenes.photograph import load_photograph
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.data.sources.scenes.scene_records import SceneTasks, write_scene_records
from llava_aurora.data.transforms.values import ValueStep
from llava_aurora.demo.demo_folder import DemoFolder
from llava_aurora.demo.demo_report import write_report
from llava_aurora.demo.launch import finetune_command, run_training
from llava_aurora.demo.stages import (
    Stages,
    as_arguments,
    build_base,
    claim_folder,
    small_model_flags,
    token_families,
    train_small_vqvae,
)
from llava_aurora.files import atomic_folder, write_json
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.task import Drawing
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.vqvae.checkpoint import load_depth_vqvae
from llava_aurora.vqvae.folders import encode_folder, read_codes

# What held-out scenes are asked: everything, so that the report can say what was learned and what was not.
HELD_OUT_TASKS = (
    "depth_generation",
    "depth_chain_from_coordinates",
    "depth_direct_from_coordinates",
    "depth_chain",
    "counting_chain",
    "counting_direct",
)


class Demo(DemoFolder):
    """Args: name: of the preset; out: the output folder, whose folder `work` holds what the stages leave."""

    def __init__(self, *, name: str, out: Path) -> None:
        super().__init__(name=name, out=out)
        self.console = Console()
        self.stages = Stages(self.console)
        self.seconds = self.stages.seconds

    def run(self) -> Path:
        """Runs every stage. Returns the path of the report.

        Raises:
            AuroraError: if the folder was made with other sizes, or a stage fails.
        """
        load_photograph(frame=self.preset.model.frame)  # what is missing for the last stage is said before the first
        claim_folder(self.out, self.work / "preset.json", self.preset, what="demo")
        stage = self.stages.run
        stage("Render scenes", self.work / "scenes", self._scenes)
        stage("Train the depth VQ-VAE", self.work / "vqvae", self._vqvae)
        stage("Encode maps and write records", self.work / "records", self._records)
        stage("Build a tiny LLaVA", self.work / "base", self._base)
        stage("Fine-tune it with perception tokens", self.work / "model", self._finetune)
        started = time.perf_counter()
        self.console.rule("Ask it about scenes it has never seen")
        report = write_report(self)
        self.console.print(f"Report: {report} ({time.perf_counter() - started:.0f} s)")
        return report

    def _scenes(self, folder: Path) -> None:
        preset = self.preset
        for name, count, seed in (
            ("train", preset.scenes, preset.seed),
            ("held_out", preset.held_out, preset.seed + 1),
        ):
            write_scenes(out=folder / name, count=count, seed=seed, config=preset.scene, workers=preset.ranks)

    def _vqvae(self, folder: Path) -> None:
        preset = self.preset
        maps = self.work / "scenes" / "train" / "depth"
        train_small_vqvae(maps, folder, config=preset.vqvae, epochs=preset.vqvae_epochs, seed=preset.seed)

    def _records(self, folder: Path) -> None:
        preset = self.preset
        vqvae = load_depth_vqvae(self.work / "vqvae")
        frame = preset.model.frame
        values = ValueStep(depth=DepthKind(vqvae=vqvae), frame=frame)
        writer = RecordWriter(prompts=Prompts.plain(), families=token_families(preset.vqvae, frame=frame))
        asked = {
            "train": (preset.shares, preset.seed),
            "held_out": (dict.fromkeys(HELD_OUT_TASKS, 1.0), preset.seed + 1),
        }
        with atomic_folder(folder) as temporary:
            for name, (shares, seed) in asked.items():
                scenes = self.work / "scenes" / name
                codes = temporary / f"{name}_codes.parquet"
                encode_folder(model=vqvae, maps=scenes / "depth", out=codes)
                write_scene_records(
                    temporary / f"{name}.json",
                    scenes=scenes,
                    codes=read_codes(codes, model=vqvae).codes,
                    writer=writer,
                    tasks=SceneTasks(
                        shares=shares,
                        drawing=Drawing(frame=frame, points=preset.points, read_points=preset.read_points),
                        seed=seed,
                    ),
                    keep=values.bears_out if name == "train" and preset.sound_chains else None,
                )

    def _base(self, folder: Path) -> None:
        preset = self.preset
        families = token_families(preset.vqvae, frame=preset.model.frame)
        records = self.work / "records" / "train.json"
        build_base(folder, records=records, families=families, config=preset.model, seed=preset.seed)

    def _finetune(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        command = finetune_command(self._flags(folder), ranks=self.preset.ranks)
        write_json(self.work / "command.json", command)
        run_training(command, log=self.work / "training.log", description="Fine-tuning")

    def _flags(self, folder: Path) -> list[str]:
        preset = self.preset
        flags = small_model_flags(
            base=self.work / "base",
            records=self.work / "records" / "train.json",
            images=self.work / "scenes" / "train",
            vqvae=self.work / "vqvae",
            out=folder,
            config=preset.model,
        )
        flags |= {
            **preset.flags,
            "num_train_epochs": preset.epochs,
            "per_device_train_batch_size": preset.batch,
            "learning_rate": preset.learning_rate,
            "group_by_modality_length": True,
            "save_strategy": "no",
            "seed": preset.seed,
        }
        return as_arguments(flags)
