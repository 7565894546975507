"""Compares what `llava-aurora plan` says a rank sends and holds with what DeepSpeed really does on CPU ranks.

    python scripts/benchmark_communication.py                          # ZeRO-2 and 3 on 2 and 4 ranks, two minutes
    python scripts/benchmark_communication.py --ranks 2 --stages 3 --modes lora --layers 2

A small LLaVA is trained for some steps in float32, fully and by LoRA with rows for new tokens, with and without
gradient checkpointing. Every tensor that DeepSpeed hands to a collective is counted, rank 0's; a ring's share of it is
taken for what is sent, as in the plan. What is no larger than 64 bytes (the gradient's norm) is counted apart. Bytes
are exact, so that nothing is repeated; each step after the first two, in which ZeRO-3 learns the order of modules, must
send the same. The buckets and windows of ZeRO-3 are made small along with the model, so that weights are released.

The table shows measured bytes of rank 0 and measured / planned; the last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from llava_aurora.training.ports import free_port

WARM_UP, SCALARS, TOKENS, LORA_R = 2, 64, 24, 8
OPERATIONS = {
    "all_reduce": "all_reduce",
    "reduce_scatter_tensor": "reduce_scatter",
    "all_gather_into_tensor": "all_gather",
}
# The plan knows nothing of these; ZeRO-3 calls some while it learns the order of modules.
OTHERS = ("broadcast", "all_gather", "reduce", "reduce_scatter", "all_to_all_single", "all_to_all", "send", "recv")
SENT = ("all_reduce", "reduce_scatter", "all_gather")
# The last: layers' weights that ZeRO-3 with checkpointing holds whole at the end of the backward pass.
HELD = ("parameters", "gradients", "optimizer", "frozen_whole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--stages", type=int, nargs="+", default=[2, 3], choices=[0, 1, 2, 3], help="ZeRO stages")
    parser.add_argument("--modes", nargs="+", default=["full", "lora"], choices=["full", "lora", "projector"])
    parser.add_argument("--checkpointing", nargs="+", default=["on", "off"], choices=["on", "off"])
    parser.add_argument("--steps", type=int, default=3, help="counted, after two that are not")
    parser.add_argument("--width", type=int, default=256, help="of the hidden states")
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    if min(*options.ranks, options.steps) < 2:
        parser.error("--ranks and --steps are at least 2")
    compare(options)


# --- one run, on every rank -------------------------------------------------------------------------------------------


def measure(*, folder: str, mode: str, checkpointing: bool, settings: dict[str, Any], steps: int, out: str) -> None:
    """Trains a few steps; rank 0 writes the bytes of each and what it held."""
    import deepspeed
    import torch

    from llava_aurora.training.cpu_ranks import leave_out_inference_operator

    leave_out_inference_operator()
    deepspeed.init_distributed("gloo")
    model = build_model(folder, mode=mode, checkpointing=checkpointing)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    engine, zero, _, _ = deepspeed.initialize(
        model=model, optimizer=torch.optim.AdamW(trained, lr=1e-4), model_parameters=trained, config=settings
    )
    sent = watch_collectives()
    held = {"gradients": 0, "frozen_whole": 0}
    threshold = settings["zero_optimization"]["stage3_param_persistence_threshold"]
    frozen = [
        weight
        for name, weight in model.named_parameters()
        if not weight.requires_grad and ".layers." in name and "vision_tower" not in name
    ]

    def look(_: Any) -> None:
        """Called when a gradient has arrived; the most that was held at one time counts."""
        held["gradients"] = max(held["gradients"], storage_bytes(gradients(trained, zero)))
        if checkpointing and settings["zero_optimization"]["stage"] == 3:
            whole = [weight for weight in frozen if weight.ds_status.name == "AVAILABLE"]
            numel = sum(weight.ds_numel for weight in whole if weight.ds_numel > threshold)
            held["frozen_whole"] = max(held["frozen_whole"], 4 * numel)

    for weight in trained:
        weight.register_post_accumulate_grad_hook(look)
    from llava.constants import IMAGE_TOKEN_INDEX

    ids = torch.randint(3, 100, (1, 24), generator=torch.Generator().manual_seed(engine.global_rank))
    ids[:, 0] = IMAGE_TOKEN_INDEX
    images = torch.zeros(1, 3, FRAME, FRAME)
    bytes_of_steps = []
    for _ in range(WARM_UP + steps):
        sent.clear()
        engine.backward(engine(input_ids=ids, labels=ids, images=images, use_cache=False).loss)
        engine.step()
        bytes_of_steps.append(dict(sent))
    whole = [*model.parameters(), *(w.ds_tensor for w in model.parameters() if hasattr(w, "ds_tensor"))]
    held["parameters"] = storage_bytes(whole)
    if zero is None or not hasattr(zero, "optimizer"):  # without ZeRO, it is the optimizer itself
        states = engine.optimizer.state
        masters = []
    else:
        states = zero.optimizer.state
        masters = [weight for group in zero.optimizer.param_groups for weight in group["params"]]
    held["optimizer"] = storage_bytes([*whole, *masters, *tensors(list(states.values()))]) - held["parameters"]
    if engine.global_rank == 0:
        Path(out).write_text(json.dumps({"steps": bytes_of_steps[WARM_UP:], "held": held}), encoding="utf-8")
    # gloo's threads must have ended before the interpreter does
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


FRAME = 56


def build_model(folder: str, *, mode: str, checkpointing: bool) -> Any:
    """The LLaVA of a folder, its trainable weights marked as a training run marks them."""
    import torch
    from llava.model import LlavaLlamaForCausalLM
    from peft import LoraConfig, get_peft_model

    from llava_aurora.model.perception_head import split_rows

    torch.manual_seed(0)
    model = LlavaLlamaForCausalLM.from_pretrained(folder)
    tower = model.get_vision_tower()
    tower.load_model()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": True})  # the Trainer's choice
        model.enable_input_require_grads()
    whole: Any = model
    if mode == "lora":
        maps = r".*\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj"
        whole = get_peft_model(model, LoraConfig(r=LORA_R, target_modules=rf"(?!.*vision_tower){maps}"))
    if mode == "projector":
        model.requires_grad_(False)
    if mode != "full":
        words = model.config.vocab_size
        rows = {name: torch.randn(TOKENS, model.config.hidden_size) for name in ("input", "output")}
        split_rows(model, ids=range(words, words + TOKENS), rows=rows)
        model.get_model().mm_projector.requires_grad_(True)
    tower.to(torch.float32)
    tower.requires_grad_(False)
    return whole.train()


def watch_collectives() -> Counter[str]:
    """Counts bytes of all tensors in DeepSpeed's collectives from now on: the whole one of a gather or a scatter."""
    from deepspeed import comm

    backend, sent = comm.comm.cdb, Counter[str]()

    def watched(name: str, counted_as: str) -> Any:
        original = getattr(backend, name)

        def call(*arguments: Any, **named: Any) -> Any:
            passed = tensors([*arguments, *named.values()])
            size = max(tensor.numel() * tensor.element_size() for tensor in passed)
            sent["scalars" if size <= SCALARS else counted_as] += size
            return original(*arguments, **named)

        return call

    for name in (*OPERATIONS, *OTHERS):
        setattr(backend, name, watched(name, OPERATIONS.get(name, "unplanned")))
    return sent


