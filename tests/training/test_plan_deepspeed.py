"""The plan against what DeepSpeed holds and sends on two ranks.

The test starts this file itself on every rank; its second half is what each does then.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

from llava_aurora.demo.tiny_llava import TinyLlavaConfig, build_tiny_llava
from llava_aurora.model_sizes import find_sizes
from llava_aurora.training.cpu_ranks import leave_out_inference_operator
from llava_aurora.training.plan import Run, Zero, estimate

# Larger than the other tests' model, so that its weights outweigh what they are divided with.
MEASURED = TinyLlavaConfig(frame=56, width=256, layers=4, vision_layers=2, patch=14, vocabulary=420)


@pytest.mark.deepspeed
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_planned_bytes_are_those_that_deepspeed_holds_and_sends(stage, forked, tmp_path):
    """Float32, AdamW, two ranks. Buckets and windows are small, so that ZeRO-3 releases what it has gathered."""
    corpus = [f"the quick brown fox number {number} jumps over" for number in range(300)]
    build_tiny_llava(tmp_path / "base", corpus=corpus, config=MEASURED, seed=0)
    settings = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": 60_000,  # elements; less than most weights have
            "stage3_prefetch_bucket_size": 0,
            "stage3_param_persistence_threshold": 0,
            "stage3_max_live_parameters": 100_000,
            "stage3_max_reuse_distance": 0,
        },
    }
    out = tmp_path / "held.json"
    described = json.dumps({"frame": MEASURED.frame, "deepspeed": settings})
    forked(__file__, tmp_path / "base", described, out, ranks=2)
    held = json.loads(out.read_text())

    run = Run(model=find_sizes(str(tmp_path / "base")), mode="full", new_tokens=0, element=4, gpus=2)
    planned = estimate(run, Zero.read(settings, name="", hidden=MEASURED.width))
    assert planned.parameters == pytest.approx(held["parameters"], rel=0.001)
    assert planned.optimizer == pytest.approx(held["optimizer"], rel=0.001)
    buckets = planned.buffers - (4 * 100_000 if stage == 3 else 0)  # without gathered weights
    # ZeRO-1 frees gradients that fit in a bucket; of one that is divided between the ranks, each keeps the whole.
    assert planned.gradients + buckets == pytest.approx(held["gradients"], rel=0.05)
    assert planned.sent == pytest.approx(held["sent"], rel=0.02)


# --- One rank ---------------------------------------------------------------------------------------------------------


def held(tensors) -> int:
    """Bytes of the distinct storages behind some tensors."""
    storages = {}
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def lists(value):
    """Tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from lists(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from lists(item)
        yield from lists(getattr(value, "flat_partition", None))


# How often a ring of two sends half of the tensor.
RING = {"all_reduce": 2, "all_gather_into_tensor": 1, "reduce_scatter_tensor": 1}
SCALARS = 64  # bytes of norms and flags, which the plan leaves out


def watch_collectives(numbers: dict[str, int]) -> None:
    """Adds to numbers["sent"] what a ring of two ranks sends of each tensor that DeepSpeed hands to a collective."""
    from deepspeed import comm

    def watched(original, times):
        def call(*given, **named):
            size = max(tensor.numel() * tensor.element_size() for tensor in lists([*given, *named.values()]))
            numbers["sent"] += times * size // 2 if size > SCALARS else 0
            return original(*given, **named)

        return call

    for name, times in RING.items():
        setattr(comm.comm.cdb, name, watched(getattr(comm.comm.cdb, name), times))


GRADIENTS = "averaged_gradients", "all_grad_tensors", "grads_in_partition", "grad_partitions_flat_buffer"


def measure(folder: str, run: str, out: str) -> None:
    """Initialises DeepSpeed as the trainer does, takes steps, and counts what rank 0 holds and sends in the last.

    Args: folder: the LLaVA; run: JSON with DeepSpeed's settings and the frame; out: JSON file for the numbers.
    """
    import deepspeed
    from transformers import AutoConfig
    from transformers.integrations import HfDeepSpeedConfig

    leave_out_inference_operator()
    deepspeed.init_distributed("gloo")
    settings = json.loads(run)
    partitions_while_loading = HfDeepSpeedConfig(settings["deepspeed"])  # as long as it is referred to
    from llava.constants import IMAGE_TOKEN_INDEX
    from llava.model import LlavaLlamaForCausalLM

    config = AutoConfig.from_pretrained(folder)
    model = LlavaLlamaForCausalLM.from_pretrained(folder, config=config)
    tower = model.get_vision_tower()
    tower.load_model()
    tower.to(torch.float32)
    tower.requires_grad_(False)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
    engine, zero, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings["deepspeed"])
    del partitions_while_loading
    ids = torch.randint(3, 100, (2, 32), generator=torch.Generator().manual_seed(engine.global_rank))
    numbers = {"gradients": 0, "sent": 0}
    watch_collectives(numbers)
    trained = [weight for weight in model.parameters() if weight.requires_grad]

    def look(weight) -> None:
        """Called when a gradient has arrived; the most that was held at one time counts."""
        tensors = [other.grad for other in trained]
        tensors += [tensor for name in GRADIENTS for tensor in lists(getattr(zero, name, None))]
        tensors += [tensor for bucket in zero.ipg_buckets.values() for tensor in lists(bucket.buffer)]
        numbers["gradients"] = max(numbers["gradients"], held(tensors))

    for weight in trained:
        weight.register_post_accumulate_grad_hook(look)
    for _ in range(4):  # in the first two, ZeRO-3 learns the order of modules
        numbers["sent"] = 0
        images = torch.zeros(2, 3, settings["frame"], settings["frame"])
        ids[:, 0] = IMAGE_TOKEN_INDEX
        engine.backward(engine(input_ids=ids, labels=ids, images=images, use_cache=False).loss)
        engine.step()
    partitions = [weight.ds_tensor for weight in model.parameters() if hasattr(weight, "ds_tensor")]
    parameters = [*model.parameters(), *partitions]
    masters = [weight for group in zero.optimizer.param_groups for weight in group["params"]]
    states = list(lists(list(zero.optimizer.state.values())))
    numbers["parameters"] = held(parameters)
    numbers["optimizer"] = held([*parameters, *masters, *states]) - numbers["parameters"]
    if engine.global_rank == 0:
        Path(out).write_text(json.dumps(numbers))
    # gloo's threads must have ended before the interpreter does
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    measure(*[argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")])
