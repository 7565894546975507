"""Checks of the card itself: what it is, a matrix product, the compiler, and the collectives of ZeRO-3."""

import os
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from llava_aurora.gpu.devices import peak_flops, remedy_for
from llava_aurora.gpu.setting import Setting, Verdict, seconds_of
from llava_aurora.training.plan import GB

PRODUCT = 8192  # side of the matrices whose product is timed


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
    seconds = min(seconds_of(lambda: left @ right, "cuda") for _ in range(10))
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
