"""How much memory a run needs on each GPU, and what of it fits: arithmetic on shapes, without torch.

docs/plan.md derives every formula and names its source; a test compares them with what DeepSpeed really holds.
All sizes are bytes on one GPU unless said otherwise.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.training.model_sizes import Run, Weight, count

CONFIGS = Path(__file__).resolve().parents[2] / "deepspeed_configs"
GB = 10**9
# CUDA's context, NCCL and cuBLAS; and what the allocator loses between blocks. A guess, not measured.
RESERVED, FRAGMENTED = int(1.5 * GB), 0.05
# NF4 with doubly quantized scales: 4 bits, 8/64 for the scales, 32/(64·256) for theirs (QLoRA, arXiv 2305.14314).
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
ADAM_BYTES = 8  # two float32 moments
LARGEST_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Zero:
    """One way to divide a run over GPUs.

    Args:
        name: as shown.
        stage: 0 (everything everywhere) to 3.
        offload: weights, gradients and optimizer states lie in the machine's memory.
        config: the shipped file that does this; None if none does.
        reduce_bucket, prefetch_bucket, persistence, max_live, max_reuse: DeepSpeed's settings, in elements.
        overlap: two buckets instead of one.
    """

    name: str
    stage: int
    offload: bool = False
    config: str | None = None
    reduce_bucket: int = 500_000_000
    prefetch_bucket: int = 50_000_000
    persistence: int = 100_000
    max_live: int = 1_000_000_000
    max_reuse: int = 1_000_000_000
    overlap: bool = True

    @classmethod
    def from_settings(cls, settings: dict[str, Any], *, name: str, hidden: int, config: str | None = None) -> "Zero":
        """Reads a DeepSpeed configuration; "auto" is resolved as transformers does, by the model's width."""
        zero = settings["zero_optimization"]
        auto = {
            "reduce_bucket_size": hidden**2,
            "stage3_prefetch_bucket_size": int(0.9 * hidden**2),
            "stage3_param_persistence_threshold": 10 * hidden,
        }

        def setting(key: str, default: int) -> int:
            value = zero.get(key, default)
            return auto[key] if value == "auto" else int(value)

        return cls(
            name=name,
            stage=zero["stage"],
            offload="offload_optimizer" in zero,
            config=config,
            reduce_bucket=setting("reduce_bucket_size", cls.reduce_bucket),
            prefetch_bucket=setting("stage3_prefetch_bucket_size", cls.prefetch_bucket),
            persistence=setting("stage3_param_persistence_threshold", cls.persistence),
            max_live=setting("stage3_max_live_parameters", cls.max_live),
            max_reuse=setting("stage3_max_reuse_distance", cls.max_reuse),
            overlap=zero.get("overlap_comm", False),
        )


def shipped(hidden: int) -> list[Zero]:
    """ZeRO 0, 1, 2, 3 and 3 with offload, with the settings of deepspeed_configs/."""

    def read(file: str, name: str) -> Zero:
        try:
            settings = json.loads((CONFIGS / file).read_text(encoding="utf-8"))
        except OSError as error:
            raise AuroraError(f"{CONFIGS / file}: missing; run this from a checkout (pip install -e .)") from error
        return Zero.from_settings(settings, name=name, hidden=hidden, config=f"deepspeed_configs/{file}")

    two = read("zero2.json", "ZeRO-2")
    return [
        replace(two, name="no ZeRO", stage=0, config=None),
        replace(two, name="ZeRO-1", stage=1, config=None),
        two,
        read("zero3.json", "ZeRO-3"),
        read("zero3_offload.json", "ZeRO-3 offload"),
    ]


# --- Weights, gradients, optimizer ------------------------------------------------------------------------------------


def share(weights: Iterable[Weight], run: Run) -> int:
    """Elements of one rank's part under ZeRO-3: each weight is rounded up to the number of ranks."""
    return sum(math.ceil(weight.numel / run.gpus) * weight.copies for weight in weights)


def flat_share(weights: Iterable[Weight], run: Run) -> int:
    """Elements of one rank's part under ZeRO-1 and 2: all weights in one row, its length rounded up to 2 a rank."""
    return 2 * math.ceil(count(weights) / (2 * run.gpus))


def part(run: Run, zero: Zero) -> int:
    """Trained elements whose optimizer states one rank keeps."""
    if zero.stage == 0:
        return count(run.trained)
    return share(run.trained, run) if zero.stage == 3 else flat_share(run.trained, run)


