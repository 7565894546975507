"""Checks of training on the card: steps of a 7B's layers under ZeRO-3, their memory and speed against the plan."""

import math
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava_aurora.files import read_json, write_json
from llava_aurora.gpu.devices import peak_flops, remedy_for
from llava_aurora.gpu.setting import Setting, Verdict, run_of
from llava_aurora.model_sizes import SIZES
from llava_aurora.training.plan import GB, Memory, Zero, estimate, shipped, usable

STEPS, WARM_UP = 6, 2
DISK = 10 * GB


def zero3(hidden: int) -> Zero:
    return next(zero for zero in shipped(hidden) if zero.name == "ZeRO-3")


def layers(setting: Setting) -> Iterator[Verdict]:
    """Writes as many layers as can be trained whole on the card, records, and a VQ-VAE."""
    import torch

    from llava_aurora.gpu.layer_stack import build_layer_stack, words_of, write_images, write_records
    from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae
    from llava_aurora.vqvae.checkpoint import save_depth_vqvae

    if not setting.tiny and (free := shutil.disk_usage(setting.work).free) < DISK:
        found = f"{setting.work}: {free / GB:.0f} GB free of the {DISK / GB:.0f} GB that the checks write for a while"
        yield Verdict("layers", "failed", found, "set TMPDIR to a folder with more")
        return
    memory = torch.cuda.mem_get_info()[0] if setting.device == "cuda" else math.inf
    tried = [(1, 2)] if setting.tiny else [(count, batch) for count in (4, 2, 1) for batch in (8, 4, 2, 1)]
    runs = [run_of(count, batch, tiny=setting.tiny) for count, batch in tried]
    peaks = [estimate(run, zero3(run.model.hidden)).peak for run in runs]
    fitting = [run for run, peak in zip(runs, peaks, strict=True) if memory == math.inf or peak < usable(memory / GB)]
    if not fitting:
        found = f"one layer of a 7B takes {peaks[-1] / GB:.0f} GB to be trained, and {memory / GB:.0f} GB are free"
        yield Verdict("layers", "failed", found, "free the card, or take a larger one")
        return
    run = fitting[0]
    records = write_records(setting.work / "train.json", generations=2 * run.batch, images=0)
    write_images(setting.work / "images", records, side=run.model.vision.image)
    build_layer_stack(setting.work / "base", run.model, texts=words_of(records), device=setting.device)
    save_depth_vqvae(build_depth_vqvae(DepthVQVAEConfig()), setting.work / "vqvae")
    write_json(setting.work / "run.json", {"layers": run.model.layers, "batch": run.batch})
    of = "" if setting.tiny else f" of a 7B's {SIZES['7b'].layers}"
    found = f"{run.model.layers}{of}, {run.model.hidden} wide, {run.trained / GB:.2f} billion weights trained"
    yield Verdict("layers", "ok", f"{found}, batches of {run.batch}", "", {"layers": run.model.layers})


def kernels() -> tuple[str, str]:
    """The attention kernel that training chooses here, and another."""
    from llava_aurora import installation

    chosen, _ = installation.attention_kernel()
    return chosen, "eager" if chosen == "sdpa" else "sdpa"


def training(setting: Setting) -> Iterator[Verdict]:
    """Steps with the chosen kernel: speed, memory against the plan, model FLOPs."""
    kernel = kernels()[0]
    took = _train(setting, kernel, out="trained")
    yield _trained(setting, f"training, {kernel} (chosen)", took)
    if setting.device == "cuda":
        yield from _against_plan(setting, took)
        yield from _utilisation(setting, took)
    else:
        yield Verdict("memory, model FLOPs", "skipped", "are measured on a GPU")


def other_kernel(setting: Setting) -> Iterator[Verdict]:
    """The same steps with a kernel that is not chosen: as fast at most, and the same losses."""
    chosen, kernel = kernels()
    name = f"training, {kernel} (not chosen)"
    took, than = _train(setting, kernel, out="other"), read_json(_measured(setting, chosen), what="measurements")
    shutil.rmtree(setting.work / "other")
    verdict = _trained(setting, name, took)
    apart, times = abs(took["losses"][0] - than["losses"][0]), took["seconds_a_step"] / than["seconds_a_step"]
    found = f"{verdict.found}; {times:.2f} × the time of {chosen}, first losses {apart:.3f} apart"
    if verdict.state == "ok" and apart > 0.05:
        verdict = replace(
            verdict, state="failed", remedy=f"one of the two computes wrongly: {remedy_for('flash-attn')}"
        )
    elif verdict.state == "ok" and times < 0.9 and setting.device == "cuda":
        verdict = replace(verdict, state="warning", remedy="the chosen kernel is the slower one on this card: tell us")
    yield replace(verdict, found=found)


