"""Draws the content of a scene from a seed: a room, a camera, a light and named solids on the floor.

Decides the variety of the embedded data; scene.py renders it and keeps only what can be told apart by eye.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llava_aurora.data.sources.scenes.raycaster import Camera, Cube, Cylinder, Room, Solid, Sphere, Vector
from llava_aurora.data.sources.scenes.surfaces import Color, Light, Texture
from llava_aurora.errors import AuroraError

# Saturated and apart in hue; rooms keep to muted tones, so that no wall is taken for an object.
COLORS: dict[str, Color] = {
    "red": (214, 32, 36),
    "orange": (250, 130, 20),
    "yellow": (246, 222, 40),
    "green": (40, 160, 50),
    "cyan": (40, 205, 220),
    "blue": (36, 70, 215),
    "purple": (150, 50, 190),
}
SHAPES: tuple[str, ...] = ("cube", "sphere", "cylinder")

_FLOORS: tuple[tuple[str, Color, Color], ...] = (
    ("planks", (96, 70, 48), (176, 138, 98)),
    ("planks", (70, 58, 50), (132, 116, 104)),
    ("checker", (222, 218, 208), (112, 108, 104)),
    ("tiles", (110, 106, 100), (206, 200, 190)),
    ("noise", (120, 116, 122), (166, 160, 164)),
    ("noise", (98, 108, 100), (150, 158, 146)),
)
_WALLS: tuple[tuple[str, Color, Color], ...] = (
    ("plain", (226, 220, 206), (226, 220, 206)),
    ("noise", (196, 204, 210), (222, 226, 228)),
    ("stripes", (214, 206, 192), (196, 186, 170)),
    ("stripes", (186, 196, 192), (206, 212, 208)),
    ("bricks", (190, 184, 176), (150, 112, 98)),
    ("bricks", (150, 148, 146), (212, 208, 202)),
)


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Everything but the seed that decides what a scene looks like."""

    frame: int = 336  # side of the square image, pixels
    # min_objects, max_objects: how many objects a scene holds
    min_objects: int = 1
    max_objects: int = 9
    shadows: bool = True  # whether objects cast shadows
    # whether edges in the image are smoothed; depth and instances are always those of pixel centres
    antialias: bool = True
    # an object counts only if it covers this share of the frame; what shows less is taken out
    min_visible_area: float = 0.003
    # how much rooms and cameras differ from each other; 0 is always the same room from the same place
    variety: float = 1.0

    def __post_init__(self) -> None:
        if not 32 <= self.frame <= 2048:
            raise AuroraError(f"frame {self.frame} is out of range: scenes are 32 to 2048 pixels wide")
        if not 0 <= self.min_objects <= self.max_objects <= 12:
            raise AuroraError(
                f"objects {self.min_objects} to {self.max_objects} is out of range: give 0 <= min <= max <= 12"
            )
        if not 0 <= self.variety <= 1:
            raise AuroraError(f"variety {self.variety} is out of range: give 0 to 1")
        if not 0 <= self.min_visible_area < 1:
            raise AuroraError(f"min_visible_area {self.min_visible_area} is out of range: give 0 to below 1")

    @property
    def min_visible_pixels(self) -> int:
        """`min_visible_area` in pixels, at least 1."""
        return max(1, math.ceil(self.min_visible_area * self.frame**2))


@dataclass(frozen=True)
class Item:
    """A named solid: `color` is a key of COLORS, `shape` one of SHAPES."""

    color: str
    shape: str
    solid: Solid
    texture: Texture


@dataclass(frozen=True)
class World:
    """A scene before it is rendered. `faces`: textures of the room in the order of `raycaster.LEFT` … `FRONT`."""

    camera: Camera
    room: Room
    faces: tuple[Texture, ...]
    light: Light
    items: tuple[Item, ...]


def sample_world(rng: np.random.Generator, config: SceneConfig) -> World:
    """Draws a room and up to `config.max_objects` items that stand apart from each other and in view."""

    def vary(low: float, high: float) -> float:
        middle = (low + high) / 2
        return middle + config.variety * (rng.uniform(low, high) - middle)

    room = Room(low=(-vary(1.6, 4.0), 0.0, 0.0), high=(vary(1.6, 4.0), vary(2.4, 3.6), 0.0))
    width, height, length = room.high[0] - room.low[0], room.high[1], vary(4.0, 9.0)
    room = Room(low=room.low, high=(room.high[0], height, length))
    camera = Camera(
        position=(vary(-0.25, 0.25) * width / 2, vary(1.1, min(2.1, height - 0.3)), 0.25),
        yaw=math.radians(vary(-22, 22)),
        pitch=math.radians(vary(9, 27)),
        field_of_view=math.radians(vary(52, 72)),
        frame=config.frame,
    )
    light = Light(
        position=(
            room.low[0] + rng.uniform(0.2, 0.8) * width,
            rng.uniform(0.8, 0.93) * height,
            rng.uniform(0.1, 0.6) * length,
        ),
        ambient=rng.uniform(0.25, 0.4),
        strength=rng.uniform(0.95, 1.25),
        fade=rng.uniform(0.8, 1.4) * length,
    )
    lattice = rng.random((64, 64), dtype=np.float32)
    return World(camera, room, _faces(rng, lattice), light, _items(rng, config, camera, room, lattice))


