"""Who is compared: what each contestant learns from, in which order, and with which flags. The one table.

All start from the same weights of a seed, see as many samples, and are shown marked points in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llava_aurora.data.tasks import KINDS, Kind
from llava_aurora.demo.presets import GUIDES
from llava_aurora.errors import AuroraError

# In the order in which they are run: what matters most has a result first.
GROUPS = ("contrast", "values", "coordinates", "bottleneck", "rest")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train.

    Args:
        name: of its folders.
        title: as the report calls it.
        group: of GROUPS.
        kinds: of tasks that it learns, besides locating marked points, which all learn.
        order: of the tasks: AURORA's curriculum, the curriculum's mean mixture in every epoch, or the curriculum in
            four fifths of the epochs and nothing but chains in the rest. In the first three tenths of the epochs,
            "reading first" has maps not written, but read as text, without an image; "reading beside" keeps the
            mixture with which the curriculum begins, in which, as in all that follows, half of the maps are read as
            text.
        flags: of scripts/finetune_aurora.sh, beyond those that all have.
        reads: whether points are read in the maps that are learned: wherever others learn to write a map, it learns to
            write it and say its values at some points.
        practises: whether some of that is practice: the values of a map at many points, and chains about maps that are
            given as text, without an image.
        about_marks: whether it differs from the others only where points are marked in the image.
    """

    name: str
    title: str
    group: str
    kinds: tuple[Kind, ...] = KINDS
    order: Literal[
        "curriculum", "constant", "chains last", "reading first, chains last", "reading beside, chains last"
    ] = "curriculum"
    flags: Mapping[str, object] = field(default_factory=dict)
    reads: bool = False
    practises: bool = False
    about_marks: bool = False

    @property
    def reasonings(self) -> tuple[str, ...]:
        """How it can be asked: for what it has learned."""
        return tuple(kind for kind in ("chain", "direct") if kind in self.kinds)

    @property
    def accumulation(self) -> int:
        """How many batches a step of its training has."""
        steps = self.flags.get("gradient_accumulation_steps", 1)
        assert isinstance(steps, int)
        return steps


_SWAPPED: Mapping[str, object] = {"value_step": "map", "fresh_points": True, "swapped_map_probability": 0.5}
_GUIDED = {"lookup_loss_weight": 0.3}
_HEADS = {**_GUIDED, "choice_loss_weight": 0.3, "answer_loss_weight": 0.3}
_MIXED_STEPS = {"gradient_accumulation_steps": 2, "lengths_per_step": 2}

