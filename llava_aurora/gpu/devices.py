"""What is known of a GPU without asking it to compute: why there is none, its peak by name, what its errors mean."""

import os
import re
import shutil
import subprocess

# TFLOP/s of bfloat16 products with float32 sums, dense, by NVIDIA's data sheets. The first name that is found counts.
PEAK_TFLOPS = {
    "GB200": 2500,
    "B200": 2250,
    "H200 NVL": 835,
    "H200": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H100": 989,
    "H800": 989,
    "A100": 312,
    "A800": 312,
    "A40": 149.7,
    "RTX A6000": 154.8,
    "A30": 165,
    "A10G": 70,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71,
}

# What libraries say when something is wrong, and what helps. The first that fits counts.
_REMEDIES = (
    (
        r"out of memory",
        "another process holds the memory (nvidia-smi lists them), or the card is too small: `llava-aurora plan"
        " --memory GB` says what fits",
    ),
    (
        r"no kernel image|not compatible with the current PyTorch",
        "this torch has no code for this GPU; install one that has: TORCH_VERSION=… bash scripts/setup.sh",
    ),
    (
        r"driver .{0,40}(too old|insufficient)|forward compatibility",
        "the driver is older than torch's CUDA: update it, or install a torch for an older CUDA, such as"
        " PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu126 TORCH_VERSION=2.13.0+cu126 bash scripts/setup.sh",
    ),
    (
        r"lib(cu|nccl|nv)\S*\.so|undefined symbol",
        "CUDA libraries other than torch's own are found first: unset LD_LIBRARY_PATH; if that does not help, install"
        " torch again",
    ),
    (
        r"CUDA_HOME|nvcc|CUDAMismatch",
        "DeepSpeed compiles an operator and finds no compiler that fits: use deepspeed_configs/zero3.json, which needs"
        " none, or install the CUDA toolkit of torch's version and set CUDA_HOME",
    ),
    (
        r"nccl",
        "NCCL_DEBUG=INFO shows why; in a container without a network NCCL_SOCKET_IFNAME=lo, with little shared memory"
        " `docker run --shm-size 8g`",
    ),
    (
        r"flash_?attn|FlashAttention",
        "flash-attn is of another torch or GPU: build it again, or pip uninstall flash-attn",
    ),
    (r"No space left", "the disk of temporary files is full: set TMPDIR to a folder with 10 GB"),
    (
        r"uncorrectable|illegal (memory access|instruction)|Xid|unspecified launch failure|device-side assert",
        "run again with CUDA_LAUNCH_BLOCKING=1; if the place changes, it may be the card: nvidia-smi -q -d ECC, dmesg",
    ),
)


def remedy_for(text: str) -> str:
    """What helps against an error; empty for one that is not known."""
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, text, re.IGNORECASE)), "")


def peak_flops(name: str) -> float | None:
    """Peak of a device by the name that CUDA gives it, in FLOP/s; None if it is not known, or a part of one (MIG)."""
    if "MIG" in name:
        return None
    found = (tflops for known, tflops in PEAK_TFLOPS.items() if re.search(rf"\b{known}\b", name, re.IGNORECASE))
    return next((tflops * 1e12 for tflops in found), None)


def why_no_cuda() -> tuple[str, str] | None:
    """Why torch sees no CUDA device and what helps; None if it sees one."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        again = "PyPI's torch has CUDA: rm -r .venv, then bash scripts/setup.sh on the machine with the GPU"
        return f"torch {torch.__version__} is built without CUDA", again
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return f"CUDA_VISIBLE_DEVICES={visible!r} shows none", "unset CUDA_VISIBLE_DEVICES"
    if shutil.which("nvidia-smi") is None:
        how = "install NVIDIA's driver; in a container start it with --gpus all"
        return "there is no nvidia-smi, so no driver", how
    try:
        asked = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "nvidia-smi does not answer", "the driver hangs: restart the machine"
    if asked.returncode or not asked.stdout.strip():
        return f"nvidia-smi: {(asked.stdout + asked.stderr).strip() or 'shows no GPU'}", "reload the driver, or reboot"
    try:
        torch.cuda.init()
        reason = "no reason given"
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
    old = "torch was built for CUDA " + torch.version.cuda
    return f"the driver has {asked.stdout.splitlines()[0]}, but torch: {reason} ({old})", remedy_for(reason)
