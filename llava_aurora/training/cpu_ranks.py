"""Requirements of DeepSpeed on CPU ranks: gloo and libuv in torch, and no build of the inference operator."""

import os

from llava_aurora.errors import AuroraError

NO_GLOO = (
    "this torch was built without gloo, which connects ranks on CPUs; install another one (TORCH_VERSION=..."
    " bash scripts/setup.sh), or train in one process"
)


def check_torch(ranks: int) -> None:
    """Prepares a rank for a torch that lacks what ranks on CPUs need, as Debian's python3-torch does.

    Raises AuroraError if there are several ranks and no gloo.
    """
    if ranks == 1:
        return
    if not has_gloo():
        raise AuroraError(NO_GLOO)
    if not has_libuv():
        os.environ["USE_LIBUV"] = "0"


def has_gloo() -> bool:
    import torch

    return torch.distributed.is_available() and torch.distributed.is_gloo_available()


def has_libuv() -> bool:
    """Whether ranks can meet as torch has them by default; without libuv only with USE_LIBUV=0."""
    import torch

    try:
        torch.distributed.TCPStore("127.0.0.1", 0, 1, is_master=True, wait_for_workers=False, use_libuv=True)
    except RuntimeError as error:
        if "libuv" not in str(error):
            raise
        return False
    return True


def leave_out_inference_operator() -> None:
    """Keeps DeepSpeed from its all-reduce through shared memory; call it before the ranks are connected.

    Training never calls that operator: tensor-parallel inference alone does. On CPUs DeepSpeed sets it up all the same,
    at the price of a C++ compiler, half a minute once, and 66 MB of shared memory per rank that nobody gives back when
    a run ends: runs that follow one another fill the machine's memory.
    """
    import deepspeed

    # The table that DeepSpeed itself looks in for what can be built on this machine.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