GRADIENTS = "averaged_gradients", "all_grad_tensors", "grads_in_partition", "grad_partitions_flat_buffer"


def gradients(trained: list[Any], zero: Any) -> list[Any]:
    """All that holds one: weights, ZeRO's parts, its buckets."""
    found = [weight.grad for weight in trained]
    found += [tensor for name in GRADIENTS for tensor in tensors(getattr(zero, name, None))]
    return found + [tensor for bucket in getattr(zero, "ipg_buckets", {}).values() for tensor in tensors(bucket.buffer)]


def tensors(value: Any) -> list[Any]:
    """Those in nested lists and dictionaries."""
    if hasattr(value, "untyped_storage"):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        inside = [tensor for item in value for tensor in tensors(item)]
        return inside + tensors(getattr(value, "flat_partition", None))
    return []


def storage_bytes(found: list[Any]) -> int:
    """Bytes of the distinct storages behind some tensors."""
    storages = [tensor.untyped_storage() for tensor in found if tensor is not None]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


# --- all runs ---------------------------------------------------------------------------------------------------------


def compare(options: argparse.Namespace) -> None:
    """Runs every way, prints a table and one line of JSON."""
    from rich.progress import track
    from side_by_side import print_json

    from llava_aurora.demo.tiny_llava import TinyLlavaConfig, build_tiny_llava

    config = TinyLlavaConfig(
        frame=FRAME, width=options.width, layers=options.layers, vision_layers=2, patch=14, vocabulary=420
    )
    plan = [
        (ranks, stage, mode, checkpointing == "on")
        for ranks in options.ranks
        for stage in options.stages
        for mode in options.modes
        for checkpointing in options.checkpointing
    ]
    with tempfile.TemporaryDirectory() as folder:
        corpus = [f"the quick brown fox number {number} jumps over" for number in range(300)]
        build_tiny_llava(Path(folder) / "base", corpus=corpus, config=config, seed=0)
        rows = [
            run(Path(folder), options, ranks=ranks, stage=stage, mode=mode, checkpointing=checkpointing)
            for ranks, stage, mode, checkpointing in track(plan, description="Runs", transient=True)
        ]
    print_table(rows)
    settings = {key: getattr(options, key) for key in ("steps", "width", "layers")}
    print_json("communication", rows=rows, settings=settings)


