"""The demo, from a small LLaVA to a report: scenes, codes, records, fine-tuning, questions, pictures.

Every stage leaves a folder and is skipped when that folder is there, so a demo that was stopped goes on where it was.
"""

import shutil
from pathlib import Path

from rich.console import Console

from llava_aurora.data.sources.scenes.photograph import load_photograph
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.data.sources.scenes.scene_records import SceneTasks, write_scene_records
from llava_aurora.data.transforms.values import ValueStep
from llava_aurora.demo.ask import ask_scenes
from llava_aurora.demo.demo_folder import DemoFolder
from llava_aurora.demo.demo_report import write_report
from llava_aurora.demo.launch import finetune_command, run_training
from llava_aurora.demo.stages import Stages, as_arguments, claim_folder, small_model_flags, token_families
from llava_aurora.demo.tiny_base import TINY_VQVAE, copy_tiny_base
from llava_aurora.demo.tiny_llava import TinyLlavaConfig
from llava_aurora.evaluation.blind import blind_scores
from llava_aurora.files import atomic_folder, write_json
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tasks.task import Drawing
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.vqvae.checkpoint import load_depth_vqvae
from llava_aurora.vqvae.folders import encode_folder, read_codes


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
        load_photograph(frame=self.preset.scene.frame)  # what is missing for the last stage is said before the first
        claim_folder(self.out, self.work / "preset.json", self.preset, what="demo")
        stage = self.stages.run
        stage("Render scenes", self.work / "scenes", self._scenes)
        stage("Encode maps and write records", self.work / "records", self._records)
        stage("Fine-tune the tiny LLaVA with perception tokens", self.work / "model", self._finetune)
        stage(
            "Ask it about scenes it has never seen", self.work / "evaluation", lambda folder: ask_scenes(self, folder)
        )
        report = write_report(self)
        self.console.print(f"Report: {report} ({sum(self.seconds.values()):.0f} s in all)")
        return report

    def _scenes(self, folder: Path) -> None:
        preset = self.preset
        for name, count, seed in (
            ("train", preset.scenes, preset.seed),
            ("held_out", preset.held_out, preset.seed + 1),
        ):
            write_scenes(out=folder / name, count=count, seed=seed, config=preset.scene, workers=preset.ranks)

    def _records(self, folder: Path) -> None:
        preset, scenes = self.preset, self.work / "scenes" / "train"
        vqvae, frame = load_depth_vqvae(TINY_VQVAE), preset.scene.frame
        writer = RecordWriter(prompts=Prompts.plain(), families=token_families(vqvae.config, frame=frame))
        drawing = Drawing(frame=frame, points=preset.points, read_points=preset.read_points)
        with atomic_folder(folder) as temporary:
            encode_folder(model=vqvae, maps=scenes / "depth", out=temporary / "codes.parquet")
            records = write_scene_records(
                temporary / "train.json",
                scenes=scenes,
                codes=read_codes(temporary / "codes.parquet", model=vqvae).codes,
                writer=writer,
                tasks=SceneTasks(shares=preset.shares, drawing=drawing, seed=preset.seed),
                keep=ValueStep(depth=DepthKind(vqvae=vqvae), frame=frame).bears_out,
            )
        for score in blind_scores(records, folder=scenes, frame=frame):
            self.console.print(f"{score}", highlight=False)

    def _finetune(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        copy_tiny_base(self.work / "base")
        command = finetune_command(self._flags(folder), ranks=self.preset.ranks)
        write_json(self.work / "command.json", command)
        run_training(command, log=self.work / "training.log", description="Fine-tuning")

    def _flags(self, folder: Path) -> list[str]:
        preset = self.preset
        flags = small_model_flags(
            base=self.work / "base",
            records=self.work / "records" / "train.json",
            images=self.work / "scenes" / "train",
            vqvae=TINY_VQVAE,
            out=folder,
            config=TinyLlavaConfig(frame=preset.scene.frame),
        )
        flags |= {
            **preset.flags,
            "num_train_epochs": preset.epochs,
            "per_device_train_batch_size": preset.batch,
            "learning_rate": preset.learning_rate,
            "save_strategy": "no",
            "seed": preset.seed,
        }
        return as_arguments(flags)