def _train(setting: Setting, kernel: str, *, out: str) -> dict[str, Any]:
    """Trains the layers as a user would, by DeepSpeed's launcher on one GPU. Returns what it took."""
    from llava_aurora.demo.launch import run_training
    from llava_aurora.demo.stages import as_arguments, small_model_flags
    from llava_aurora.demo.tiny_llava import TinyLlavaConfig
    from llava_aurora.gpu import train_layers
    from llava_aurora.training.ports import free_port

    run, work = setting.run, setting.work
    flags = small_model_flags(
        base=work / "base",
        records=work / "train.json",
        images=work / "images",
        vqvae=work / "vqvae",
        out=work / out,
        config=TinyLlavaConfig(frame=336, max_length=2048),
    )
    flags |= {
        "unfreeze_mm_vision_tower": False,
        "bf16": True,
        "gradient_checkpointing": True,
        "max_steps": STEPS,
        "per_device_train_batch_size": run.batch,
        "learning_rate": 1e-5,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
    }
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    first = visible.split(",")[0]
    where = ["--include", f"localhost:{first}"] if first.isdigit() else ["--num_gpus", "1"]
    launch = [sys.executable, "-m", "deepspeed.launcher.runner", *where, "--master_port", str(free_port())]
    measured = _measured(setting, kernel)
    script = [str(train_layers.__file__), "--kernel", kernel, "--measured", str(measured)]
    log = work / f"{out}.log"
    run_training([*launch, *script, *as_arguments(flags)], log=log, description=kernel)
    took = read_json(measured, what="measurements")
    took["seconds_a_step"] = statistics.median(took["seconds"][WARM_UP:])
    write_json(measured, took)
    return took


def _measured(setting: Setting, kernel: str) -> Path:
    return setting.work / f"{kernel}.json"


def _trained(setting: Setting, name: str, took: dict[str, Any]) -> Verdict:
    losses, records = took["losses"], f"{setting.run.batch} records of {took['length']} tokens"
    precision = "bfloat16" if setting.device == "cuda" else "float32"  # as transformers has it under DeepSpeed
    found = f"{took['seconds_a_step']:.3f} s a step of {records}, {precision}, ZeRO-3"
    if not all(map(math.isfinite, losses)):
        how = "update torch and the driver; if it stays, tell us with the log"
        return Verdict(name, "failed", f"losses {', '.join(f'{loss:.3g}' for loss in losses)}", how, took)
    return Verdict(name, "ok", f"{found}, loss {losses[0]:.2f} to {losses[-1]:.2f}", "", took)


def _against_plan(setting: Setting, took: dict[str, Any]) -> Iterator[Verdict]:
    """Peak of the allocator and bytes of the optimizer beside those of `llava-aurora plan`."""
    run = replace(setting.run, length=took["length"])
    planned: Memory = estimate(run, zero3(run.model.hidden))
    numbers = {"planned_bytes": planned.peak, "planned_optimizer_bytes": planned.optimizer}
    peak, states = took["peak_bytes"] / planned.peak, took["optimizer_bytes"] / planned.optimizer
    found = f"peak {took['peak_bytes'] / GB:.1f} GB, {peak:.2f} × the plan's; optimizer {states:.2f} ×"
    wrong = peak > 1.1 or not 0.98 < states < 1.02
    how = "`llava-aurora plan` is too hopeful for this card: choose a batch with room to spare, and tell us"
    yield Verdict("memory against plan", "warning" if wrong else "ok", found, how if wrong else "", numbers)


def _utilisation(setting: Setting, took: dict[str, Any]) -> Iterator[Verdict]:
    """Model FLOPs over the card's peak, and what that would mean for the whole model."""
    import torch

    from llava_aurora.gpu.layer_stack import step_flops

    run, name = setting.run, torch.cuda.get_device_name()
    of_a_step = {"batch": run.batch, "length": took["length"], "labels": took["labels"], "new_tokens": run.new_tokens}
    rate, peak = step_flops(run.model, **of_a_step) / took["seconds_a_step"], peak_flops(name)
    numbers = {"tflops": rate / 1e12, "mfu": rate / peak if peak else None}
    found = f"{rate / 1e12:.0f} TFLOP/s of the model, with checkpointing"
    if peak is None:
        yield Verdict("MFU", "skipped", f"{found}; the peak of {name} is not known (llava_aurora/gpu/devices.py)")
    else:
        low = rate < 0.15 * peak
        how = "small batches or a busy card: larger --per_device_train_batch_size, or look at nvidia-smi" if low else ""
        found = f"{rate / peak:.0%} of {peak / 1e12:.0f} TFLOP/s: {found}"
        yield Verdict("MFU", "warning" if low else "ok", found, how, numbers)
    if setting.tiny:
        return
    whole = SIZES["7b"]
    seconds = step_flops(whole, **of_a_step) / rate
    held = estimate(replace(run, model=whole, length=took["length"], gpus=8), zero3(whole.hidden)).peak
    found = f"{seconds:.1f} s a step of {run.batch} records for all {whole.layers} layers, at the same rate and without"
    found += f" communication; {held / GB:.0f} GB on each of 8 GPUs by the plan. Not measured"
    yield Verdict("extrapolated", "ok", found, "", {"seconds_a_step": seconds})
