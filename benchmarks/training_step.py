"""One step of training, ours beside LLaVA's: the same weights, the same batch, in turns.

    python benchmarks/training_step.py                       # a quarter of an hour on two cores
    python benchmarks/training_step.py --width 512 --layers 8 --words 32000
    python benchmarks/training_step.py --device cuda --bf16 --width 2048 --layers 22 --frame 336 --batch 16

off              every perception flag off, against LLaVA's own model and collator; the whole model is trained
tokens           LoRA and the new tokens' rows, against a vocabulary grown the usual way: LoRA and both whole matrices
reconstruction   with the reconstruction loss, against without

Peak memory is measured in a process of its own for each way. TFLOP/s are the matrix multiplications of a step, forward
and backward, as PyTorch counts them, over its time. --profile shows where the time of a step goes.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from harness import Parser, interleaved, peak_memory, rate, report, times_as_fast
from llava.train import train as upstream
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from training_setup import Steps, TrainingSetup, add_size_flags

from llava_aurora.data.dataset import AuroraCollator, AuroraDataset
from llava_aurora.model.losses import AuxWeight
from llava_aurora.model.training_loss import TrainingSettings

COMPARISONS = {  # ours, and what it is compared with
    "off": ("ours, flags off", "LLaVA"),
    "tokens": ("ours, rows", "LLaVA, whole matrices"),
    "reconstruction": ("ours, rows, reconstruction", "ours, rows"),
}
BATCHES = 4  # different ones, in turn


def main() -> None:
    parser = Parser(__doc__, rounds=7)
    add_size_flags(parser)
    parser.add_argument("--only", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS))
    parser.add_argument("--profile", action="store_true", help="show what the operators of a step cost")
    options = parser.options()
    with tempfile.TemporaryDirectory() as folder:
        count = BATCHES * options.batch
        setup = TrainingSetup.build(Path(folder), options, generations=count, images=count)
        rows = [row for name in options.only for row in compare(setup, name, options)]
    report("training_step", rows, options)


def build(setup: TrainingSetup, way: str, batch: int) -> tuple[Steps, list[dict[str, Any]]]:
    """A way to train, and the batches that its own dataset and collator make."""
    torch.manual_seed(0)  # LoRA starts from random numbers
    tokens = way not in COMPARISONS["off"]
    model, tokenizer = (setup.ours if way.startswith("ours") else setup.upstream)(tokens=tokens, lora=tokens)
    if way == "ours, rows, reconstruction":
        settings = TrainingSettings(aux_losses={"reconstruction": AuxWeight(1.0)})
        model.get_base_model().start_training(settings, tokenizer=tokenizer)
    arguments, path = setup.data_arguments(model), str(setup.records)
    if way.startswith("ours"):
        families = model.get_base_model().perception.vocabulary.families if tokens else ()
        dataset, collator = AuroraDataset(path, tokenizer, arguments, families), AuroraCollator(tokenizer=tokenizer)
    else:
        dataset = upstream.LazySupervisedDataset(path, tokenizer, arguments)
        collator = upstream.DataCollatorForSupervisedDataset(tokenizer=tokenizer)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    starts = range(0, BATCHES * batch, batch)
    return Steps(model), [collator([dataset[index] for index in order[start : start + batch]]) for start in starts]


def two_steps(setup: TrainingSetup, way: str, batch: int) -> dict[str, Any]:
    """What the optimizer holds after two steps of one way."""
    steps, batches = build(setup, way, batch)
    for each in batches[:2]:
        steps.step(each)
    return {"optimizer_bytes": steps.optimizer_bytes(), "trained": steps.trained}


def compare(setup: TrainingSetup, name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each of two ways."""
    ways = COMPARISONS[name]
    built = {way: build(setup, way, options.batch) for way in ways}
    losses, flops = {}, {}
    for way, (steps, batches) in built.items():
        with FlopCounterMode(display=False) as counter:
            losses[way] = [float(steps.step(batch)) for batch in batches]
        flops[way] = counter.get_total_flops() / BATCHES

    def all_steps(steps: Steps, batches: list[dict[str, Any]]) -> None:
        for batch in batches:
            steps.step(batch)

    seconds = interleaved(
        {way: lambda both=both: all_steps(*both) for way, both in built.items()}, rounds=options.rounds
    )
    if options.profile:
        for way, (steps, batches) in built.items():
            print_profile(way, steps, batches[0])
    del built, steps, batches  # the processes that measure memory need the card
    torch.cuda.empty_cache()
    rows = []
    for way in ways:
        row: dict[str, Any] = {"way": way, "seconds_a_step": 1 / rate(seconds[way], BATCHES)}
        row |= times_as_fast(seconds, way, ways[1]) if way == ways[0] else {}
        row |= {"tflops": flops[way] / row["seconds_a_step"] / 1e12, "first_loss": losses[way][0]}
        rows.append({**row, **peak_memory(two_steps, setup, way, options.batch), "losses": losses[way]})
    return rows


def print_profile(way: str, steps: Steps, batch: dict[str, Any]) -> None:
    """The operators that take most of one step."""
    cuda = next(steps.model.parameters()).is_cuda
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as record:
        steps.step(batch)
    sort = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    print(way, record.key_averages().table(sort_by=sort, row_limit=12, max_name_column_width=44), sep="\n")


if __name__ == "__main__":
    main()
