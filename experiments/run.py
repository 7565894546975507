"""Trains the variants of variants.yaml on ray-cast scenes, evaluates them, and writes results.json and report.md.

    python experiments/run.py --size cpu --out experiment_output --plan     # what would be run, and what is done
    python experiments/run.py --size cpu --out experiment_output            # all variants, seeds 0 and 1
    python experiments/run.py --size cpu --out experiment_output --only direct full --seeds 0

Every stage is a public command and is done once: a JSON file beside what it made holds the command, its seconds and the
commit at which it began. An interrupted stage is resumed. All variants of a seed start from the same
weights and see equally many samples.

OUT/scenes/  vqvae/  codes.parquet  records.json  base-SEED/     shared by all runs
OUT/runs/VARIANT-SEED/model/  evaluation/                      a run
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from llava_aurora.demo.launch import REPOSITORY, finetune_command, run_training
from llava_aurora.demo.stages import as_arguments, build_base, small_model_flags, token_families
from llava_aurora.demo.tiny_llava import TinyLlavaConfig
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.provenance import commit
from llava_aurora.files import read_json, write_json, write_text
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.registry import tasks
from llava_aurora.training.checkpoint_folder import checkpoints, newest_whole
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

sys.path.insert(0, str(Path(__file__).parent))

from report import run_summary, write_report

VARIANTS = Path(__file__).with_name("variants.yaml")
RESULTS = "results.json"


def main() -> None:
    content = yaml.safe_load(VARIANTS.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(content["sizes"]), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; an interrupted one is resumed")
    parser.add_argument("--only", nargs="+", choices=list(content["variants"]), metavar="VARIANT", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="of initial weights and order of the data")
    parser.add_argument("--plan", action="store_true", help="print what is done and what is left, run nothing")
    options = parser.parse_args()
    experiment = Experiment(content, size=options.size, out=options.out)
    runs = [Run(name, seed) for name in options.only or content["variants"] for seed in dict.fromkeys(options.seeds)]
    try:
        if options.plan:
            print("\n".join(f"{run.name}: {experiment.state(run)}" for run in runs))
        else:
            print(f"report: {experiment.run(runs)}")
    except AuroraError as error:
        sys.exit(f"error: {error}")


@dataclass(frozen=True)
class Run:
    """One variant, trained from one seed."""

    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}-{self.seed}"


def call(command: Sequence[str]) -> None:
    """Runs `llava-aurora` with these arguments. Raises AuroraError if it fails."""
    words = [str(Path(sys.executable).with_name("llava-aurora")), *command]
    if subprocess.run(words).returncode:
        raise AuroraError(f"failed: llava-aurora {' '.join(command)}")


class Experiment:
    """Args:
    content: of variants.yaml.
    size: the name of one of its sizes.
    out: folder of everything that is made.
    call: runs a `llava-aurora` command; raises AuroraError if it fails.
    train: runs a training command, as `run_training` does.
    """

    def __init__(
        self,
        content: Mapping[str, Any],
        *,
        size: str,
        out: Path,
        call: Callable[[Sequence[str]], None] = call,
        train: Callable[..., None] = run_training,
    ) -> None:
        self.size = content["sizes"][size]
        self.variants = {name: {**content["defaults"], **each} for name, each in content["variants"].items()}
        self.size_name, self.out, self.call, self.train = size, out, call, train

    def run(self, runs: Sequence[Run]) -> Path:
        """Does what is left of the runs and writes the report after each. Returns the report's path.

        Raises:
            AuroraError: if a stage fails, or the folder holds one that was made by another command.
        """
        self.share(sorted({run.seed for run in runs}))
        for run in runs:
            print(f"== {run.name}: {self.variants[run.variant]['title']}")
            self.evaluate(run, trained=self.trained(run))
            report = self.report()
        return report

    def state(self, run: Run) -> str:
        folder = self.folder(run)
        if (folder / "result.json").is_file():
            return "done"
        if (folder / "model.done.json").is_file():
            return "trained"
        newest = newest_whole(folder / "model")
        return f"training resumes from {newest.name}" if newest else "not begun"

    # --- what all runs share ------------------------------------------------------------------------------------------

    def share(self, seeds: Sequence[int]) -> None:
        """Scenes, VQ-VAE, codes, records, and for each seed a LLaVA with random weights."""
        size, out = self.size, self.out
        for seed, (name, count) in enumerate(size["scenes"].items()):
            folder = out / "scenes" / name
            self.command(folder, "data", "scenes", out=folder, count=count, seed=seed, **size["scene"])
        depth = str(out / "scenes" / "train" / "depth")
        self.command(self.vqvae, "vqvae", "train", depth, out=self.vqvae, resume=True, **size["vqvae"])
        codes = out / "codes.parquet"
        self.command(codes, "vqvae", "encode", depth, vqvae=self.vqvae, out=codes)
        if not self.prompts.is_file():
            write_json(self.prompts, Prompts.plain().templates)
        settings = dict(size["records"])
        tasks = ",".join(f"{task}={share}" for task, share in settings.pop("tasks").items())
        settings |= {"tasks": tasks, "frame": size["base"]["frame"], "prompts": self.prompts}
        made_of = {"scenes": out / "scenes" / "train", "codes": codes, "vqvae": self.vqvae, "out": self.records}
        self.command(self.records, "data", "records", **made_of, **settings)
        for seed in seeds:
            command = [f"build_base({size['base']}, seed={seed})"]
            self.once(self.base(seed), command, partial(self._build_base, seed))

    def _build_base(self, seed: int) -> None:
        config = TinyLlavaConfig(**self.size["base"])
        families = token_families(load_depth_vqvae(self.vqvae).config, frame=config.frame)
        build_base(self.base(seed), records=self.records, families=families, config=config, seed=seed)

    @property
    def vqvae(self) -> Path:
        return self.out / "vqvae"

    @property
    def records(self) -> Path:
        return self.out / "records.json"

    @property
    def prompts(self) -> Path:
        return self.out / "prompts.json"

    def base(self, seed: int) -> Path:
        return self.out / f"base-{seed}"

    def folder(self, run: Run) -> Path:
        return self.out / "runs" / run.name

    # --- a run --------------------------------------------------------------------------------------------------------

    def trained(self, run: Run) -> dict[str, Any]:
        """Trains a run's model. Returns its mark."""
        folder = self.folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        flags = self.flags(run)
        write_text(folder / "curriculum.yaml", yaml.safe_dump(self.curriculum(run.variant), sort_keys=False))

        def train() -> None:
            going_on = {"resume_from_checkpoint": True} if newest_whole(folder / "model") else {}
            command = finetune_command(as_arguments({**flags, **going_on}), ranks=self.size["ranks"])
            self.train(command, log=folder / "training.log", description=f"Training {run.name}")

        return self.once(folder / "model", ["deepspeed", "scripts/finetune_aurora.sh", *as_arguments(flags)], train)

    def flags(self, run: Run) -> dict[str, object]:
        """Flags of scripts/finetune_aurora.sh."""
        variant, folder = self.variants[run.variant], self.folder(run)
        flags = small_model_flags(
            base=self.base(run.seed),
            records=self.records,
            images=self.out / "scenes" / "train",
            vqvae=self.vqvae,
            out=folder / "model",
            config=TinyLlavaConfig(**self.size["base"]),
        )
        flags |= {
            "deepspeed": REPOSITORY / "deepspeed_configs" / "zero2.json",  # the model is small
            "curriculum": folder / "curriculum.yaml",
            "train_tasks": ",".join(variant["tasks"]),
            "group_by_modality_length": True,
            # Questions come late in a curriculum, so the learning rate must not have fallen before.
            "lr_scheduler_type": "warmup_stable_decay",
            "lr_scheduler_kwargs": json.dumps({"num_decay_steps": max(1, self.steps(variant) // 5)}),
            "save_strategy": "steps",
            "save_steps": 0.1,  # of all steps
            "save_total_limit": 1,
            "seed": run.seed,
            **self.size["training"],
            **variant["flags"],
        }
        if variant["flags"].get("fresh_points"):
            flags["prompts"] = self.prompts
        return flags

    def steps(self, variant: Mapping[str, Any]) -> int:
        """Of a training."""
        training = self.size["training"]
        batch = training["per_device_train_batch_size"] * self.size["ranks"]
        accumulation = variant["flags"].get("gradient_accumulation_steps", 1)
        return training["num_train_epochs"] * -(-self.size["records_per_epoch"] // batch) // accumulation

    def curriculum(self, name: str) -> dict[str, Any]:
        """A variant's curriculum, as --curriculum reads it: in mixtures, a kind stands for the size's tasks of it."""
        curriculum = dict(self.variants[name]["curriculum"])
        if "epochs" in curriculum:
            curriculum["epochs"] = [self._tasks_of(mixture) for mixture in curriculum["epochs"]]
        return {**curriculum, "records_per_epoch": self.size["records_per_epoch"]}

    def _tasks_of(self, mixture: Mapping[str, float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, weight in mixture.items():
            shares = {
                task: share
                for task, share in self.size["records"]["tasks"].items()
                if name in (task, tasks()[task].kind)
            }
            found |= {task: weight * share / sum(shares.values()) for task, share in shares.items()}
        return found

    def evaluate(self, run: Run, *, trained: Mapping[str, Any]) -> None:
        """Asks a trained model all questions, replaces the maps in its chains, and writes result.json."""
        variant, folder = self.variants[run.variant], self.folder(run)
        for checkpoint in checkpoints(folder / "model"):
            shutil.rmtree(checkpoint)
        out = folder / "evaluation"
        settings = {"model": folder / "model", "out": out, "data": self.out / "scenes" / "held_out", "pictures": 0}
        settings |= self.size["evaluation"]
        benchmarks = {domain: self.size["benchmarks"][domain] for domain in variant["domains"]}
        asked = ",".join(name for names in benchmarks.values() for name in names)
        done = {"training": trained}
        done["evaluation"] = self.command(out, "eval", asked, reasoning=",".join(variant["asked"]), **settings)
        found = read_json(out / RESULTS, what="results of an evaluation")["benchmarks"]
        chains = {name: found[name]["reasonings"].get("chain") for name in benchmarks.get("depth", ())}
        if replaced := [name for name, chain in chains.items() if chain and chain["summary"]["has_span"]]:
            done["replacement"] = self.command(folder / "replacement", "replace-test", ",".join(replaced), **settings)
        result = {
            "variant": run.variant,
            "title": variant["title"],
            "seed": run.seed,
            "commit": trained["commit"],
            "resumed": trained["resumed"],
            "commands": {stage: mark["command"] for stage, mark in done.items()},
            "seconds": {stage: mark["seconds"] for stage, mark in done.items()},
            **run_summary(read_json(out / RESULTS, what="results of an evaluation")),
        }
        write_json(folder / "result.json", result, indent=1)

    def report(self) -> Path:
        """Writes results.json and report.md of all runs that are done. Returns the path of the latter."""
        order = list(self.variants)
        paths = (self.out / "runs").glob("*/result.json")
        done = [read_json(path, what="result of a run") for path in paths]
        done.sort(key=lambda result: (order.index(result["variant"]), result["seed"]))
        write_json(self.out / RESULTS, {"size": self.size_name, "settings": self.size, "runs": done}, indent=1)
        return write_report(self.out / "report.md", size=self.size_name, runs=done)

    # --- stages that are done once ------------------------------------------------------------------------------------

    def command(self, target: Path, *words: str, **flags: object) -> dict[str, Any]:
        """Runs a `llava-aurora` command that makes `target`, once; flags in the names that its options have."""
        command = list(words)
        for name, value in flags.items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                command.append(f"--{option}" if value else f"--no-{option}")
            else:
                command += [f"--{option}", str(value)]
        return self.once(target, ["llava-aurora", *command], lambda: self.call(command))

    def once(self, target: Path, command: Sequence[str], work: Callable[[], None]) -> dict[str, Any]:
        """Does `work` unless it is done. Returns its mark: command, seconds, commit when it began, whether it resumed.

        Raises:
            AuroraError: if `target` was made by another command.
        """
        mark, shown = target.with_name(f"{target.name}.done.json"), self.portable(command)
        if mark.is_file():
            done = read_json(mark, what="mark of a stage")
            if done["command"] != shown:
                raise AuroraError(
                    f"{target}: was made by another command ({mark.name}); remove both, or give another --out"
                )
            return done
        done = {"command": shown, "commit": commit(), "resumed": target.exists()}
        started = time.perf_counter()
        work()
        done["seconds"] = round(time.perf_counter() - started, 1)
        write_json(mark, done)
        return done

    def portable(self, command: Sequence[str]) -> str:
        """A command with paths from the root of the repository and from the folder of results."""
        return " ".join(command).replace(f"{self.out}/", "OUT/").replace(f"{REPOSITORY}/", "")


if __name__ == "__main__":
    main()
