"""How long a study takes: by the runs that are done, or else by a few steps of training and one batch of chains."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_aurora.data.tasks import task_name
from llava_aurora.demo.launch import finetune_command
from llava_aurora.demo.stages import as_arguments
from llava_aurora.evaluation.asker import LoadedAsker, Settings
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, Wording
from llava_aurora.evaluation.benchmarks.scene_questions import POINTS
from llava_aurora.files import read_json, write_json, write_text
from llava_aurora.study.contestants import CONTESTANTS, Run, Variant
from llava_aurora.study.mixtures import mixture_file
from llava_aurora.study.running import Runner
from llava_aurora.study.sizes import BY_COORDINATES

STEPS = 20
# What is written where a map was replaced, and in direct answers, as parts of a chain.
_REST_OF_A_CHAIN, _ANSWER = 1 / 3, 1 / 10
_REPLACEMENTS = 7


@dataclass(frozen=True)
class Estimate:
    """Seconds of a run that was not run yet.

    Args:
        training: of any contestant.
        by_reasonings: of asking, by how a contestant is asked, where such a run is done.
        chains: of asking all questions for a chain once; None if that was not measured.
        replaced: questions whose map is replaced, as a part of all questions.
    """

    training: float
    by_reasonings: Mapping[tuple[str, ...], float]
    chains: float | None
    replaced: float

    def asking(self, contestant: Variant) -> float | None:
        """Of questions and replaced maps."""
        if contestant.reasonings in self.by_reasonings:
            return self.by_reasonings[contestant.reasonings]
        if self.chains is None:
            return None
        parts = {"chain": 1 + (1 + _REPLACEMENTS * _REST_OF_A_CHAIN) * self.replaced, "direct": _ANSWER}
        return self.chains * sum(parts[reasoning] for reasoning in contestant.reasonings)


def estimate(
    out: Path, runner: Runner, *, results: Mapping[str, Sequence[Mapping[str, Any]]], measure: bool, seed: int
) -> Estimate | None:
    """What is known of the time of a run.

    Args:
        out: folder of the study.
        runner: of its runs.
        results: of the runs that are done.
        seed: whose first weights are there.
        measure: train for a few steps and ask one batch, if that was not done before.

    Returns:
        None if nothing is known.
    """
    path, size = out / "measured.json", runner.size
    if measure and not path.is_file():
        write_json(path, _measure(out / "work" / "measured", runner, seed=seed))
    done = [result for found in results.values() for result in found]
    by_reasonings: dict[tuple[str, ...], list[float]] = {}
    for result in done:
        reasonings = CONTESTANTS[result["contestant"]["name"]].reasonings
        by_reasonings.setdefault(reasonings, []).append(result["seconds"]["evaluation"])
    asking = {reasonings: sum(found) / len(found) for reasonings, found in by_reasonings.items()}
    measured = read_json(path, what="measured time") if path.is_file() else None
    whole = len(POINTS) * size.held_out
    by_coordinates = min(whole, size.coordinate_questions or whole)
    questions = by_coordinates + size.held_out + (whole if size.marked else 0)
    trained = [result["seconds"]["training"] for result in done if not result["resumed"]]
    if trained:
        training = sum(trained) / len(trained)
    elif measured is not None:
        training = measured["starting"] + size.samples / measured["samples_per_second"]
    else:
        return None
    return Estimate(
        training=training,
        by_reasonings=asking,
        chains=measured["seconds_per_chain"] * questions if measured else None,
        replaced=len(size.depth_benchmarks) * min(whole, size.replaced_questions or whole) / questions,
    )


def _measure(folder: Path, runner: Runner, *, seed: int) -> dict[str, float]:
    """Seconds until the first step, samples a second, seconds a chain in a full batch."""
    size, run = runner.size, Run(CONTESTANTS["constant"], seed)
    write_text(folder / "curriculum.yaml", mixture_file(run.contestant, size, epochs=1))
    flags = {**runner.flags(run, folder), "max_steps": STEPS, "save_strategy": "no"}
    started = time.perf_counter()
    command = finetune_command(as_arguments(flags), ranks=size.ranks)
    runner.train(command, log=folder / "training.log", description=f"Training for {STEPS} steps")
    whole = time.perf_counter() - started
    history = read_json(folder / "model" / "trainer_state.json", what="log of the training")["log_history"]
    steps = next(entry["train_runtime"] for entry in history if "train_runtime" in entry)
    return {
        "starting": whole - steps,
        "samples_per_second": STEPS * size.batch * size.ranks / steps,
        "seconds_per_chain": _seconds_per_chain(folder / "model", runner),
    }


def _seconds_per_chain(model: Path, runner: Runner) -> float:
    """In a full batch, of chains as long as a training record's: a model that has learned little never ends its own."""
    materials = runner.materials
    records = read_json(materials.records, what="training records")
    chain = next(record for record in records if task_name(record) == "depth_chain_from_coordinates")["conversations"][
        1
    ]["value"]
    asker = LoadedAsker(model, settings=Settings())
    length = len(asker.tokenizer(chain, add_special_tokens=False).input_ids)
    asker.settings = Settings(max_new_tokens=length)
    wording = Wording.of(asker.perception, image_size=asker.image_size)
    questions = BENCHMARKS[BY_COORDINATES].read(materials.held_out, wording).questions[: runner.size.ask_batch]
    seconds = 0.0
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        asker.write([question.open() for question in questions], [question.prompt("chain") for question in questions])
        seconds = time.perf_counter() - started
    return seconds / len(questions)
