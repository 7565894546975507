"""The plan of a run as a table, and the recommended way with its flags."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from llava_aurora.training.plan import GB, Run, Zero, choose, estimate, largest_batch, shipped, usable

# Headings of sizes whose name is not their heading.
HEADINGS = {"parameters": "weights", "gradients": "grads", "optimizer": "Adam"}
COLUMNS = ("parameters", "gradients", "optimizer", "activations", "buffers", "peak", "sent")


def as_records(runs: Sequence[Run], *, memory: float, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Bytes of each run, way and number of GPUs; `fits` is the largest batch."""
    return [
        {
            **{"model": run.model.name, "mode": run.mode, "way": zero.name, "gpus": number},
            **asdict(held := estimate(replace(run, gpus=number), zero)),
            "peak": held.peak,
            "fits": largest_batch(replace(run, gpus=number), zero, memory=memory),
        }
        for run in runs
        for zero in shipped(run.model.hidden)
        for number in numbers
        if not (run.mode == "qlora" and zero.stage == 3)
    ]


def print_plan(runs: Sequence[Run], *, memory: float, numbers: Sequence[int]) -> None:
    """A row for each run of one model, way and number of GPUs; for one number also what is recommended."""
    first = runs[0]
    print(
        f"{first.model.name}: {first.model.weights / GB:.2f} billion weights, {first.new_tokens} new tokens; GPUs of"
        f" {memory:g} GB, of which {usable(memory) / GB:.1f} GB can be used; batches of {first.batch} records of"
        f" {first.length} tokens, {first.answer} with labels; {'bfloat16' if first.element == 2 else 'float32'},"
        f" {'with' if first.checkpointing else 'without'} gradient checkpointing\n\nGB on one GPU (estimates):\n"
    )
    rows = [["mode", "way", "GPUs", *(HEADINGS.get(column, column) for column in COLUMNS), "fits"]]
    for row in as_records(runs, memory=memory, numbers=numbers):
        sizes = (f"{row[column] / GB:.1f}" for column in COLUMNS)
        rows.append([row["mode"], row["way"], str(row["gpus"]), *sizes, str(row["fits"] or "-")])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for mode, way, *cells in rows:
        numbers_in_row = (f"  {cell:>{width}}" for cell, width in zip(cells, widths[2:], strict=True))
        print(f"{mode:{widths[0]}}  {way:{widths[1]}}{''.join(numbers_in_row)}")
    print("\nfits: records on one GPU at once. sent: by one GPU in a step, in rings.\n")
    for run in runs if len(numbers) == 1 else []:
        print(_verdict(replace(run, gpus=numbers[0]), memory=memory))


def _verdict(run: Run, *, memory: float) -> str:
    start = f"{run.mode} ({run.trained / 10**6:.0f} M weights trained):"
    chosen = choose(run, memory=memory)
    if chosen is None:
        return (
            f"{start} does not fit with a single record. What helps: more GPUs, --length of your longest record,"
            " --gradient-checkpointing, --mode lora or qlora"
        )
    part, zero, accumulation = chosen
    held = estimate(part, zero)
    split = f", accumulated {accumulation} times" if accumulation > 1 else ""
    host = f", and {held.host * run.gpus / GB:.0f} GB of the machines' memory in all" if held.host else ""
    fits = f"fits with {zero.name}, {part.batch} records a GPU{split}: {held.peak / GB:.1f} GB{host}"
    return f"{start} {fits}\n    {flags(part, zero, accumulation)}"


def flags(run: Run, zero: Zero, accumulation: int) -> str:
    """The run as flags of a training script."""
    lora = f" --lora_enable True --lora_r {run.lora_r} --lora_alpha {2 * run.lora_r}" if "lora" in run.mode else ""
    words = " --train_base_vocabulary True" if run.whole_vocabulary and run.mode != "full" else ""
    bits = " --bits 4" if run.mode == "qlora" else ""
    projector = " --tune_mm_mlp_adapter True" if run.mode == "projector" else ""
    return (
        f"--deepspeed {zero.config}{lora}{words}{bits}{projector} --bf16 {run.element == 2}"
        f" --per_device_train_batch_size {run.batch} --gradient_accumulation_steps {accumulation}"
        f" --model_max_length {run.length} --gradient_checkpointing {run.checkpointing}"
    )