CONTESTANTS: Mapping[str, Variant] = {
    contestant.name: contestant
    for contestant in (
        Variant(name="direct", title="direct answers only", group="contrast", kinds=("direct",)),
        Variant(name="full", title="full recipe", group="contrast"),
        # Not the paper's: what is to make a small model use its map.
        Variant(
            name="direct_fresh",
            title="direct answers only, fresh points",
            group="values",
            kinds=("direct",),
            flags={"fresh_points": True},
        ),
        Variant(
            name="map_values_fresh",
            title="reading values of the map, fresh points",
            group="values",
            flags={"value_step": "map", "fresh_points": True},
            reads=True,
        ),
        Variant(
            name="map_values_chains",
            title="reading values of the map, fresh points, chains last",
            group="values",
            order="chains last",
            flags={"value_step": "map", "fresh_points": True},
            reads=True,
        ),
        Variant(
            name="map_values",
            title="reading values of the map",
            group="values",
            flags={"value_step": "map"},
            reads=True,
        ),
        Variant(
            name="readings",
            title="reading true values",
            group="values",
            flags={"value_step": "depth"},
            reads=True,
        ),
        Variant(
            name="values",
            title="true values in chains alone",
            group="values",
            flags={"value_step": "depth"},
        ),
        Variant(
            name="map_values_bottleneck",
            title="reading values of the map, fresh points, chains last, image hidden",
            group="values",
            order="chains last",
            flags={"value_step": "map", "fresh_points": True, "information_bottleneck": "image"},
            reads=True,
        ),
        Variant(
            name="map_practice",
            title="practice in reading maps, fresh points, chains last, image hidden",
            group="values",
            order="chains last",
            flags={"value_step": "map", "fresh_points": True, "information_bottleneck": "image"},
            reads=True,
            practises=True,
        ),
        Variant(
            name="map_swapped",
            title="reading values of the map, fresh points, chains last, half of the maps swapped",
            group="values",
            order="chains last",
            flags=_SWAPPED,
            reads=True,
        ),
        Variant(
            name="map_first",
            title="reading maps as text first, then values, half of the maps swapped",
            group="values",
            order="reading first, chains last",
            flags=_SWAPPED,
            reads=True,
        ),
        Variant(
            name="map_beside",
            title="reading maps as text beside writing them, then values, half of the maps swapped",
            group="values",
            order="reading beside, chains last",
            flags=_SWAPPED,
            reads=True,
        ),
        Variant(
            name="map_guided",
            title="practice in reading maps, fresh points, chains last, half of the maps swapped, a head guided",
            group="values",
            order="chains last",
            flags={**_SWAPPED, **_GUIDED},
            reads=True,
            practises=True,
        ),
        Variant(
            name="map_guided_answers",
            title="practice in reading maps, fresh points, half of the maps swapped, two heads guided, answers weighed",
            group="values",
            order="chains last",
            flags={**_SWAPPED, **_HEADS},
            reads=True,
            practises=True,
        ),
        Variant(
            name="map_interpolated",
            title="reading maps as text beside writing them, interpolated values, heads guided lightly,"
            " two tasks a step",
            group="values",
            order="reading beside, chains last",
            flags={"value_step": "interpolated", "fresh_points": True, **GUIDES, **_MIXED_STEPS},
            reads=True,
        ),
        Variant(
            name="no_coordinates",
            title="chain without the coordinate step",
            group="coordinates",
            flags={"coordinate_step": False},
            about_marks=True,
        ),
        Variant(
            name="plain_text",
            title="plain-text coordinates",
            group="coordinates",
            flags={"plain_coordinates": True, "perception_modalities": "depth"},
        ),
        # Hiding the chain hides the coordinates too, and the image the marks: of a marked question, "chain,image"
        # leaves nothing to find the points by. "image" alone leaves the coordinates and the map.
        Variant(
            name="bottleneck_image",
            title="bottleneck: image hidden",
            group="bottleneck",
            flags={"information_bottleneck": "image"},
        ),
        Variant(
            name="bottleneck_chain",
            title="bottleneck: chain hidden",
            group="bottleneck",
            flags={"information_bottleneck": "chain"},
        ),
        Variant(
            name="bottleneck_both",
            title="bottleneck: chain and image hidden",
            group="bottleneck",
            flags={"information_bottleneck": "chain,image"},
        ),
        Variant(name="chain", title="direct answers and chains", group="rest", kinds=("chain", "direct")),
        Variant(name="constant", title="fixed mixture", group="rest", order="constant"),
        Variant(
            name="reconstruction",
            title="full recipe with reconstruction loss",
            group="rest",
            flags={"reconstruction_loss_weight": 1.0},
        ),
    )
}


@dataclass(frozen=True)
class Run:
    """One contestant, trained from one seed."""

    contestant: Variant
    seed: int

    @property
    def name(self) -> str:
        return f"{self.contestant.name}-{self.seed}"


def runs(*, only: Sequence[str] = (), seeds: Sequence[int] = (0, 1), marked: bool = True) -> list[Run]:
    """The runs in their order: group by group, in each seed by seed.

    Args:
        only: names of contestants; all if empty.
        seeds: of data order and first weights.
        marked: whether any points are marked; contestants that only differ there are left out otherwise.

    Raises:
        AuroraError: for a name that is none.
    """
    if unknown := [name for name in only if name not in CONTESTANTS]:
        raise AuroraError(f"--only {unknown[0]}: no contestant of that name; there are: {', '.join(CONTESTANTS)}")
    wanted = [
        contestant
        for contestant in CONTESTANTS.values()
        if (not only or contestant.name in only) and (marked or not contestant.about_marks)
    ]
    return [
        Run(contestant, seed)
        for group in GROUPS
        for seed in dict.fromkeys(seeds)
        for contestant in wanted
        if contestant.group == group
    ]
