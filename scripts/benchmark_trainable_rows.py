"""Compares three ways to train tokens that were added to a model otherwise trained by LoRA.

    python scripts/benchmark_trainable_rows.py                 # ZeRO-3 and ZeRO-2 on two CPU ranks, twenty minutes
    python scripts/benchmark_trainable_rows.py --stages 2 --rounds 3 --width 256

    ours   rows of their own beside frozen matrices (llava_aurora/model/perception_head.py)
    peft   LoraConfig(trainable_token_indices=...), which copies the whole matrix in every forward pass
    whole  both whole matrices trained, as AURORA did

All three train the same Llama with 466 tokens behind 32,000 words, from the same weights on the same tokens. Rounds are
interleaved (ours, peft, whole, ours, ...), each a run of its own; the table shows medians, the last line is JSON.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from llava_aurora.training.ports import free_port

WAYS = ("ours", "peft", "whole")
WORDS, TOKENS = 32000, 466
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="+", default=[3, 2], help="ZeRO stages")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="timed steps a run, after two that are not")
    parser.add_argument("--width", type=int, default=512, help="of the hidden states")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--stage", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        measure(options)
    else:
        compare(options)


# --- one run, on every rank -------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> None:
    """Trains a few steps and writes what rank 0 saw as JSON."""
    import deepspeed
    import torch

    from llava_aurora.training.cpu_ranks import leave_out_inference_operator

    if not torch.cuda.is_available():
        leave_out_inference_operator()
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo")
    model = build_model(options)
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.ranks))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": options.stage, "stage3_param_persistence_threshold": 10_000},
    }
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    engine, wrapped, _, _ = deepspeed.initialize(
        model=model, optimizer=optimizer, model_parameters=trained, config=settings
    )
    generator = torch.Generator().manual_seed(torch.distributed.get_rank())
    batch = torch.randint(0, WORDS + TOKENS, (1, 256), generator=generator).to(engine.device)
    times, losses = [], []
    for _ in range(options.steps + 2):
        started = time.perf_counter()
        loss = engine(input_ids=batch, labels=batch).loss
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
        times.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_resident()
    result = {
        "trainable_parameters": sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in trained),
        "optimizer_bytes": optimizer_bytes(wrapped),
        "step_seconds": statistics.median(times[2:]),
        "peak_bytes": peak,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }
    if torch.distributed.get_rank() == 0:
        options.result.write_text(json.dumps(result))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def build_model(options: argparse.Namespace) -> Any:
    """The model of one way, its trainable parameters marked."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from llava_aurora.model.embeddings import present_rows_of
    from llava_aurora.model.perception_head import split_rows

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS + TOKENS,
        hidden_size=options.width,
        intermediate_size=11 * options.width // 4,
        num_hidden_layers=options.layers,
        num_attention_heads=8,
    )
    model = LlamaForCausalLM(config)
    ids = range(WORDS, WORDS + TOKENS)
    lora = {"r": 16, "lora_alpha": 32, "target_modules": LORA_TARGETS, "task_type": "CAUSAL_LM"}
    if options.way == "peft":
        indices = {"embed_tokens": list(ids), "lm_head": list(ids)}
        return get_peft_model(model, LoraConfig(**lora, trainable_token_indices=indices))
    wrapped = get_peft_model(model, LoraConfig(**lora))
    if options.way == "ours":
        split_rows(model, ids=ids, rows=present_rows_of(model, ids=ids))
    else:
        for matrix in (model.get_input_embeddings(), model.get_output_embeddings()):
            matrix.requires_grad_(True)
    return wrapped


def optimizer_bytes(optimizer: Any) -> int:
    """Bytes of moments that this rank's optimizer holds."""
    states = optimizer.optimizer.state.values()
    return sum(value.numel() * value.element_size() for state in states for value in state.values() if value.dim())


def _peak_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- all runs ---------------------------------------------------------------------------------------------------------


def compare(options: argparse.Namespace) -> None:
    """Runs every way in turn, prints a table a stage and one line of JSON."""
    import torch
    import transformers
    from rich.console import Console
    from rich.progress import track

    runs: dict[str, dict[str, list[dict[str, float]]]] = {}
    plan = [(stage, way) for stage in options.stages for _ in range(options.rounds) for way in WAYS]
    failures: dict[tuple[int, str], str] = {}
    for stage, way in track(plan, description="Runs", transient=True):
        if (stage, way) in failures:
            continue
        result, problem = run(options, stage=stage, way=way)
        if problem:
            failures[stage, way] = problem
        else:
            runs.setdefault(str(stage), {}).setdefault(way, []).append(result)
    medians = {stage: {way: _medians(results) for way, results in ways.items()} for stage, ways in runs.items()}
    console = Console(width=120)
    for stage, ways in medians.items():
        console.print(table(stage, ways, runs[stage]))
    for (stage, way), problem in failures.items():
        console.print(f"ZeRO-{stage}: {way} does not run: {problem}", highlight=False)
    import deepspeed
    import peft

    versions = {module.__name__: module.__version__ for module in (torch, transformers, deepspeed, peft)}
    settings = {key: getattr(options, key) for key in ("rounds", "steps", "width", "layers", "ranks")}
    machine = {
        "cores": os.cpu_count(),
        "cpu": platform.processor() or platform.machine(),
        "gpu": torch.cuda.is_available(),
    }
    failed = {f"ZeRO-{stage} {way}": problem for (stage, way), problem in failures.items()}
    print(json.dumps({"medians": medians, "failed": failed, "settings": settings, "versions": versions, **machine}))


def _medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def run(options: argparse.Namespace, *, stage: int, way: str) -> tuple[dict[str, float], str]:
    """One run: what it measured, or an empty result and its last line of complaint."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [str(Path(sys.executable).parent / "deepspeed"), "--num_gpus", str(options.ranks)]
        command += ["--master_port", str(free_port()), __file__]
        command += ["--way", way, "--stage", str(stage), "--result", str(result)]
        command += [f"--{name}={getattr(options, name)}" for name in ("steps", "width", "layers", "ranks")]
        environment = dict(os.environ)
        if not _has_gpu():
            environment["DS_ACCELERATOR"] = "cpu"
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode == 0:
            return json.loads(result.read_text()), ""
        complaints = [line for line in done.stdout.splitlines() if "Error" in line]
        return {}, (complaints or done.stdout.splitlines())[0].split("]: ")[-1]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def table(stage: str, ways: dict[str, dict[str, float]], runs: dict[str, list[dict[str, float]]]) -> Any:
    """A rich table of medians; step times also as the median of ratios to ours, pair by pair."""
    from rich.table import Table

    grid = Table(title=f"ZeRO-{stage}, a rank")
    for heading in ("way", "trainable parameters", "optimizer MB", "step s", "step / ours", "peak MB", "loss, last"):
        grid.add_column(heading, justify="left" if heading == "way" else "right")
    for way, median in ways.items():
        pairs = zip(runs[way], runs.get("ours", []), strict=False)
        ratios = [one["step_seconds"] / other["step_seconds"] for one, other in pairs]
        grid.add_row(
            way,
            f"{median['trainable_parameters']:,.0f}",
            f"{median['optimizer_bytes'] / 1e6:.1f}",
            f"{median['step_seconds']:.2f}",
            f"{statistics.median(ratios):.2f}" if ratios else "",
            f"{median['peak_bytes'] / 1e6:.0f}",
            f"{median['last_loss']:.4f}",
        )
    return grid


if __name__ == "__main__":
    main()
