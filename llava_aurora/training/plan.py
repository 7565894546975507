"""Bytes that a training run holds on each GPU and sends in a step, and what fits: formulas, without torch.

docs/plan.md derives them and says which are estimates; a test compares them with DeepSpeed on two ranks. All sizes are
bytes on one GPU unless said otherwise.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava_aurora.files import read_json
from llava_aurora.model_sizes import LlavaSizes

CONFIGS = Path(__file__).resolve().parents[2] / "deepspeed_configs"
GB = 10**9
# Estimates, not measured: CUDA's context, NCCL and cuBLAS; and what the allocator loses between blocks.
RESERVED, FRAGMENTED = int(1.5 * GB), 0.05
# NF4 with doubly quantized scales: 4 bits, 8/64 for the scales, 32/(64·256) for theirs (QLoRA, arXiv 2305.14314).
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
ADAM_BYTES = 8  # two float32 moments
SUBGROUP = 10**9  # elements that ZeRO-3's optimizer updates at once
LARGEST_BATCH = 4096
MODES = ("full", "lora", "qlora", "projector")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run."""

    model: LlavaSizes  # its sizes
    mode: str  # full (language model and projector), lora, qlora (LoRA on 4-bit weights), or projector (alone)
    lora_r: int = 128  # rank of LoRA
    new_tokens: int = 466  # perception tokens added to the vocabulary
    whole_vocabulary: bool = False  # outside `full`, train the original rows too (--train_base_vocabulary)
    batch: int = 16  # records on one GPU
    length: int = 2048  # tokens of a record, image tokens included
    answer: int = 512  # those of them with a label; with perception tokens, logits are computed only there
    checkpointing: bool = True  # recompute activations instead of keeping them (--gradient_checkpointing)
    element: int = 2  # bytes of a weight: 2 for bfloat16, 4 for float32
    gpus: int = 8  # ranks

    @property
    def trained(self) -> int:
        """Elements with a gradient."""
        model = self.model
        if self.mode == "full":
            return model.matrices(model.vocabulary + self.new_tokens) + model.linear + model.norms + model.projector
        rows = self.new_tokens + (model.vocabulary if self.whole_vocabulary else 0)
        lora = sum(self.lora_r * (into + out) for into, out in model.maps) if "lora" in self.mode else 0
        return model.matrices(rows) + model.layers * lora + model.projector

    @property
    def frozen(self) -> int:
        """Elements without a gradient, of `element` bytes each; without those that are quantized."""
        model = self.model
        if self.mode == "full":
            return model.vision.weights
        words = 0 if self.whole_vocabulary else model.matrices(model.vocabulary)
        return words + model.linear - self.quantized + model.norms + model.vision.weights

    @property
    def quantized(self) -> int:
        """Elements in 4 bits."""
        return self.model.linear if self.mode == "qlora" else 0


@dataclass(frozen=True, kw_only=True)
class Zero:
    """A way to divide a run over GPUs."""

    name: str  # as shown
    stage: int  # 0 (everything on every GPU) to 3
    offload: bool  # weights, gradients and optimizer states are in the machine's memory
    config: str | None  # the shipped file with these settings; None if there is none
    bucket: int  # elements of a bucket in which gradients are reduced
    buckets: int  # how many of them there are
    whole: int  # elements of weights that ZeRO-3 lets be gathered at one time, at most

    @classmethod
    def read(cls, settings: dict[str, Any], *, name: str, hidden: int, config: str | None = None) -> "Zero":
        """From a DeepSpeed configuration; "auto" is resolved as transformers does, by the model's width."""
        zero = settings["zero_optimization"]

        def elements(key: str, default: int, auto: float = 0) -> int:
            value = zero.get(key, default)
            return int(auto if value == "auto" else value)

        return cls(
            name=name,
            stage=zero["stage"],
            offload="offload_optimizer" in zero,
            config=config,
            bucket=elements("reduce_bucket_size", 500_000_000, hidden**2),
            buckets=2 if zero.get("overlap_comm") and zero["stage"] < 3 else 1,
            whole=elements("stage3_max_live_parameters", 1_000_000_000)
            + elements("stage3_prefetch_bucket_size", 50_000_000, 0.9 * hidden**2),
        )


