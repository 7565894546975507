"""Records of any task in one call."""

import numpy as np

from llava_aurora.tasks.counting import CountFacts
from llava_aurora.tasks.depth import DepthFacts


def write_record(
    writer,
    task,
    *,
    points=(),
    codes=(),
    thing="red cube",
    things="red cubes",
    boxes=None,
    name="n",
    image="a.png",
    rng=None,
):
    """A record about points and a map, or about boxes where those are given."""
    facts = DepthFacts(points, codes) if boxes is None else CountFacts(thing, things, boxes)
    return writer.write(task, facts, name=name, image=image, rng=rng or np.random.default_rng(0))