def parameter_bytes(run: Run, zero: Zero) -> int:
    """Weights. ZeRO-3 keeps one part of each, and the small ones whole besides."""
    quantized = math.ceil(NF4_BYTES * run.quantized)
    weights = [*run.trained, *run.frozen]
    if zero.stage < 3:
        flat = run.gpus * flat_share(run.trained, run) if zero.stage else count(run.trained)
        return run.element * (flat + count(run.frozen)) + quantized
    small = count(weight for weight in weights if weight.numel <= zero.persistence)
    return run.element * (small + (0 if zero.offload else share(weights, run))) + quantized


def gradient_bytes(run: Run, zero: Zero) -> int:
    """Gradients at the end of the backward pass: all without ZeRO, one part from ZeRO-2 on.

    ZeRO-1 keeps its part too, and whole what is too large for the bucket, also where it is other ranks' part.
    """
    if zero.offload:
        return 0
    if zero.stage == 0:
        return run.element * count(run.trained)
    large = count(weight for weight in run.trained if weight.numel > zero.reduce_bucket) if zero.stage == 1 else 0
    return run.element * (part(run, zero) + large * (run.gpus - 1) // run.gpus)


def optimizer_bytes(run: Run, zero: Zero) -> int:
    """Adam's moments, and a float32 copy of the weights where these are not in float32 or lie in a flat row."""
    if zero.offload:
        return 0
    return (ADAM_BYTES + _master(run, zero)) * part(run, zero)


def _master(run: Run, zero: Zero) -> int:
    """Bytes of an element of the optimizer's own copy. In float32, ZeRO-3 and plain Adam update weights in place."""
    return 0 if run.element == 4 and zero.stage in (0, 3) else 4


def host_bytes(run: Run, zero: Zero) -> int:
    """What offloading moves to the machine's memory, for one GPU: weights, gradients, Adam."""
    if not zero.offload:
        return 0
    own = part(run, zero)
    return run.element * share([*run.trained, *run.frozen], run) + (run.element + 4 + 4 + ADAM_BYTES) * own


def bucket_bytes(run: Run, zero: Zero) -> int:
    """Buckets that gradients are reduced in, of fixed size, and the gradient on its way there."""
    if zero.stage == 0:
        return run.element * min(zero.reduce_bucket, count(run.trained))
    buckets = 2 if zero.overlap and zero.stage < 3 else 1
    return run.element * (buckets * zero.reduce_bucket + max(weight.numel for weight in run.trained))


def gathered_bytes(run: Run, zero: Zero) -> int:
    """Weights that ZeRO-3 lets be whole at one time."""
    if zero.stage < 3:
        return 0
    return run.element * min(zero.max_live + zero.prefetch_bucket, count([*run.trained, *run.frozen]))


def kept_bytes(run: Run, zero: Zero) -> int:
    """Frozen weights of layers that ZeRO-3 holds whole at the end of the backward pass: with checkpointing, all.

    DeepSpeed 0.19.8 releases them only with the module around that has no gradient to wait for; docs/plan.md says more.
    """
    if zero.stage < 3 or not run.checkpointing:
        return 0
    layers = (weight for weight in run.frozen if weight.part == "linear" and weight.numel > zero.persistence)
    return run.element * count(layers)


def step_bytes(run: Run, zero: Zero, *, subgroup: int = 1_000_000_000) -> int:
    """What the optimizer's step needs for a moment: float32 gradients and one temporary of Adam's."""
    if zero.offload:
        return 0
    return 2 * 4 * (min(part(run, zero), subgroup) if zero.stage == 3 else part(run, zero))


# --- Activations ------------------------------------------------------------------------------------------------------


def layer_bytes(run: Run, *, mask: int = 1) -> int:
    """What autograd keeps of a Llama's layer for one token. No term in length²: the attention kernel keeps none.

    Args:
        run: mode and shapes.
        mask: bytes of one element of a dropout's mask: 1 on a GPU, those of a weight on a CPU.
    """
    sizes, element = run.model.language, run.element
    hidden, inner = sizes.hidden, sizes.intermediate
    norms = 2 * 4 * hidden  # each norm's input in float32
    attention = element * 4 * hidden + 4 * sizes.heads  # queries, keys, values (repeated to all heads), output; sums
    gated = element * 3 * inner  # gate, its SiLU, up
    if run.mode == "full":
        # Each norm's output before and after its scale; what goes into the down projection.
        return norms + attention + gated + element * (4 * hidden + inner)
    if run.mode == "projector":
        return norms + attention + gated
    # LoRA: its dropout's output and mask at each of seven linear maps, and what is between its matrices.
    inputs = 6 * hidden + inner
    return norms + attention + gated + (element + mask) * inputs + 7 * element * run.lora_r


def logit_bytes(run: Run) -> int:
    """At the start of the backward pass: logits, log-probabilities in float32, and the gradients of both."""
    positions = run.batch * (min(run.answer, run.length) if run.new_tokens else run.length)
    copies = 2 * run.element + 3 * 4 if run.element < 4 else 3 * 4
    return positions * copies * run.vocabulary


def activation_bytes(run: Run) -> int:
    """At the peak, which is at the end of the forward pass; with checkpointing, there or in the last layer."""
    sizes, tokens = run.model.language, run.batch * run.length
    image = run.batch * run.model.vision.patches * run.element
    projector = image * (run.model.vision.hidden + 2 * sizes.hidden * (run.model.projector_layers - 1))
    end = tokens * (4 + 2 * run.element) * sizes.hidden + logit_bytes(run)
    layer = tokens * layer_bytes(run)
    if run.checkpointing:
        return projector + sizes.layers * tokens * run.element * sizes.hidden + max(layer, end)
    return projector + sizes.layers * layer + end


def backward_bytes(run: Run, zero: Zero) -> int:
    """At the end of the backward pass: one layer's activations, and weights beyond those in `gathered_bytes`."""
    layer = run.batch * run.length * layer_bytes(run)
    return layer + max(0, kept_bytes(run, zero) - gathered_bytes(run, zero)) if run.checkpointing else 0


# --- The whole --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU at the peak. `host`: in the machine's memory.

    `activations` are those of the end of the forward pass, `backward` what there is in their place at the end of the
    backward pass, `step` what the optimizer needs after it.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    backward: int
    step: int
    host: int

    @property
    def total(self) -> int:
        moment = max(self.activations, self.backward, self.step)
        return self.parameters + self.gradients + self.optimizer + self.buffers + moment


def estimate(run: Run, zero: Zero) -> Memory:
    """What one GPU holds."""
    return Memory(
        parameters=parameter_bytes(run, zero),
        gradients=gradient_bytes(run, zero),
        optimizer=optimizer_bytes(run, zero),
        activations=activation_bytes(run),
        buffers=bucket_bytes(run, zero) + gathered_bytes(run, zero),
        backward=backward_bytes(run, zero),
        step=step_bytes(run, zero),
        host=host_bytes(run, zero),
    )


def possible(run: Run, zero: Zero) -> bool:
    """Quantized weights cannot be partitioned."""
    return not (run.mode == "qlora" and zero.stage == 3)


def usable(memory: float) -> int:
    """Bytes that remain of a GPU of so many GB."""
    return int(memory * GB * (1 - FRAGMENTED)) - RESERVED


def largest_batch(run: Run, zero: Zero, *, memory: float) -> int:
    """The most records on one GPU; 0 if not even one fits."""
    if not possible(run, zero):
        return 0
    low, high = 0, LARGEST_BATCH + 1  # `low` fits, `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        if estimate(replace(run, batch=middle), zero).total <= usable(memory):
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The way recommended."""

    run: Run
    zero: Zero
    accumulation: int

    def flags(self) -> str:
        """As a training script takes them."""
        run = self.run
        lora = f" --lora_enable True --lora_r {run.lora_r} --lora_alpha {2 * run.lora_r}" if "lora" in run.mode else ""
        words = " --train_base_vocabulary True" if run.whole_vocabulary and run.mode != "full" else ""
        bits = " --bits 4" if run.mode == "qlora" else ""
        projector = " --tune_mm_mlp_adapter True" if run.mode == "projector" else ""
        return (
            f"--deepspeed {self.zero.config}{lora}{words}{bits}{projector} --bf16 {run.element == 2}"
            f" --per_device_train_batch_size {run.batch} --gradient_accumulation_steps {self.accumulation}"
            f" --model_max_length {run.length} --gradient_checkpointing {run.checkpointing}"
        )


def choose(run: Run, *, memory: float) -> Choice | None:
    """The first shipped configuration the batch fits in, else that with the largest batch, accumulated to the same.

    Offloading is slow, so that it is chosen only where nothing else holds a single record. None if it does not either.
    """
    fits = {
        zero: min(run.batch, largest_batch(run, zero, memory=memory))
        for zero in shipped(run.model.language.hidden)
        if zero.config
    }
    for offload in (False, True):
        batch, zero = max(((fits[zero], zero) for zero in fits if zero.offload is offload), key=lambda pair: pair[0])
        if batch:
            steps = math.ceil(run.batch / batch)
            return Choice(run=replace(run, batch=math.ceil(run.batch / steps)), zero=zero, accumulation=steps)
    return None
