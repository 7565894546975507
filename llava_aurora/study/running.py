"""One run: a contestant is trained, asked and tested for the use of its map. What it came to is one JSON file.

runs/NAME-SEED/
  curriculum.yaml  prompts.json  command.json  training.log  model/    training; goes on from its newest checkpoint
  training.json                                          its seconds and commit, once it is done
  evaluation/                                            as `llava-aurora eval` leaves it; goes on too
  result.json                                            all that the report needs; a run that has it is done
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from llava_aurora.data.prompts import Prompts
from llava_aurora.data.sources.depth.depth_estimation import default_device
from llava_aurora.demo.launch import REPOSITORY, finetune_command, run_training
from llava_aurora.demo.stages import as_arguments, small_model_flags
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.answers import Line
from llava_aurora.evaluation.asker import LoadedAsker, Settings
from llava_aurora.evaluation.measure import Judged
from llava_aurora.evaluation.provenance import commit, provenance
from llava_aurora.evaluation.replacement import replacement_test
from llava_aurora.evaluation.run import Plan, evaluate, judged_answers, read_results
from llava_aurora.evaluation.written import read_written
from llava_aurora.files import read_json, write_json, write_text
from llava_aurora.study.contestants import CONTESTANTS, Run
from llava_aurora.study.materials import Materials
from llava_aurora.study.mixtures import mixture_file
from llava_aurora.study.sizes import BY_COORDINATES, COUNTING, Size
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.training.checkpoint_folder import checkpoints, newest_whole

RESULT = "result.json"
Train = Callable[..., None]  # as `run_training`


@dataclass(frozen=True)
class Runner:
    """Args: size, materials: of the study; train: starts a training command."""

    size: Size
    materials: Materials
    train: Train = run_training

    def result(self, run: Run, folder: Path) -> dict[str, Any]:
        """Does what is left of a run. Returns its result.

        Raises:
            AuroraError: if training or evaluation fails, or the folder holds a run of other flags.
        """
        if (done := read_result(run, folder)) is not None:
            return done
        trained = self._trained(run, folder)
        started = time.perf_counter()
        evaluation = self._asked(run, folder)
        seconds = {"training": trained["seconds"], "evaluation": round(time.perf_counter() - started, 1)}
        result = {
            "contestant": _plain(run),
            "seed": run.seed,
            "samples": self.size.samples,
            "seconds": seconds,
            "resumed": trained["resumed"],
            "trained_at": trained.get("commit"),
            "training_command": portable(read_json(folder / "command.json", what="command of the training"), folder),
            **provenance(),
            **evaluation,
        }
        write_json(folder / RESULT, result, indent=1)
        return result

    def flags(self, run: Run, folder: Path) -> dict[str, object]:
        """Flags of scripts/finetune_aurora.sh."""
        size, materials = self.size, self.materials
        base = materials.base(run.seed)
        model = folder / "model"
        flags = small_model_flags(
            base=base,
            records=materials.records_of(run.contestant),
            images=materials.images,
            vqvae=materials.vqvae,
            out=model,
            config=size.model,
        )
        flags |= {
            "deepspeed": REPOSITORY / "deepspeed_configs" / "zero2.json",  # the model is small
            "curriculum": folder / "curriculum.yaml",
            "num_train_epochs": size.epochs,
            "per_device_train_batch_size": size.batch,
            "learning_rate": size.learning_rate,
            # Questions come late in a curriculum: the rate must not have fallen before.
            "lr_scheduler_type": "warmup_stable_decay",
            "lr_scheduler_kwargs": json.dumps({"num_decay_steps": size.steps // run.contestant.accumulation // 5}),
            "group_by_modality_length": True,
            "save_strategy": "steps",
            "save_steps": 0.1,  # of all steps
            "save_total_limit": 1,
            "seed": run.seed,
            **size.flags,
            **run.contestant.flags,
        }
        if flags.get("fresh_points"):
            flags["prompts"] = folder / "prompts.json"
        if newest_whole(model) is not None:
            flags["resume_from_checkpoint"] = True
        return flags

    def _trained(self, run: Run, folder: Path) -> dict[str, Any]:
        """Of the last start of the training: its seconds, whether it resumed, and the commit then checked out."""
        mark, size = folder / "training.json", self.size
        if not mark.is_file():
            write_text(folder / "curriculum.yaml", mixture_file(run.contestant, size))
            flags = self.flags(run, folder)
            if "prompts" in flags:
                write_json(folder / "prompts.json", Prompts.plain().templates)
            command = finetune_command(as_arguments(flags), ranks=size.ranks)
            write_json(folder / "command.json", command)
            at, started = commit(), time.perf_counter()
            self.train(command, log=folder / "training.log", description=f"Training {run.name}")
            seconds = round(time.perf_counter() - started, 1)
            write_json(mark, {"seconds": seconds, "resumed": "resume_from_checkpoint" in flags, "commit": at})
        for checkpoint in checkpoints(folder / "model"):
            shutil.rmtree(checkpoint)
        return read_json(mark, what="record of the training")

    def _asked(self, run: Run, folder: Path) -> dict[str, Any]:
        """Answers to the held-out questions, and to chains whose map was replaced."""
        asker = LoadedAsker(folder / "model", settings=Settings(max_new_tokens=self.size.max_new_tokens))
        if asker.perception is not None:  # maps are decoded by the thousand
            asker.perception.kinds["depth"].vqvae.to(default_device())  # type: ignore[attr-defined]
        answered, replaced = folder / "evaluation", folder / "replacement"
        for task in (*self.size.depth_benchmarks, COUNTING):
            limit = self.size.coordinate_questions if task == BY_COORDINATES else None
            evaluate(asker, self._plan(run, task, limit), out=answered)
        for task in self.size.depth_benchmarks if "chain" in run.contestant.reasonings else ():
            plan = self._plan(run, task, self.size.replaced_questions, reasonings=["chain"])
            (asked,) = evaluate(asker, plan, out=replaced)
            if any(has_map(line, asker.perception) for line in asked.answers["chain"]):
                replacement_test(asker, plan, out=replaced)
        return {
            "benchmarks": condensed_answers(read_results(answered)),
            "replacement": condensed_replacements(read_results(replaced)) if replaced.exists() else {},
        }

    def _plan(self, run: Run, task: str, limit: int | None, *, reasonings: Sequence[str] | None = None) -> Plan:
        return Plan(
            tasks=[task],
            data=self.materials.held_out,
            reasonings=reasonings or run.contestant.reasonings,
            batch_size=self.size.ask_batch,
            limit=limit,
            seed=self.size.seed,
            pictures=0,
        )


def read_result(run: Run, folder: Path) -> dict[str, Any] | None:
    """What a run came to; None if it is not done.

    Raises:
        AuroraError: if it was trained with other flags.
    """
    if not (folder / RESULT).is_file():
        return None
    result = read_json(folder / RESULT, what="result of a run")
    if not _is_of(result, run):
        raise AuroraError(f"{folder}: holds a run of other flags; remove it or choose another folder with --out")
    return result


def result_run(result: Any, source: Path) -> Run:
    """The run that a result is of. Raises AuroraError, naming its source, if no contestant is trained so any more."""
    about = result.get("contestant") if isinstance(result, dict) else None
    if not isinstance(about, dict) or not isinstance(result.get("seed"), int):
        raise AuroraError(f"{source}: holds something that is no result of a run")
    contestant = CONTESTANTS.get(str(about.get("name")))
    if contestant is None or not _is_of(result, Run(contestant, result["seed"])):
        raise AuroraError(f"{source}: {about.get('name')} was trained with other flags than a contestant of that name")
    return Run(contestant, result["seed"])


def has_map(line: Line, perception: PerceptionTokens | None) -> bool:
    """Whether a whole map stands in an answer."""
    return read_written(line.text, line.ids, perception).codes is not None


def condensed_answers(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the report needs of an evaluation: summaries, and question by question what was right.

    That is a string for each category: "1" right, "0" wrong. Beside the answers stand what the map says ("read_out"),
    and of chains that state values the highest that its map holds ("highest_of_map"), whether all are its map's
    ("are_maps"), the highest of those stated, and whether the answer is that one ("followed"; "-": none are stated).
    """
    found: dict[str, Any] = {}
    for task, entry in results["benchmarks"].items():
        found[task] = {name: entry[name] for name in ("title", "questions", "left_out", "digest")}
        for reasoning, asked in entry["reasonings"].items():
            answers = judged_answers(entry, reasoning)
            kept = {"right": _marks(answers, answers, lambda each: each.correct)}
            if any(each.has_map for each in answers):
                kept["read_out"] = _marks(answers, answers, lambda each: each.read_out == each.truth)
            if any(each.highest_of_map for each in answers):
                kept["highest_of_map"] = _marks(answers, answers, lambda each: each.highest_of_map_is_right)
            if told := [each for each in answers if each.values_are_maps is not None]:
                kept["are_maps"] = _marks(answers, told, lambda each: bool(each.values_are_maps))
            if valued := [each for each in answers if each.highest]:
                kept["highest"] = _marks(answers, answers, lambda each: each.highest_is_right)
                kept["followed"] = _marks(answers, valued, lambda each: each.stated in each.highest)
            found[task][reasoning] = {"summary": asked["summary"], **kept}
    return found


