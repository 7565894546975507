"""One step of training, ours beside LLaVA's: the same weights, the same batch, in turns.

    python scripts/benchmark_training_step.py                       # a quarter of an hour on two cores
    python scripts/benchmark_training_step.py --width 512 --layers 8 --words 32000
    python scripts/benchmark_training_step.py --device cuda --bf16 --width 2048 --layers 22 --frame 336 --batch 16

    off              every perception flag off, against LLaVA's own model and collator, whole model trained
    tokens           LoRA and the new tokens' rows, against the same vocabulary grown the usual way: LoRA and both
                     whole matrices; losses of the first step are equal
    reconstruction   with the reconstruction loss, against without

Memory is measured in a process of its own for each way: what it holds at its peak beyond what it held before the model
was loaded (on a GPU: the allocator's peak). TFLOP/s are the multiplications of matrices that a step makes, forward and
backward, as PyTorch counts them, over its time; --peak_tflops, the device's best, makes a utilisation of them.
--profile shows where the time of a step goes. The last line is JSON.
"""

import argparse
import multiprocessing
import statistics
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import interleaved, print_json, ratio, spread
from training_workshop import Steps, Workshop, add_size_flags

COMPARISONS = {  # ours, what it is compared with, the goal of the ratio of times
    "off": ("ours, flags off", "LLaVA", 1.0),
    "tokens": ("ours, rows", "LLaVA, whole matrices", 0.9),
    "reconstruction": ("ours, rows, reconstruction", "ours, rows", 1.1),
}
BATCHES = 4  # different ones, in turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size_flags(parser)
    parser.add_argument("--only", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS))
    parser.add_argument("--rounds", type=int, default=7, help=f"of {BATCHES} steps of each way")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="weights and activations in bfloat16")
    parser.add_argument("--profile", action="store_true", help="show what the operators of a step cost")
    parser.add_argument("--peak_tflops", type=float, default=0.0, help="of the device, as its maker states it")
    options = parser.parse_args()
    if min(options.rounds, options.batch, options.layers) < 1:
        parser.error("--rounds, --batch and --layers are at least 1")
    with tempfile.TemporaryDirectory() as folder:
        count = BATCHES * options.batch
        workshop = Workshop.build(Path(folder), options, generations=count, images=count)
        results = {name: compare(workshop, name, options) for name in options.only}
    show(results, options)


# --- one way ----------------------------------------------------------------------------------------------------------


def build(workshop: Workshop, way: str, options: argparse.Namespace) -> tuple[Steps, list[dict[str, Any]]]:
    """A way to train, ready to step, and the batches that its own dataset and collator make."""
    import torch
    from llava.train import train as upstream

    from llava_aurora.data.dataset import AuroraCollator, AuroraDataset

    torch.manual_seed(0)  # LoRA starts from random numbers
    tokens = way not in COMPARISONS["off"]
    placed = {"device": options.device, "dtype": torch.bfloat16 if options.bf16 else None}
    make = workshop.ours if way.startswith("ours") else workshop.upstream
    model, tokenizer = make(tokens=tokens, lora=tokens, **placed)
    if way == "ours, rows, reconstruction":
        model.get_base_model().training_loss.reconstruction_weight = 1.0
    arguments, path = workshop.data_arguments(model), str(workshop.records)
    if way.startswith("ours"):
        families = model.get_base_model().perception.vocabulary.families if tokens else ()
        dataset = AuroraDataset(path, tokenizer, arguments, families)
        collator = AuroraCollator(tokenizer=tokenizer)
    else:
        dataset = upstream.LazySupervisedDataset(path, tokenizer, arguments)
        collator = upstream.DataCollatorForSupervisedDataset(tokenizer=tokenizer)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    starts = range(0, BATCHES * options.batch, options.batch)
    batches = [collator([dataset[index] for index in order[start : start + options.batch]]) for start in starts]
    return Steps(model), batches


def memory(workshop: Workshop, way: str, options: argparse.Namespace) -> dict[str, int]:
    """Bytes at the peak of some steps of one way, and of its optimizer's states. In a process of its own."""
    import deepspeed  # noqa: F401 - LLaVA imports it later; what it takes is not the model's
    import torch
    from llava.train import train  # noqa: F401

    before = reset_peak()
    steps, batches = build(workshop, way, options)
    for batch in batches[:2]:
        steps.step(batch)
    if options.device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resident("VmHWM") - before
    return {"peak_bytes": peak, "optimizer_bytes": steps.optimizer_bytes(), "trained": steps.trained}


