"""What names one object of a scene and no other: its colour and shape, or where it is among those of its name."""

from collections.abc import Sequence

from llava_aurora.data.sources.scenes.scene import SceneObject

APART = 0.05  # of the image's width, that the middle of a leftmost or rightmost object is away from the next
FARTHER = 1.1  # times as far as the nearest of its name is the next


def unique_phrases(objects: Sequence[SceneObject], width: int) -> list[tuple[str, ...]]:
    """For each object the phrases that name it alone, the plainest first; none where it cannot be told from others.

    Args: width: of the image, pixels.
    """
    return [_phrases(item, [other for other in objects if other is not item], width) for item in objects]


def _phrases(item: SceneObject, others: Sequence[SceneObject], width: int) -> tuple[str, ...]:
    same = [other for other in others if other.name == item.name]
    if not same:
        return (item.name,)
    middle, middles = _middle(item), [_middle(other) for other in same]
    places = {
        "leftmost": middle + APART * width <= min(middles),
        "rightmost": middle - APART * width >= max(middles),
        "nearest": item.near * FARTHER <= min(other.near for other in same),
        "farthest": item.near >= FARTHER * max(other.near for other in same),
    }
    return tuple(f"{place} {item.name}" for place, holds in places.items() if holds)


def _middle(item: SceneObject) -> float:
    return (item.box[0] + item.box[2]) / 2
