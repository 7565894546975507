"""Records a second in an epoch of a curriculum: our loop beside LLaVA's, on the same model, data and batch.

    python scripts/benchmark_curriculum_epoch.py                          # some ten minutes on two cores
    python scripts/benchmark_curriculum_epoch.py --curves 200             # and 200 steps of both, loss by loss
    python scripts/benchmark_curriculum_epoch.py --device cuda --bf16 --width 2048 --layers 22 --frame 336 --batch 16

Both train the whole model with AdamW on the records of an epoch in the middle of AURORA's curriculum. LLaVA's loop is
its own model, dataset and collator over these records written out in order, as AURORA's code had them. Ours adds one
thing after the other, in turns with it:

    labels         logits only where there is a label
    + cache        images decoded and resized in an epoch before
    + lengths      batches of like length

Each round takes other batches of the epoch; reading and collating count. With --curves both see the same batches in
the same order, so that their losses have to be the same; the largest difference is shown.
"""

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from side_by_side import interleaved, print_json, ratio, spread
from training_workshop import Steps, Workshop, add_size_flags

UPSTREAM, LABELS, CACHE, LENGTHS = "LLaVA", "ours: labels", "ours: + cache", "ours: + lengths"
EPOCH, EPOCHS = 5, 10  # half of it maps, a quarter chains, a quarter direct answers
GOAL = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size_flags(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="a round")
    parser.add_argument("--curves", type=int, default=0, metavar="STEPS", help="compare the losses of so many steps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="weights and activations in bfloat16")
    options = parser.parse_args()
    if min(options.rounds, options.batch, options.layers, options.steps) < 1:
        parser.error("--rounds, --batch, --steps and --layers are at least 1")
    with tempfile.TemporaryDirectory() as folder:
        needed = max(options.steps * (options.rounds + 1), 16) * options.batch
        workshop = Workshop.build(Path(folder), options, generations=needed, images=needed // 4)
        loops = make_loops(workshop, options)
        ways = {name: lambda loop=loop: loop.round(options.steps) for name, loop in loops.items()}
        seconds = interleaved(ways, rounds=options.rounds)
        padded = {name: loop.padded for name, loop in loops.items()}
        difference = curves(workshop, options) if options.curves else None
    show(seconds, padded, difference, options)


# --- the loops --------------------------------------------------------------------------------------------------------


class Loop:
    """A way to train, over batches that its own dataset and collator make in a given order, again and again."""

    def __init__(self, steps: Steps, dataset: Any, collator: Any, order: list[int], *, batch: int) -> None:
        self.steps, self.losses = steps, list[Any]()
        self.batches = self._batches(dataset, collator, order, batch)
        self.elements = self.padding = 0

    def _batches(self, dataset: Any, collator: Any, order: list[int], batch: int) -> Iterator[dict[str, Any]]:
        for start in itertools.cycle(range(0, len(order) - batch + 1, batch)):
            yield collator([dataset[index] for index in order[start : start + batch]])

    def round(self, steps: int) -> None:
        for batch in itertools.islice(self.batches, steps):
            self.elements += batch["attention_mask"].numel()
            self.padding += int((~batch["attention_mask"]).sum())
            self.losses.append(self.steps.step(batch))
        float(self.losses[-1])  # a GPU is waited for

    @property
    def padded(self) -> float:
        """Share of the text's positions that is padding."""
        return self.padding / self.elements


def make_loops(workshop: Workshop, options: argparse.Namespace) -> dict[str, Loop]:
    """LLaVA's loop and ours, all from the same weights."""
    import torch
    from llava.train import train as upstream

    from llava_aurora.data.curriculum.length_grouped_batches import LengthGroupedBatches
    from llava_aurora.data.curriculum.sampler import Curriculum, CurriculumSampler
    from llava_aurora.data.curriculum.schedule import LinearSchedule
    from llava_aurora.data.dataset import AuroraCollator, AuroraDataset

    placed = {"device": options.device, "dtype": torch.bfloat16 if options.bf16 else None}
    loops = {}
    for name in (LABELS, CACHE, LENGTHS):
        torch.manual_seed(0)
        model, tokenizer = workshop.ours(tokens=True, lora=False, **placed)
        arguments = workshop.data_arguments(model, cached=name != LABELS)
        dataset = AuroraDataset(str(workshop.records), tokenizer, arguments, model.perception.vocabulary.families)
        like = LengthGroupedBatches(
            lengths=dataset.store.lengths, image_tokens=model.get_vision_tower().num_patches, batch=options.batch
        )
        sampler = CurriculumSampler(
            Curriculum(dataset.store, LinearSchedule()),
            epochs=EPOCHS,
            seed=0,
            length_grouped_batches=like if name == LENGTHS else None,
        )
        sampler.set_epoch(EPOCH)
        order = list(sampler)
        if name != LABELS:
            for index in order[: (options.rounds + 1) * options.steps * options.batch]:
                _ = dataset[index]  # as the epochs before have left it
        loops[name] = Loop(Steps(model), dataset, AuroraCollator(tokenizer=tokenizer), order, batch=options.batch)
        if name == LABELS:
            records = json.loads(workshop.records.read_text())
            written_out = workshop.folder / "epoch.json"
            written_out.write_text(json.dumps([records[index] for index in order]))
    torch.manual_seed(0)
    model, tokenizer = workshop.upstream(tokens=True, lora=False, **placed)
    dataset = upstream.LazySupervisedDataset(str(written_out), tokenizer, workshop.data_arguments(model))
    collator = upstream.DataCollatorForSupervisedDataset(tokenizer=tokenizer)
    theirs = Loop(Steps(model), dataset, collator, list(range(len(dataset))), batch=options.batch)
    return {UPSTREAM: theirs, **loops}


def curves(workshop: Workshop, options: argparse.Namespace) -> float:
    """The largest difference between the losses of LLaVA's loop and ours over the same batches."""
    found = {}
    for name, loop in make_loops(workshop, options).items():
        if name in (UPSTREAM, CACHE):
            loop.round(options.curves)
            found[name] = [float(loss) for loss in loop.losses]
    return max(abs(one - other) for one, other in zip(found[UPSTREAM], found[CACHE], strict=True))


def show(
    seconds: dict[str, list[float]], padded: dict[str, float], difference: float | None, options: argparse.Namespace
) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{options.words:,} words, {options.layers} × {options.width}, batch {options.batch}; goal ≥ {GOAL}"
    grid = Table(title=title)
    for heading in ("loop", "records / s", "times LLaVA's (least, most)", "padding of the text"):
        grid.add_column(heading, justify="left" if heading == "loop" else "right")
    rows = []
    for name, each in seconds.items():
        rate = options.steps * options.batch / statistics.median(each)
        times = ratio(seconds, UPSTREAM, name)
        least, most = spread(seconds, UPSTREAM, name)
        rows.append({"loop": name, "records_a_second": rate, "times": times, "spread": [least, most]})
        rows[-1]["padding"] = padded[name]
        grid.add_row(name, f"{rate:.2f}", f"{times:.2f} ({least:.2f}, {most:.2f})", f"{padded[name]:.0%}")
    console = Console(width=120)
    console.print(grid)
    if difference is not None:
        console.print(f"largest difference between the losses of {options.curves} equal steps: {difference:.2g}")
    settings = ("width", "layers", "words", "frame", "batch", "rounds", "steps", "device", "bf16")
    print_json(
        "curriculum_epoch",
        loops=rows,
        curves=options.curves,
        largest_loss_difference=difference,
        settings={setting: getattr(options, setting) for setting in settings},
    )


if __name__ == "__main__":
    main()