def reset_peak() -> int:
    """Lets Linux forget this process's peak; the bytes that it holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(what: str) -> int:
    """Bytes of main memory that this process holds (VmRSS) or held at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{what}:")).split()[1])


def memory_in_own_process(workshop: Workshop, way: str, options: argparse.Namespace) -> dict[str, int]:
    """`memory`, in a process that is forked from one that has imported what all need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deepspeed", "llava.train.train"])
    with context.Pool(1) as pool:
        return pool.apply(memory, (workshop, way, options))


# --- two ways in turns ------------------------------------------------------------------------------------------------


def compare(workshop: Workshop, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and operations a step, memory and first losses of both ways, and the ratio of the one to the other."""
    from torch.utils.flop_counter import FlopCounterMode

    ours, other, goal = COMPARISONS[name]
    built = {way: build(workshop, way, options) for way in (ours, other)}
    losses, flops = {}, {}
    for way, (steps, batches) in built.items():
        with FlopCounterMode(display=False) as counter:
            losses[way] = [float(steps.step(batch)) for batch in batches]
        flops[way] = counter.get_total_flops() / BATCHES

    def four_steps(steps: Steps, batches: list[dict[str, Any]]) -> None:
        for batch in batches:
            steps.step(batch)

    ways = {way: lambda both=both: four_steps(*both) for way, both in built.items()}
    seconds = interleaved(ways, rounds=options.rounds)
    if options.profile:
        for way, (steps, batches) in built.items():
            profile(way, steps, batches[0])
    measured = {
        way: {
            "seconds_a_step": statistics.median(each) / BATCHES,
            "flops_a_step": flops[way],
            "first_losses": losses[way],
            **memory_in_own_process(workshop, way, options),
        }
        for way, each in seconds.items()
    }
    return {
        "ways": measured,
        "goal": goal,
        "ratio": ratio(seconds, ours, other),
        "ratio_spread": spread(seconds, ours, other),
        "memory_ratio": measured[ours]["peak_bytes"] / measured[other]["peak_bytes"],
    }


def profile(way: str, steps: Steps, batch: dict[str, Any]) -> None:
    """Prints the operators that take most of one step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    cuda = next(steps.model.parameters()).is_cuda
    with profiled(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as record:
        steps.step(batch)
    print(way)
    sort = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    print(record.key_averages().table(sort_by=sort, row_limit=12, max_name_column_width=44))


def show(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    grid = Table(
        title=f"a step of {options.batch} records, {options.words:,} words, {options.layers} × {options.width}"
    )
    for heading in (
        "",
        "s a step",
        "TFLOP/s",
        "ratio (least, most)",
        "goal",
        "peak MB",
        "ratio",
        "optimizer MB",
        "trained",
        "loss",
    ):
        grid.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for result in results.values():
        for number, (way, each) in enumerate(result["ways"].items()):
            least, most = result["ratio_spread"]
            compared = (
                f"{result['ratio']:.2f} ({least:.2f}, {most:.2f})",
                f"≤ {result['goal']:.2f}",
                f"{each['peak_bytes'] / 1e6:.0f}",
                f"{result['memory_ratio']:.2f}",
            )
            grid.add_row(
                way,
                f"{each['seconds_a_step']:.3f}",
                _speed(each, options.peak_tflops),
                *(compared if not number else ("1", "", f"{each['peak_bytes'] / 1e6:.0f}", "1")),
                f"{each['optimizer_bytes'] / 1e6:.1f}",
                f"{each['trained']:,}",
                f"{each['first_losses'][0]:.5f}",
                end_section=bool(number),
            )
    Console(width=150).print(grid)
    settings = ("width", "layers", "words", "frame", "batch", "rounds", "device", "bf16", "peak_tflops")
    print_json(
        "training_step", comparisons=results, settings={setting: getattr(options, setting) for setting in settings}
    )


def _speed(way: dict[str, Any], peak: float) -> str:
    speed = way["flops_a_step"] / way["seconds_a_step"] / 1e12
    return f"{speed:.3g} ({speed / peak:.0%})" if peak else f"{speed:.3g}"


if __name__ == "__main__":
    main()
