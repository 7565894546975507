"""The memory plan against what DeepSpeed really holds on two ranks.

The test starts this file itself on every rank; its second half is what each does then.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

from llava_aurora.demo.tiny_llava import TinyLlavaConfig, build_tiny_llava
from llava_aurora.training import plan
from llava_aurora.training.cpu_ranks import leave_out_inference_operator
from llava_aurora.training.model_sizes import Run, find_sizes
from llava_aurora.training.plan import Zero

# Larger than the other tests' model, so that its weights outweigh what they are divided with; every other weight is
# larger than the bucket, and the norms, biases and small matrices of the tower fall under the threshold.
MEASURED = TinyLlavaConfig(frame=56, width=256, layers=4, vision_layers=2, patch=14, vocabulary=420)


@pytest.mark.deepspeed
@pytest.mark.parametrize(
    ("stage", "persistence", "tolerance"), [(1, 1000, 0.01), (2, 1000, 0.01), (3, 1000, 1e-6), (3, 100_000, 1e-6)]
)
def test_planned_bytes_are_those_that_deepspeed_holds(stage, persistence, tolerance, forked, tmp_path):
    """Float32, AdamW, two ranks. ZeRO-1 and 2 keep the whole of a gradient that their part begins or ends in."""
    corpus = [f"the quick brown fox number {number} jumps over" for number in range(300)]
    build_tiny_llava(tmp_path / "base", corpus=corpus, config=MEASURED, seed=0)
    settings = {
        "train_micro_batch_size_per_gpu": 2,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": 100_000,
            "stage3_prefetch_bucket_size": 100_000,
            "stage3_param_persistence_threshold": persistence,
        },
    }
    out = tmp_path / "held.json"
    described = json.dumps({"frame": MEASURED.frame, "deepspeed": settings})
    finished = forked(__file__, tmp_path / "base", described, out, ranks=2)
    assert finished.code == 0, finished.output[-3000:]
    held = json.loads(out.read_text())

    run = Run(model=find_sizes(str(tmp_path / "base")), mode="full", new_tokens=0, element=4, gpus=2)
    zero = Zero.from_settings(settings, name="", hidden=MEASURED.width)
    step = 4 if zero.stage else 0  # Adam counts its steps in a tensor
    assert plan.parameter_bytes(run, zero) == pytest.approx(held["parameters"], rel=1e-6)
    assert plan.optimizer_bytes(run, zero) + step == pytest.approx(held["optimizer"], rel=1e-6)
    planned = plan.gradient_bytes(run, zero) + plan.bucket_bytes(run, zero)
    assert planned == pytest.approx(held["gradients"], rel=tolerance)


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


GRADIENTS = "averaged_gradients", "all_grad_tensors", "grads_in_partition", "grad_partitions_flat_buffer"


def measure(folder: str, run: str, out: str) -> None:
    """Initialises DeepSpeed as the trainer does, takes two steps, and counts the bytes that rank 0 holds.

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
    numbers = {"gradients": 0}
    trained = [weight for weight in model.parameters() if weight.requires_grad]

    def look(weight) -> None:
        """Called when a gradient has arrived; the most that was held at one time counts."""
        tensors = [other.grad for other in trained]
        tensors += [tensor for name in GRADIENTS for tensor in lists(getattr(zero, name, None))]
        tensors += [tensor for bucket in zero.ipg_buckets.values() for tensor in lists(bucket.buffer)]
        numbers["gradients"] = max(numbers["gradients"], held(tensors))

    for weight in trained:
        weight.register_post_accumulate_grad_hook(look)
    for _ in range(2):
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
