"""The study: the same small LLaVA, trained in many ways on the same budget, and what each way is worth.

Reproduces the paper's tables in kind on ray-cast scenes. Every stage leaves a folder and every run a result; what is
there is not done again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llava_aurora.demo.launch import run_training
from llava_aurora.demo.stages import Stages, claim_folder
from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json, write_json
from llava_aurora.study.contestants import CONTESTANTS, Run, runs
from llava_aurora.study.estimate import Estimate, estimate
from llava_aurora.study.materials import Materials
from llava_aurora.study.report import write_report
from llava_aurora.study.running import RESULT, Runner, Train, read_result, result_run
from llava_aurora.study.sizes import SIZES
from llava_aurora.training.checkpoint_folder import newest_whole


class Study:
    """A study in a folder.

    Args:
        size: of SIZES.
        out: the folder; it belongs to that size.
        only: contestants that are run; all if empty. The report shows every result that the folder has.
        seeds: that each is run with.
        train: starts a training command.
    """

    def __init__(
        self,
        *,
        size: str,
        out: Path,
        only: Sequence[str] = (),
        seeds: Sequence[int] = (0, 1),
        train: Train = run_training,
    ) -> None:
        if size not in SIZES:
            raise AuroraError(f"--size {size}: there are: {', '.join(SIZES)}")
        self.size, self.out = SIZES[size], out
        self.wanted = runs(only=only, seeds=seeds, marked=self.size.marked)
        self.materials = Materials(self.size, out / "work")
        self.runner = Runner(self.size, self.materials, train)
        self.console = Console()

    def run(self) -> Path:
        """Does what is left of the runs, one after the other, and writes the report after each.

        Returns:
            The path of the report.

        Raises:
            AuroraError: if the folder was made with other sizes or flags, or a stage fails.
        """
        self._claim()
        for run in self.wanted:  # what is refused is refused before anything is made
            read_result(run, self.folder(run))
        self._prepare()
        report = self.report()
        for place, run in enumerate(self.wanted, start=1):
            self.console.rule(f"{place} of {len(self.wanted)}: {run.contestant.title}, seed {run.seed}")
            self.runner.result(run, self.folder(run))
            report = self.report()
        self.console.print(f"Report: {report}")
        return report

    def take_over(self, report: Path) -> list[str]:
        """Counts the runs of an earlier study's report.json as done, but for those that have a result here.

        Scenes and questions follow from the size alone, so that runs of two machines can be compared question by
        question; the VQ-VAE is trained on each, and they are not equal bit for bit. Nothing is taken over unless all
        runs fit.

        Returns:
            Names of the runs that were taken over.

        Raises:
            AuroraError: naming the report, if it is none, or of other sizes, or a run in it of other flags.
        """
        content = read_json(report, what="report of a study")
        if not isinstance(content, dict) or not isinstance(content.get("runs"), list):
            raise AuroraError(f"{report}: is no report.json of a study")
        if content.get("size") != json.loads(json.dumps(asdict(self.size))):
            raise AuroraError(f"{report}: is of other sizes than --size {self.size.name}; its runs cannot be compared")
        self._claim()
        found = [(result_run(result, report), result) for result in content["runs"]]
        taken = [(run, result) for run, result in found if read_result(run, self.folder(run)) is None]
        for run, result in taken:
            write_json(self.folder(run) / RESULT, result, indent=1)
        return [run.name for run, _ in taken]

    def report(self) -> Path:
        """Writes the report of all runs in the folder that are done, whatever this call is to run."""
        return write_report(self.out / "report", size=self.size, results=self.results(), limits=self.materials.limits())

    def results(self) -> dict[str, list[dict[str, Any]]]:
        """The results that the folder has, by contestant, in the order of the table and of the seeds."""
        found: dict[str, list[dict[str, Any]]] = {}
        for contestant in CONTESTANTS.values():
            folders = (self.out / "runs").glob(f"{contestant.name}-*")
            seeds = sorted(
                int(folder.name.rpartition("-")[2]) for folder in folders if (folder / "result.json").is_file()
            )
            results = [read_result(run, self.folder(run)) for run in (Run(contestant, seed) for seed in seeds)]
            if results:
                found[contestant.name] = [result for result in results if result is not None]
        return found

    def plan(self, *, measure: bool = False) -> Table:
        """The runs in their order, what is left of each, and about how long it takes.

        Args:
            measure: trains for a few steps if that is not known yet, for which scenes and VQ-VAE are made.
        """
        self._claim()
        if measure:
            self._prepare()
        found = estimate(self.out, self.runner, results=self.results(), measure=measure, seed=self.wanted[0].seed)
        return self._table(found)

    def folder(self, run: Run) -> Path:
        return self.out / "runs" / run.name

    def _claim(self) -> None:
        claim_folder(self.out, self.out / "size.json", self.size, what="study")

    def _prepare(self) -> None:
        seeds = sorted({run.seed for run in self.wanted})
        self.materials.prepare(Stages(self.console), seeds=seeds, contestants=[run.contestant for run in self.wanted])

    def _table(self, found: Estimate | None) -> Table:
        size = self.size
        steps = -(-size.samples // (size.batch * size.ranks))
        table = Table(
            *("", "contestant", "seed", "samples", "state", "training, min", "asking, min"),
            title=f"{size.samples} samples each in {size.epochs} epochs, about {steps} steps",
            title_justify="left",
        )
        for place, run in enumerate(self.wanted, start=1):
            folder = self.folder(run)
            done = read_result(run, folder)
            state = "done" if done else "to be asked" if (folder / "training.json").is_file() else "not run"
            if state == "not run" and (newest := newest_whole(folder / "model")) is not None:
                state = f"goes on from {newest.name}"
            times = (done["seconds"]["training"], done["seconds"]["evaluation"]) if done else (None, None)
            if done is None and found is not None:
                times = (found.training, found.asking(run.contestant))
            cells = ["?" if seconds is None else f"{seconds / 60:.1f}" for seconds in times]
            table.add_row(str(place), run.contestant.title, str(run.seed), str(size.samples), state, *cells)
        if found is None:
            table.caption = "Not measured yet: --plan --measure trains for a few steps."
        return table
