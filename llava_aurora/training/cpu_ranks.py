"""DeepSpeed between ranks on CPUs, without the operator that only inference calls."""


def leave_out_inference_operator() -> None:
    """Keeps DeepSpeed from its all-reduce through shared memory; call it before the ranks are connected.

    Training never calls that operator: tensor-parallel inference alone does. On CPUs DeepSpeed sets it up all the same,
    at the price of a C++ compiler, half a minute once, and 66 MB of shared memory per rank that nobody gives back when
    a run ends: runs that follow one another fill the machine's memory.
    """
    import deepspeed

    # The table that DeepSpeed itself looks in for what can be built on this machine.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
