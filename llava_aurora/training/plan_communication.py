"""How many bytes each GPU sends in a training step: arithmetic on shapes, without torch.

Counted is what DeepSpeed hands to its collectives, times what a ring sends of it: of S bytes, an all-gather (S whole)
and a reduce-scatter send S·(N-1)/N from every one of N GPUs, an all-reduce twice that. docs/plan.md has the derivation,
and a benchmark compares it with what DeepSpeed really does.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise

from llava_aurora.training.model_sizes import Run, VisionSizes, count
from llava_aurora.training.plan import Zero, flat_share, share


@dataclass(frozen=True, kw_only=True)
class Communication:
    """Bytes that one GPU sends in a step, by operation."""

    all_reduce: int = 0
    reduce_scatter: int = 0
    all_gather: int = 0

    @property
    def total(self) -> int:
        return self.all_reduce + self.reduce_scatter + self.all_gather


def communication(run: Run, zero: Zero) -> Communication:
    """One forward and backward pass and the optimizer's step; nothing is accumulated."""
    others = run.gpus - 1
    if zero.stage == 3:
        gathered = sum(-(-numel // run.gpus) * times for numel, times in gathers(run, zero).items())
        return Communication(
            reduce_scatter=run.element * share(run.trained, run) * others, all_gather=run.element * gathered * others
        )
    reduced = 2 * run.element * count(run.trained) * others // run.gpus
    if zero.stage == 0:
        return Communication(all_reduce=reduced)
    return Communication(all_reduce=reduced, all_gather=run.element * flat_share(run.trained, run) * others)


# --- What ZeRO-3 gathers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    """One that has weights of its own, or one use of it.

    Args:
        weights: names and elements.
        backward: needed in the backward pass.
        frozen: not trained.
        held: used so that its weights stay whole until the end of the backward pass.
        around: how many of the modules that follow lie within it; until then its weights are not released.
    """

    weights: tuple[tuple[str, int], ...]
    backward: bool = True
    frozen: bool = False
    held: bool = False
    around: int = 0


def gathers(run: Run, zero: Zero) -> Counter[int]:
    """How often weights of so many elements are gathered in a step: {elements of one weight: times}.

    The rules of DeepSpeed's PartitionedParameterCoordinator, once it has seen a step and knows the order of modules. A
    small weight is gathered once, after the optimizer's step. Any other is gathered when a module needs it, or shortly
    before; afterwards it is released, unless it is needed again within `max_reuse` elements. Frozen weights that
    checkpointing needs once more stay until the end of the backward pass.
    """
    # What is gathered depends neither on how many GPUs share it nor on the batch.
    return _gathers(replace(run, gpus=1, batch=1, length=1, answer=1), zero)


@lru_cache(maxsize=64)
def _gathers(run: Run, zero: Zero) -> Counter[int]:
    order = list(trace(run))
    numel = dict(weight for module in order for weight in module.weights)
    persistent = {name for name in numel if numel[name] <= zero.persistence}
    found = Counter(numel[name] for name in persistent)
    passed = [0, *accumulate(sum(size for _, size in module.weights) for module in order)]
    uses: dict[str, deque[int]] = {name: deque() for name in numel}
    queue: deque[tuple[str, int]] = deque()
    for position, module in enumerate(order):
        for name, _ in module.weights:
            uses[name].append(position)
            queue.append((name, position))
    kept = set(persistent)  # never to be released from here on
    users: Counter[str] = Counter()
    ends: dict[int, list[str]] = {}
    available, foreseen, live = set(persistent), dict.fromkeys(numel, -1), 0

    def gather(names: Iterable[str]) -> int:
        missing = [name for name in names if name not in available]
        available.update(missing)
        found.update(numel[name] for name in missing)
        return sum(numel[name] for name in missing)

    for position, module in enumerate(order):
        names = [name for name, _ in module.weights]
        live += gather(names)
        for _ in [name for name in names if foreseen[name] < position]:
            name, at = queue.popleft()
            foreseen[name] = at
        ahead: set[str] = set()
        while queue and sum(numel[name] for name in ahead) < min(zero.max_live - live, zero.prefetch_bucket):
            name, at = queue.popleft()
            foreseen[name] = max(foreseen[name], at)
            if name not in available:
                ahead.add(name)
        live += gather(ahead)
        if module.held:
            kept.update(names)
        users.update(names)
        ends.setdefault(position + module.around, []).extend(names)
        for name in ends.pop(position, []):
            users[name] -= 1
            while uses[name] and uses[name][0] <= position:
                uses[name].popleft()
            near = uses[name] and passed[uses[name][0]] - passed[position + 1] < zero.max_reuse
            if not (users[name] or near or name in kept or foreseen[name] > position + 1):
                available.remove(name)
                live -= numel[name]
    return found


def trace(run: Run) -> Iterator[_Module]:
    """Modules in the order in which a step needs their weights: forward, then backward.

    With checkpointing, each layer goes forward once more before it goes backward.
    """
    layers = [_layer(run, number) for number in range(run.model.language.layers)]
    norm = [_Module((("norm", run.model.language.hidden),))]
    projector = _projector(run)
    embedding = _matrix(run, "embedding", backward=run.checkpointing)
    head = _matrix(run, "head", backward=True)
    yield from [*_tower(run.model.vision), *projector, *embedding]
    for layer in layers:
        yield from layer
    yield from [*norm, *head]
    yield from [*_back(head), *norm]
    for layer in reversed(layers):
        if run.checkpointing:
            yield from (replace(module, held=module.frozen) for module in layer)
        yield from _back(layer)
    yield from _back([*projector, *(module for module in embedding if module.backward)])


def _back(modules: list[_Module]) -> Iterator[_Module]:
    """In the order of the backward pass: reversed, but a module is before what lies within it there too."""
    position = len(modules)
    while position:
        position -= 1
        outer = next((at for at in range(max(0, position - 3), position) if at + modules[at].around >= position), None)
        if outer is None:
            yield modules[position]
        else:
            yield modules[outer]
            yield from reversed(modules[outer + 1 : position + 1])
            position = outer


def _linear(run: Run, name: str, shape: tuple[int, int]) -> list[_Module]:
    """A linear map of a layer, and the two matrices of LoRA beside it.

    PEFT's module around them asks for the first matrix's type, whereupon DeepSpeed fetches that for it too.
    """
    out, into = shape
    base = _Module(((name, out * into),), frozen=run.mode != "full")
    if "lora" not in run.mode:
        return [base]
    first = _Module(((f"{name} A", run.lora_r * into),))
    return [replace(first, around=3), base, first, _Module(((f"{name} B", out * run.lora_r),))]


def _layer(run: Run, number: int) -> list[_Module]:
    sizes, name = run.model.language, f"layer {number} "
    hidden, inner = sizes.hidden, sizes.intermediate
    return [
        _Module(((f"{name}first norm", hidden),), frozen=run.mode != "full"),
        *_linear(run, f"{name}queries", (hidden, hidden)),
        *_linear(run, f"{name}keys", (sizes.kv_width, hidden)),
        *_linear(run, f"{name}values", (sizes.kv_width, hidden)),
        *_linear(run, f"{name}output", (hidden, hidden)),
        _Module(((f"{name}second norm", hidden),), frozen=run.mode != "full"),
        *_linear(run, f"{name}gate", (inner, hidden)),
        *_linear(run, f"{name}up", (inner, hidden)),
        *_linear(run, f"{name}down", (hidden, inner)),
    ]


def _matrix(run: Run, name: str, *, backward: bool) -> list[_Module]:
    """A vocabulary matrix; where it is frozen, the rows of new tokens beside it are trained.

    Args:
        run: mode and shapes.
        name: embedding or head.
        backward: whether a gradient flows back through the frozen matrix. It does through the embedding's only with
            checkpointing, for which its output is made to require one.
    """
    hidden, words = run.model.language.hidden, "embedding" if run.model.language.tied else name
    if run.mode == "full" or run.whole_vocabulary:
        return [_Module(((words, run.vocabulary * hidden),))]
    rows = [_Module(((f"{words} rows", run.new_tokens * hidden),), around=1)] if run.new_tokens else []
    return [*rows, _Module(((words, run.model.language.vocabulary * hidden),), backward)]


def _projector(run: Run) -> list[_Module]:
    hidden, wide = run.model.language.hidden, run.model.vision.hidden
    widths = [wide, *[hidden] * run.model.projector_layers]
    return [
        _Module(((f"projector {number}", into * out), (f"projector {number} bias", out)))
        for number, (into, out) in enumerate(pairwise(widths))
    ]


def _tower(sizes: VisionSizes) -> list[_Module]:
    """It runs without gradients, forward alone."""
    hidden, inner = sizes.hidden, sizes.intermediate

    def module(name: str, *numels: int) -> _Module:
        return _Module(tuple((f"tower {name} {number}", numel) for number, numel in enumerate(numels)))

    modules = [
        module("class", hidden),
        module("patches", hidden * 3 * sizes.patch**2),
        module("places", (sizes.patches + 1) * hidden),
        module("norm before", hidden, hidden),
    ]
    for layer in range(sizes.layers):
        modules += [
            module(f"{layer} first norm", hidden, hidden),
            *(module(f"{layer} {name}", hidden * hidden, hidden) for name in ("queries", "keys", "values", "output")),
            module(f"{layer} second norm", hidden, hidden),
            module(f"{layer} first", inner * hidden, inner),
            module(f"{layer} second", hidden * inner, hidden),
        ]
    return [*modules, module("norm after", hidden, hidden)]
