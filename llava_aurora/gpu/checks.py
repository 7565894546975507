"""`llava-aurora doctor --gpu`: what a training run needs of a GPU, tried out in at most three minutes.

Each check is a process of its own with a time limit, so that one that crashes or hangs is a line like every other:

    python -m llava_aurora.gpu.checks --work FOLDER [--tiny]      # all, as doctor runs them
    python -m llava_aurora.gpu.checks vqvae --work FOLDER         # one

--tiny: the same in a size for CPUs, which shows that the checks work. FOLDER/trained is the model that was trained.
"""

import argparse
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from llava_aurora.errors import AuroraError
from llava_aurora.files import read_json, write_json
from llava_aurora.gpu.devices import peak_flops, remedy_for, why_no_cuda
from llava_aurora.model_sizes import SIZES, LlavaSizes, VisionSizes
from llava_aurora.training.plan import GB, Memory, Run, Zero, estimate, shipped, usable

LONGEST = 180  # seconds of all checks together
PATIENCE = 5  # times as long for --tiny, on processors that others use too
TINY = LlavaSizes(
    name="tiny",
    hidden=64,
    intermediate=172,
    layers=1,
    heads=2,
    kv_heads=2,
    vocabulary=600,
    vision=VisionSizes(hidden=64, intermediate=128, layers=1, image=42),
)
STEPS, WARM_UP = 6, 2
PLANNED_LENGTH = 800  # tokens of a record, at most; what it has is measured
ANSWER = 128  # those of them with a label, at most
DISK = 10 * GB
PRODUCT = 8192  # side of the matrices whose product is timed


