"""Sizes of the demo: `demo` takes two cores eight minutes, `full` half an hour; `smoke` shows that every stage runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llava_aurora.data.sources.scenes.scene import SceneConfig

SCENES = SceneConfig(frame=112, shadows=False, variety=0.5, max_objects=8, min_visible_area=0.008)
# Chains say how close each point is by the map. New tokens start from what they stand for: coordinates and codes are
# numbers that the base can copy, look up and compare. Codes are learned behind noise, so that they depend on the image.
TAUGHT: Mapping[str, object] = {
    "value_step": "interpolated",
    "perception_init": "words",
    "depth_raster_rows": True,
    "code_noise": 0.6,
    "mm_vision_tower_lr": 3e-4,  # what the tower sees is there already
}
SHARES: Mapping[str, float] = {
    "depth_generation": 0.55,
    "depth_reading": 0.55,
    "depth_chain_from_coordinates": 1.0,
    "depth_direct_from_coordinates": 0.3,
    "point_location": 0.4,
    "depth_chain": 0.6,
    "depth_direct": 0.2,
    "box_generation": 0.8,
    "counting_chain": 0.6,
    "counting_direct": 0.2,
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything that decides how long the demo takes and how well its model sees.

    Args:
        scenes, held_out: numbers of scenes to train on and to ask about.
        scene: of both; its frame is that of the tiny base.
        shares: records of each task a scene.
        read_points: how many points are read in a map (`depth_reading`).
        epochs, batch, learning_rate: of fine-tuning; `batch` is per rank.
        flags: what else it is told.
        ranks: processes of fine-tuning, and of rendering.
        questions: of each benchmark at most.
        replaced: questions of the token replacement test.
    """

    scenes: int
    held_out: int
    scene: SceneConfig = SCENES
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)
    read_points: int = 8
    epochs: float = 1
    batch: int = 8
    learning_rate: float = 1e-3
    flags: Mapping[str, object] = field(default_factory=lambda: TAUGHT)
    ranks: int = 2
    questions: int = 440
    replaced: int = 440
    seed: int = 0
    points: tuple[int, ...] = (2, 3, 4, 5)


PRESETS = {
    "demo": Preset(scenes=1600, held_out=440, questions=320, replaced=80),
    "full": Preset(scenes=8000, held_out=1000, questions=1000, replaced=1000),
    "smoke": Preset(scenes=16, held_out=8, questions=8, replaced=8),
}