def run(
    folder: Path, options: argparse.Namespace, *, ranks: int, stage: int, mode: str, checkpointing: bool
) -> dict[str, Any]:
    """One way: what was measured and what was planned, in bytes."""
    from llava_aurora.training import plan
    from llava_aurora.training.model_sizes import Run, find_sizes
    from llava_aurora.training.plan import Zero
    from llava_aurora.training.plan_communication import communication

    settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero_settings(options, stage)}
    out = folder / "measured.json"
    described = {
        "folder": str(folder / "base"),
        "mode": mode,
        "checkpointing": checkpointing,
        "settings": settings,
        "steps": options.steps,
        "out": str(out),
    }
    launch(ranks, described)
    measured = json.loads(out.read_text(encoding="utf-8"))
    shapes = Run(
        model=find_sizes(str(folder / "base")),
        mode=mode,
        lora_r=LORA_R,
        new_tokens=0 if mode == "full" else TOKENS,
        checkpointing=checkpointing,
        element=4,
        gpus=ranks,
    )
    zero = Zero.from_settings(settings, name="", hidden=options.width)
    planned = communication(shapes, zero)
    steps = measured["steps"]
    factors = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1}
    sent = {name: factors[name] * steps[-1].get(name, 0) * (ranks - 1) // ranks for name in SENT}
    return {
        "ranks": ranks,
        "stage": stage,
        "mode": mode,
        "checkpointing": checkpointing,
        "steps_alike": all(step == steps[0] for step in steps),
        "unplanned_bytes": steps[-1].get("unplanned", 0),
        "scalar_bytes": steps[-1].get("scalars", 0),
        "measured": {**sent, "sent": sum(sent.values()), **measured["held"]},
        "planned": {
            **{name: getattr(planned, name) for name in SENT},
            "sent": planned.total,
            "parameters": plan.parameter_bytes(shapes, zero),
            "gradients": plan.gradient_bytes(shapes, zero) + plan.bucket_bytes(shapes, zero),
            "optimizer": plan.optimizer_bytes(shapes, zero),
            "frozen_whole": plan.kept_bytes(shapes, zero),
        },
    }


def zero_settings(options: argparse.Namespace, stage: int) -> dict[str, Any]:
    """The shipped ones, small as the model: a layer has ten times the width squared, and weights are released."""
    square = options.width**2
    return {
        "stage": stage,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": 3 * square // 2,
        "stage3_prefetch_bucket_size": square,
        "stage3_param_persistence_threshold": 1000,
        "stage3_max_live_parameters": 15 * square,
        "stage3_max_reuse_distance": 15 * square,
    }


def launch(ranks: int, described: dict[str, Any]) -> None:
    """Measures on so many CPU ranks, forked from a process that has imported what takes seconds."""
    from torch.multiprocessing import start_processes

    os.environ.update({"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"})
    multiprocessing.set_forkserver_preload(["deepspeed", "llava.train.train"])
    start_processes(measure_on_rank, (ranks, free_port(), described), nprocs=ranks, start_method="forkserver")


def measure_on_rank(rank: int, ranks: int, port: int, described: dict[str, Any]) -> None:
    """What a launcher does for one rank; what DeepSpeed logs is not shown."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    measure(**described)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Measured MB of rank 0, and measured / planned."""
    from rich.console import Console
    from rich.table import Table

    columns = (*SENT, "sent", *HELD)
    table = Table(title="MB of rank 0: a step's sent, and held; below, measured / planned")
    for heading in ("ranks", "ZeRO", "mode", "checkpointing", *columns):
        table.add_column(heading.replace("_", " "), justify="right")
    for row in rows:
        cells = [(row["measured"][name], row["planned"][name]) for name in columns]
        table.add_row(
            str(row["ranks"]),
            str(row["stage"]),
            row["mode"],
            "on" if row["checkpointing"] else "off",
            *(f"{measured / 1e6:.2f}\n{_ratio(measured, planned)}" for measured, planned in cells),
        )
    Console(width=140).print(table)
    for row in rows:
        if not row["steps_alike"] or row["unplanned_bytes"]:
            print(f"not the same in every step, or by other operations: {row}")


def _ratio(measured: int, planned: int) -> str:
    if not planned:
        return "-" if not measured else "unplanned"
    return f"{measured / planned:.4f}"


if __name__ == "__main__":
    main()