def shipped(hidden: int) -> list[Zero]:
    """ZeRO 0, 1, 2, 3 and 3 with offload, with the settings of deepspeed_configs/ for a model of this width."""

    def read(file: str, name: str) -> Zero:
        settings = read_json(CONFIGS / file, what="DeepSpeed settings (of a checkout: pip install -e .)")
        return Zero.read(settings, name=name, hidden=hidden, config=f"deepspeed_configs/{file}")

    two = read("zero2.json", "ZeRO-2")
    none, one = replace(two, name="no ZeRO", stage=0, config=None), replace(two, name="ZeRO-1", stage=1, config=None)
    return [none, one, two, read("zero3.json", "ZeRO-3"), read("zero3_offload.json", "ZeRO-3 offload")]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU."""

    # parameters, gradients, optimizer: weights; gradients when the backward pass ends; Adam's states and weights
    parameters: int
    gradients: int
    optimizer: int
    buffers: int  # gradient buckets; under ZeRO-3 also the weights that are gathered at one time, at most
    # activations, backward, step: what there is besides at the end of the forward pass, at the end of the backward
    # pass, and during the optimizer's step
    activations: int
    backward: int
    step: int
    host: int  # in the machine's memory, for one GPU
    sent: int  # in one step without gradient accumulation

    @property
    def peak(self) -> int:
        moment = max(self.activations, self.backward, self.step)
        return self.parameters + self.gradients + self.optimizer + self.buffers + moment


def estimate(run: Run, zero: Zero) -> Memory:
    """What one GPU holds and sends."""
    size, weights, partitioned = run.element, run.trained + run.frozen, zero.stage == 3
    part = math.ceil(run.trained / run.gpus) if zero.stage else run.trained  # whose states one rank keeps
    own = math.ceil(weights / run.gpus) if partitioned else weights
    # The optimizer's own copy of the weights; in float32, ZeRO-3 and plain Adam need none.
    states = ADAM_BYTES + (0 if size == 4 and zero.stage in (0, 3) else 4)
    matrices = run.mode == "full" or run.whole_vocabulary
    largest = run.model.hidden * (run.model.vocabulary + run.new_tokens if matrices else run.model.hidden)  # gradient
    bucket = zero.buckets * zero.bucket + largest if zero.stage else min(zero.bucket, run.trained)
    gathered = min(zero.whole, weights) if partitioned else 0
    # With checkpointing, DeepSpeed 0.19.8 holds all frozen linear maps whole at the end of the backward pass.
    frozen_maps = run.model.linear if partitioned and run.mode != "full" else 0
    layer = run.batch * run.length * layer_bytes(run)
    return Memory(
        parameters=0 if zero.offload else size * own + math.ceil(NF4_BYTES * run.quantized),
        # ZeRO-1 frees those that fit in a bucket; DeepSpeed's "auto" bucket is smaller than most.
        gradients=0 if zero.offload else size * (part if zero.stage > 1 else run.trained),
        optimizer=0 if zero.offload else states * part,
        buffers=size * (bucket + gathered),
        activations=activation_bytes(run),
        backward=layer + size * max(0, frozen_maps - gathered) if run.checkpointing else 0,
        step=0 if zero.offload else 8 * (min(part, SUBGROUP) if partitioned else part),
        host=size * own + (size + 4 + 4 + ADAM_BYTES) * part if zero.offload else 0,
        sent=sent_bytes(run, zero),
    )


def sent_bytes(run: Run, zero: Zero) -> int:
    """Bytes that one GPU sends in a step, in rings of N, which send (N-1)/N of what is gathered or scattered.

    An all-reduce is both. Under ZeRO-3 a weight is gathered for the forward and for the backward pass, the vision
    tower for the forward pass alone.
    """
    elements = (3 if zero.stage else 2) * run.trained
    if zero.stage == 3:
        elements = run.trained + 2 * (run.trained + run.frozen) - run.model.vision.weights
    return run.element * elements * (run.gpus - 1) // run.gpus


def layer_bytes(run: Run, *, mask: int = 1) -> int:
    """What autograd keeps of one layer of the language model for one token.

    Args: mask: bytes of an element of a dropout's mask: 1 on a GPU, those of a weight on a CPU.
    """
    hidden, inner, element = run.model.hidden, run.model.intermediate, run.element
    # Inputs of both norms in float32; queries, keys, values, output and log-sums of attention; gate, its SiLU, up.
    common = 8 * hidden + element * 4 * hidden + 4 * run.model.heads + element * 3 * inner
    if run.mode == "full":
        return common + element * (4 * hidden + inner)  # norms' outputs before and after their scale, what goes down
    if run.mode == "projector":
        return common
    # Output and mask of LoRA's dropout at each of seven linear maps, and what is between its matrices.
    return common + (element + mask) * (6 * hidden + inner) + 7 * element * run.lora_r


def activation_bytes(run: Run) -> int:
    """At the peak: the end of the forward pass or, with checkpointing, of the last layer's second forward pass."""
    model, element, tokens = run.model, run.element, run.batch * run.length
    image = run.batch * model.vision.patches * element
    projector = image * (model.vision.hidden + 2 * model.hidden * (model.projector_layers - 1))
    # Logits, log-probabilities in float32, and the gradients of both.
    positions = run.batch * (min(run.answer, run.length) if run.new_tokens else run.length)
    logits = positions * (12 + (2 * element if element < 4 else 0)) * (model.vocabulary + run.new_tokens)
    end = tokens * (4 + 2 * element) * model.hidden + logits
    layer = tokens * layer_bytes(run)
    if run.checkpointing:
        return projector + model.layers * tokens * element * model.hidden + max(layer, end)
    return projector + model.layers * layer + end


def usable(memory: float) -> int:
    """Bytes that remain of a GPU of so many GB."""
    return int(memory * GB * (1 - FRAGMENTED)) - RESERVED


def largest_batch(run: Run, zero: Zero, *, memory: float) -> int:
    """The most records on one GPU of so many GB; 0 if not one fits. Quantized weights cannot be partitioned."""
    if run.mode == "qlora" and zero.stage == 3:
        return 0
    batches = range(1, LARGEST_BATCH + 1)
    return bisect_right(batches, usable(memory), key=lambda batch: estimate(replace(run, batch=batch), zero).peak)


def choose(run: Run, *, memory: float) -> tuple[Run, Zero, int] | None:
    """The recommended run, its configuration, and how many of its batches are accumulated to `run.batch` records.

    The first shipped configuration in which the batch fits, else the one with the largest batch. Offloading is slow:
    it is chosen only where no other holds a single record. None if that does not either.
    """
    for offload in (False, True):
        ways = [zero for zero in shipped(run.model.hidden) if zero.config and zero.offload is offload]
        batches = {zero: min(run.batch, largest_batch(run, zero, memory=memory)) for zero in ways}
        zero = max(ways, key=lambda way: batches[way])
        if batches[zero]:
            steps = math.ceil(run.batch / batches[zero])
            return replace(run, batch=math.ceil(run.batch / steps)), zero, steps
    return None