def condensed_replacements(results: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the token replacement test; "-" stands for a chain without a map to replace."""
    found: dict[str, Any] = {}
    for task, tested in results.get("replacement", {}).items():
        chains, conditions = judged_answers(results["benchmarks"][task], "chain"), {}
        for name, condition in tested["conditions"].items():
            answers = [Judged(**each) for each in condition["answers"]]
            right = _marks(chains, answers, lambda each: each.correct)
            conditions[name] = {"follows": condition["follows"], "right": right}
        kept = {name: tested[name] for name in ("verdict", "chains", "questions", "control_repeats_chain")}
        found[task] = {**kept, "conditions": conditions}
    return found


def _marks(asked: Sequence[Judged], answers: Sequence[Judged], holds: Callable[[Judged], bool]) -> dict[str, str]:
    by_id = {each.id: str(int(holds(each))) for each in answers}
    marks: dict[str, str] = {}
    for each in asked:
        marks[each.category] = marks.get(each.category, "") + by_id.get(each.id, "-")
    return marks


def portable(command: Sequence[str], folder: Path) -> str:
    """A command with paths from the root of the repository and from the study's folder."""
    text = " ".join(command)
    for path, name in ((folder.absolute().parents[1], "STUDY"), (folder.parents[1], "STUDY")):
        text = text.replace(f"{path}/", f"{name}/")
    return text.replace(f"{REPOSITORY}/", "").replace(".venv/bin/", "")


def _is_of(result: Mapping[str, Any], run: Run) -> bool:
    """Whether a result is of a run; what its contestant does not say did not exist yet, and is as by default."""
    defaults = {each.name: each.default for each in fields(run.contestant) if each.default is not MISSING}
    return {**defaults, **result.get("contestant", {})} == {**defaults, **_plain(run)}


def _plain(run: Run) -> dict[str, Any]:
    """The contestant as JSON has it."""
    plain = asdict(run.contestant)
    return {**plain, "kinds": list(plain["kinds"]), "flags": dict(plain["flags"])}