def _faces(rng: np.random.Generator, lattice: np.ndarray) -> tuple[Texture, ...]:
    floor = _surface(rng, _FLOORS, lattice, rng.uniform(0.2, 0.5))
    wall, other = (_surface(rng, _WALLS, lattice, rng.uniform(0.16, 0.4)) for _ in range(2))
    side = other if rng.random() < 0.5 else wall
    white = (232, 232, 228)
    ceiling = Texture(pattern="plain", first=white, second=white, period=1.0, lattice=lattice)
    return side, side, floor, ceiling, wall, wall


def _surface(
    rng: np.random.Generator,
    choices: Sequence[tuple[str, Color, Color]],
    lattice: np.ndarray,
    period: float,
) -> Texture:
    pattern, first, second = choices[int(rng.integers(len(choices)))]
    tint = rng.uniform(0.9, 1.04, size=3) * rng.uniform(0.8, 1.0)
    return Texture(
        pattern=pattern,
        first=_scaled(first, tint),
        second=_scaled(second, tint),
        period=period,
        lattice=lattice,
    )


def _items(
    rng: np.random.Generator, config: SceneConfig, camera: Camera, room: Room, lattice: np.ndarray
) -> tuple[Item, ...]:
    wanted = int(rng.integers(config.min_objects, config.max_objects + 1))
    # Few kinds for many objects, as often as not: then counting one kind is no matter of there being one or none.
    kinds = [
        (list(COLORS)[rng.integers(len(COLORS))], SHAPES[rng.integers(len(SHAPES))])
        for _ in range(int(rng.integers(1, max(1, wanted) + 1)))
    ]
    items: list[Item] = []
    for _ in range(40 * wanted):
        if len(items) == wanted:
            break
        color, shape = kinds[rng.integers(len(kinds))]
        solid = _solid(rng, config, shape, camera, room)
        if solid is not None and all(_apart(solid, item.solid) for item in items):
            items.append(Item(color, shape, solid, _paint(rng, color, solid, lattice)))
    return tuple(items)


def _solid(rng: np.random.Generator, config: SceneConfig, shape: str, camera: Camera, room: Room) -> Solid | None:
    """One solid on the floor; None where that place is outside the room, out of view or too far to be seen."""
    size = rng.uniform(0.17, 0.48)
    height = size * rng.uniform(0.8, 1.7) if shape == "cylinder" else size
    # Even in the logarithm of distance: as many near as far, as a relative depth map spreads them.
    distance = math.exp(rng.uniform(math.log(1.3), math.log(max(2.0, room.high[2]))))
    across = rng.uniform(-0.95, 0.95) * math.tan(camera.field_of_view / 2)
    turn, yaw = camera.yaw, rng.uniform(0, math.pi / 2)
    center: Vector = (
        camera.position[0] + distance * (math.sin(turn) + across * math.cos(turn)),
        height,
        camera.position[2] + distance * (math.cos(turn) - across * math.sin(turn)),
    )
    solid: Solid
    if shape == "cube":
        solid = Cube(center, size, yaw)
    else:
        solid = Sphere(center, size) if shape == "sphere" else Cylinder(center, size, height)
    reach = solid.footprint + 0.03
    if not all(room.low[i] + reach < center[i] < room.high[i] - reach for i in (0, 2)):
        return None
    column, row, depth = camera.project(center)
    edge = 0.04 * camera.frame
    if depth < 0.8 or not (edge < column < camera.frame - edge and edge < row < camera.frame - edge):
        return None
    if 3 * (camera.focal_length * size / depth) ** 2 < 1.3 * config.min_visible_pixels:
        return None
    return solid


def _apart(first: Solid, second: Solid) -> bool:
    return math.dist(first.center[::2], second.center[::2]) > first.footprint + second.footprint


def _paint(rng: np.random.Generator, color: str, solid: Solid, lattice: np.ndarray) -> Texture:
    """Two shades of one colour; the cells divide the solid's height, so that no face lies between two of them."""
    pattern = ("plain", "plain", "checker", "stripes")[rng.integers(4)]
    contrast = rng.uniform(0.7, 0.85)
    cells = int(rng.integers(2, 4))
    shade = COLORS[color] if pattern == "plain" else _scaled(COLORS[color], np.full(3, contrast))
    return Texture(pattern=pattern, first=COLORS[color], second=shade, period=solid.center[1] / cells, lattice=lattice)


def _scaled(color: Color, factors: np.ndarray) -> Color:
    red, green, blue = (min(255, round(part * float(factor))) for part, factor in zip(color, factors, strict=True))
    return red, green, blue
