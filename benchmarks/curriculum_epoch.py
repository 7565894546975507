"""Records a second in an epoch of a curriculum: our loop beside LLaVA's, on the same model, data and batch.

    python benchmarks/curriculum_epoch.py                          # some ten minutes on two cores
    python benchmarks/curriculum_epoch.py --curves 200             # also 200 steps of both, loss by loss
    python benchmarks/curriculum_epoch.py --device cuda --bf16 --width 2048 --layers 22 --frame 336 --batch 16

Both train the whole model on the sixth of ten epochs of AURORA's curriculum: half maps, a quarter chains, a quarter
direct answers. LLaVA's loop is its own model, dataset and collator over these records written out in order, as AURORA's
code has them. Ours adds one thing after the other:

    labels         logits only where there is a label
    + cache        images decoded and resized in an epoch before
    + lengths      batches of like length

Each round takes other batches of the epoch; reading and collating count. With --curves both loops see the same batches,
so that their losses have to be equal; the largest difference is shown.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from harness import Parser, interleaved, rate, report, times_as_fast
from llava.train import train as upstream
from training_setup import Steps, TrainingSetup, add_size_flags

from llava_aurora.data.curriculum.length_grouped_batches import LengthGroupedBatches
from llava_aurora.data.curriculum.sampler import Curriculum, CurriculumSampler
from llava_aurora.data.curriculum.schedule import LinearSchedule
from llava_aurora.data.dataset import AuroraCollator, AuroraDataset

UPSTREAM, LABELS, CACHE, LENGTHS = "LLaVA", "ours: labels", "ours: + cache", "ours: + lengths"
EPOCH, EPOCHS = 5, 10


def main() -> None:
    parser = Parser(__doc__)
    add_size_flags(parser)
    parser.number("--steps", 8, "a round")
    parser.add_argument("--curves", type=int, default=0, metavar="STEPS", help="compare the losses of so many steps")
    options = parser.options()
    with tempfile.TemporaryDirectory() as folder:
        needed = max(options.steps * (options.rounds + 1), 16) * options.batch
        setup = TrainingSetup.build(Path(folder), options, generations=needed, images=needed // 4)
        loops = make_loops(setup, options)
        ways = {name: lambda loop=loop: loop.run(options.steps) for name, loop in loops.items()}
        seconds = interleaved(ways, rounds=options.rounds)
        rows = [
            {
                "way": name,
                "records_a_second": rate(seconds[name], options.steps * options.batch),
                **(times_as_fast(seconds, name, UPSTREAM) if name != UPSTREAM else {}),
                "padding": loop.padding / loop.elements,
            }
            for name, loop in loops.items()
        ]
        more = {"largest_loss_difference": curves(setup, options)} if options.curves else {}
    report("curriculum_epoch", rows, options, **more)


class Loop:
    """A way to train over batches that its own dataset and collator make in a given order, again and again."""

    def __init__(self, steps: Steps, dataset: Any, collator: Any, order: list[int], *, batch: int) -> None:
        self.steps, self.losses = steps, list[torch.Tensor]()
        self.batches = self._batches(dataset, collator, order, batch)
        self.elements = self.padding = 0

    def _batches(self, dataset: Any, collator: Any, order: list[int], batch: int) -> Iterator[dict[str, Any]]:
        for start in itertools.cycle(range(0, len(order) - batch + 1, batch)):
            yield collator([dataset[index] for index in order[start : start + batch]])

    def run(self, steps: int) -> None:
        for batch in itertools.islice(self.batches, steps):
            self.elements += batch["attention_mask"].numel()
            self.padding += int((~batch["attention_mask"]).sum())
            self.losses.append(self.steps.step(batch))


def make_loops(setup: TrainingSetup, options: argparse.Namespace) -> dict[str, Loop]:
    """LLaVA's loop and ours, all from the same weights."""
    loops = {}
    for name in (LABELS, CACHE, LENGTHS):
        torch.manual_seed(0)
        model, tokenizer = setup.ours(tokens=True, lora=False)
        arguments = setup.data_arguments(model, cached=name != LABELS)
        dataset = AuroraDataset(str(setup.records), tokenizer, arguments, model.perception.vocabulary.families)
        grouped = LengthGroupedBatches(
            lengths=dataset.store.lengths, image_tokens=model.get_vision_tower().num_patches, batch=options.batch
        )
        sampler = CurriculumSampler(
            Curriculum(dataset.store, LinearSchedule()),
            epochs=EPOCHS,
            seed=0,
            length_grouped_batches=grouped if name == LENGTHS else None,
        )
        sampler.set_epoch(EPOCH)
        order = list(sampler)
        if name == LABELS:
            records = json.loads(setup.records.read_text(encoding="utf-8"))
            written_out = setup.folder / "epoch.json"
            written_out.write_text(json.dumps([records[index] for index in order]), encoding="utf-8")
        else:
            for index in order[: (options.rounds + 1) * options.steps * options.batch]:
                _ = dataset[index]  # fills the cache, as an epoch before has
        loops[name] = Loop(Steps(model), dataset, AuroraCollator(tokenizer=tokenizer), order, batch=options.batch)
    torch.manual_seed(0)
    model, tokenizer = setup.upstream(tokens=True, lora=False)
    dataset = upstream.LazySupervisedDataset(str(written_out), tokenizer, setup.data_arguments(model))
    collator = upstream.DataCollatorForSupervisedDataset(tokenizer=tokenizer)
    theirs = Loop(Steps(model), dataset, collator, list(range(len(dataset))), batch=options.batch)
    return {UPSTREAM: theirs, **loops}


def curves(setup: TrainingSetup, options: argparse.Namespace) -> float:
    """The largest difference between the losses of LLaVA's loop and ours over the same batches."""
    losses = {}
    for name, loop in make_loops(setup, options).items():
        if name in (UPSTREAM, CACHE):
            loop.run(options.curves)
            losses[name] = torch.stack(loop.losses)
    return float((losses[UPSTREAM] - losses[CACHE]).abs().max())


if __name__ == "__main__":
    main()