@dataclass(frozen=True)
class Verdict:
    """Args: name: what was checked; found: in a line; remedy: what helps, if known; numbers: what was measured."""

    name: str
    state: Literal["ok", "warning", "failed", "skipped"]
    found: str
    remedy: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.state:8} {self.name}: {self.found}" + (f"\n{'':9}{self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Setting:
    """Args: work: folder of everything that is made; tiny: in a size for CPUs."""

    work: Path
    tiny: bool

    @cached_property
    def device(self) -> str:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def run(self) -> Run:
        """What `layers` chose to train."""
        found = read_json(self.work / "run.json", what="size of the layers")
        return _run(found["layers"], found["batch"], tiny=self.tiny)


def _run(layers: int, batch: int, *, tiny: bool) -> Run:
    sizes = TINY if tiny else SIZES["7b"]
    model = replace(sizes, layers=layers)
    return Run(model=model, mode="full", batch=batch, length=PLANNED_LENGTH, answer=ANSWER, gpus=1)


def zero3(hidden: int) -> Zero:
    return next(zero for zero in shipped(hidden) if zero.name == "ZeRO-3")


# --- checks -----------------------------------------------------------------------------------------------------------


def device(setting: Setting) -> Iterator[Verdict]:
    """What the card is, and whether it multiplies."""
    import torch

    if setting.device == "cpu":
        yield Verdict("device", "skipped", "CPU: memory, model FLOPs and NCCL are not looked at")
        return
    name, (free, total) = torch.cuda.get_device_name(), torch.cuda.mem_get_info()
    capability, count = torch.cuda.get_device_capability(), torch.cuda.device_count()
    found = f"{count} × {name}, sm_{capability[0]}{capability[1]}, {free / GB:.0f} of {total / GB:.0f} GB free"
    found += f", CUDA {torch.version.cuda}" + (", of which the first is checked" if count > 1 else "")
    numbers = {"name": name, "count": count, "free_bytes": free, "total_bytes": total}
    if capability < (8, 0):
        how = "bfloat16 needs Ampere (sm_80) or later: train with --bf16 False --fp16 True, which was not tried here"
        yield Verdict("device", "failed", found, how, numbers)
    elif free < 0.9 * total:
        yield Verdict("device", "warning", found, "another process holds memory: nvidia-smi lists them", numbers)
    else:
        yield Verdict("device", "ok", found, "", numbers)
    if os.environ.get("DS_ACCELERATOR", "cuda") != "cuda":
        was = f"DS_ACCELERATOR={os.environ['DS_ACCELERATOR']}: DeepSpeed would not use the GPU"
        yield Verdict("DeepSpeed", "failed", was, "unset DS_ACCELERATOR")
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES", "")).startswith(("MIG-", "GPU-")):
        was = f"CUDA_VISIBLE_DEVICES={visible}: the launcher reads numbers alone, and takes the first device"
        yield Verdict(
            "DeepSpeed", "warning", was, "train with torchrun --nproc_per_node 1 scripts/finetune_aurora.sh …"
        )
    left, right = (torch.randn(PRODUCT, PRODUCT, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = min(_seconds(lambda: left @ right, "cuda") for _ in range(10))
    rate, peak = 2 * PRODUCT**3 / seconds, peak_flops(name)
    share = f", {rate / peak:.0%} of its peak" if peak else ""
    slow = peak is not None and rate < 0.5 * peak
    how = "the card is shared, hot or throttled: nvidia-smi -q -d PERFORMANCE" if slow else ""
    found = f"{rate / 1e12:.0f} TFLOP/s in bfloat16{share}"
    yield Verdict("matrix product", "warning" if slow else "ok", found, how, {"tflops": rate / 1e12})
    yield _compiler()


def _compiler() -> Verdict:
    """nvcc, which DeepSpeed compiles operators with: needed by no shipped configuration but zero3_offload.json."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    name, nvcc = "compiler", Path(CUDA_HOME or "", "bin", "nvcc")
    if not CUDA_HOME or not nvcc.is_file():
        return Verdict(name, "ok", "no nvcc, which training needs only to offload to the CPU (zero3_offload.json)")
    said = re.search(r"release (\d+)\.(\d+)", subprocess.run([nvcc, "-V"], capture_output=True, text=True).stdout)
    found = f"nvcc {said[0] if said else '?'} in {CUDA_HOME}, torch has CUDA {torch.version.cuda}"
    if said and said[1] != str(torch.version.cuda).split(".")[0]:
        how = "offloading would be refused (CUDAMismatchException); set CUDA_HOME to a toolkit of torch's version"
        return Verdict(name, "warning", found, how)
    return Verdict(name, "ok", found)


def communication(setting: Setting) -> Iterator[Verdict]:
    """The collectives of ZeRO-3, in a group of one."""
    import torch

    from llava_aurora.training.ports import free_port

    backend, group = ("nccl" if setting.device == "cuda" else "gloo"), torch.distributed
    group.init_process_group(
        backend, init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1, timeout=timedelta(seconds=30)
    )
    sent = torch.arange(1024.0, device=setting.device)
    got = torch.empty_like(sent)
    group.all_gather_into_tensor(got, sent)
    group.all_reduce(got)
    group.reduce_scatter_tensor(sent, got)
    same = torch.equal(sent.cpu(), torch.arange(1024.0))
    group.destroy_process_group()
    version = f" {'.'.join(map(str, torch.cuda.nccl.version()))}" if backend == "nccl" else ""
    found = f"{backend}{version}, one rank" + ("" if same else ": wrong numbers came back")
    yield Verdict("communication", "ok" if same else "failed", found, "" if same else remedy_for("nccl"))


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
    runs = [_run(count, batch, tiny=setting.tiny) for count, batch in tried]
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
    from llava_aurora import integration

    chosen, _ = integration.attention_kernel()
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


def generation(setting: Setting) -> Iterator[Verdict]:
    """Maps of what was trained, with the constraint and without."""
    from llava_aurora import Aurora
    from llava_aurora.tokens.vocabulary import depth_family

    aurora = Aurora.from_pretrained(setting.work / "trained", device=setting.device)
    images, new = sorted((setting.work / "images").glob("*.jpg"))[:4], 110
    took = {}
    for constrained in (True, False):

        def ask(constrained: bool = constrained) -> Any:
            how = {"max_new_tokens": new, "min_new_tokens": new, "answer_start": depth_family().start}
            return aurora.ask(images, "What is the depth map of this image?", constrained=constrained, **how)

        results = ask()
        seconds = _seconds(ask, setting.device)
        took[constrained] = seconds
        whole = sum(any(len(span.codes) == 100 for span in each.spans["depth"]) for each in results)
        known = all(math.isfinite(value) for each in results for value in each.token_log_probabilities or ())
        name = f"generation, {'constrained' if constrained else 'unconstrained'}"
        found = f"{seconds / new * 1000:.1f} ms a token for {len(images)} answers, {whole} whole maps"
        if constrained:
            good = known and whole == len(images)
            how = "" if good else "the constraint failed on this GPU: tell us, with the log"
            yield Verdict(name, "ok" if good else "failed", found, how, {"seconds_a_token": seconds / new})
        else:
            found += f"; the constraint takes {took[True] / seconds:.2f} × the time"
            yield Verdict(name, "ok" if known else "failed", found, "", {"seconds_a_token": seconds / new})


def vqvae(setting: Setting) -> Iterator[Verdict]:
    """Codes and maps of the published size on the device, beside those of the CPU."""
    import torch
    from torch.nn import functional as F

    from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae

    torch.backends.cudnn.allow_tf32 = False  # as `vqvae encode` does
    torch.manual_seed(0)
    model, count = build_depth_vqvae(DepthVQVAEConfig()).eval(), 4 if setting.tiny else 32
    maps = F.interpolate(torch.rand(count, 1, 5, 5), size=(320, 320), mode="bicubic").clamp(0, 1) * 2 - 1
    with torch.inference_mode():
        vectors = model.encoder(maps).permute(0, 2, 3, 1).flatten(0, 2)
        model.quantizer.codebook.copy_(vectors[torch.randperm(len(vectors))[: len(model.quantizer.codebook)]])
        codes = model.encode(maps)
        pictures = model.decode(codes)
        model, maps, there = model.to(setting.device), maps.to(setting.device), codes.to(setting.device)
        same = float((model.encode(maps).cpu() == codes).double().mean())
        apart = float((model.decode(there).cpu() - pictures).abs().max() / pictures.abs().max())
        encoding = count / _seconds(lambda: model.encode(maps), setting.device)
        decoding = count / _seconds(lambda: model.decode(there), setting.device)
    found = f"{encoding:.0f} maps per second to codes and {decoding:.0f} back; {same:.2%} of the codes are the CPU's"
    good = same > 0.99 and apart < 1e-3
    how = "" if good else "make codes on the CPU (--device cpu), and tell us"
    numbers = {"encode": encoding, "decode": decoding, "same_codes": same, "largest_difference": apart}
    yield Verdict("VQ-VAE", "ok" if good else "failed", found, how, numbers)


def _seconds(work: Callable[[], Any], device: str) -> float:
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


# --- all of them ------------------------------------------------------------------------------------------------------

# By name: the check, its limit in seconds, and the check without which it cannot be made.
CHECKS: dict[str, tuple[Callable[[Setting], Iterator[Verdict]], int, str | None]] = {
    "device": (device, 60, None),
    "communication": (communication, 60, None),
    "vqvae": (vqvae, 60, None),
    "layers": (layers, 90, None),
    "training": (training, 120, "layers"),
    "generation": (generation, 90, "training"),
    "other_kernel": (other_kernel, 120, "training"),
}


def check_gpu(*, work: Path | None = None, tiny: bool = False, told: Callable[[Verdict], None]) -> list[Verdict]:
    """Runs all checks.

    Args:
        work: where they write, kept; a temporary folder if left out, of which the logs stay if a check fails.
        tiny: in a size for CPUs, and also without a GPU.
        told: is called with each verdict as it is reached.
    """
    verdicts: list[Verdict] = []

    def reached(*more: Verdict) -> None:
        for verdict in more:
            verdicts.append(verdict)
            told(verdict)

    if not tiny and (reason := why_no_cuda()):
        reached(Verdict("device", "failed", f"no CUDA device: {reason[0]}", reason[1]))
        return verdicts
    if work is None:
        work = Path(tempfile.mkdtemp(prefix="llava-aurora-gpu-"))
        try:
            verdicts = check_gpu(work=work, tiny=tiny, told=told)
        finally:
            for folder in filter(Path.is_dir, list(work.iterdir())):
                shutil.rmtree(folder)  # gigabytes
        if all(verdict.state != "failed" for verdict in verdicts):
            shutil.rmtree(work)
        return verdicts
    work.mkdir(parents=True, exist_ok=True)
    patience = PATIENCE if tiny else 1
    ends, failed = time.monotonic() + LONGEST * patience, set[str]()
    for name, (_, limit, needed) in CHECKS.items():
        left = min(limit * patience, ends - time.monotonic())
        if needed in failed:
            found = [Verdict(name, "skipped", f"needs what {needed} makes")]
        elif left < 5:
            found = [Verdict(name, "skipped", f"the {LONGEST} s of all checks are over")]
        else:
            found = _apart(name, Setting(work, tiny), limit=left)
        if any(verdict.state in ("failed", "skipped") for verdict in found[:1]) and name != "device":
            failed.add(name)
        reached(*found)
    return verdicts


def _apart(name: str, setting: Setting, *, limit: float) -> list[Verdict]:
    """One check in a process of its own, in a group that ends with it; its output goes to a log."""
    told, log = setting.work / f"{name}.verdicts.json", setting.work / f"{name}.log"
    told.unlink(missing_ok=True)
    words = [name, "--work", str(setting.work), *(["--tiny"] if setting.tiny else [])]
    with log.open("w", encoding="utf-8") as output:
        command = [sys.executable, "-m", "llava_aurora.gpu.checks", *words]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        except BaseException:
            _end(process)
            raise
        _end(process)
    if told.is_file():
        return [Verdict(**each) for each in read_json(told, what="verdicts")]
    said = log.read_text(encoding="utf-8", errors="replace")
    if code is None:
        how = remedy_for("nccl") if name == "communication" else "a busy or slow machine, or a hang: see the log"
        return [Verdict(name, "failed", f"not done in {limit:.0f} s", f"{how} ({log})")]
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no output"]
    error = next((line for line in reversed(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)), lines[-1])
    ended = f"ended by {signal.Signals(-code).name}: " if code < 0 else ""
    if code == -signal.SIGKILL:
        return [Verdict(name, "failed", f"{ended}{error}", "the machine's memory is full: free -h")]
    return [Verdict(name, "failed", f"{ended}{error[:300]}", remedy_for(said[-20_000:]) or f"the log: {log}")]


def _end(process: subprocess.Popen[Any]) -> None:
    """Ends what is left of a check, the ranks that it started among it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", nargs="?", choices=list(CHECKS), help="this one alone, in this process")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is made, kept")
    parser.add_argument("--tiny", action="store_true", help="in a size for CPUs")
    options = parser.parse_args()
    if options.check is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a check that runs ends too
        found = check_gpu(work=options.work, tiny=options.tiny, told=lambda verdict: print(verdict, flush=True))
        write_json(options.work / "verdicts.json", [asdict(verdict) for verdict in found], indent=1)
        print(json.dumps({"verdicts": [asdict(verdict) for verdict in found]}))
        sys.exit(any(verdict.state == "failed" for verdict in found))
    try:
        check = CHECKS[options.check][0]
        found = list(check(Setting(options.work, options.tiny)))
    except AuroraError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    write_json(options.work / f"{options.check}.verdicts.json", [asdict(verdict) for verdict in found])


if __name__ == "__main__":
    main()
