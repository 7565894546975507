"""Colour of what the rays hit: procedural textures, one point light with shadows, ambient light.

Second stage of a scene, after raycaster.py. Textures blend two colours by a pattern; the pattern fades to its mean
where a pixel covers more than a period of it, which keeps far tiles from flickering. Light adds up in linear
colour; the display curve is a square root (gamma 2), cheap and near enough to sRGB.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llava_aurora.data.sources.scenes.raycaster import ROOM_FACES, Room, Solid, Vector, near_solid, squared_length

Color = tuple[int, int, int]

_LATTICE = 64  # side of the table of random numbers behind planks and noise; a power of two


@dataclass(frozen=True, kw_only=True)
class Texture:
    pattern: str  # a key of PATTERNS
    # first, second: the two colours, 8-bit as displayed
    first: Color
    second: Color
    period: float  # length of one cell of the pattern, metres
    lattice: np.ndarray  # float32 (64, 64) in [0, 1], for patterns with chance in them

    def albedo(self, position: np.ndarray, footprint: np.ndarray) -> list[np.ndarray]:
        """Linear reflectance at points of a surface.

        Args:
            position: (2, N) on a face of the room or (3, N) inside a solid, metres.
            footprint: metres of the surface that a pixel covers, (N,).
        Returns red, green, blue, each float32 (N,) in [0, 1].
        """
        share = PATTERNS[self.pattern](position * np.float32(1 / self.period), self.lattice)
        sharpness = np.minimum(np.float32(0.7 * self.period) / footprint, np.float32(1))
        share = np.float32(0.5) + (share - np.float32(0.5)) * sharpness
        channels = []
        for first, second in zip(self.first, self.second, strict=True):
            low, high = (first / 255) ** 2, (second / 255) ** 2
            channels.append(np.float32(low) + share * np.float32(high - low))
        return channels


@dataclass(frozen=True, kw_only=True)
class Light:
    """A point light. `ambient` + `strength` is the light on a surface that faces it closely; `fade` in metres."""

    position: Vector
    ambient: float
    strength: float
    fade: float


def shade(
    *,
    room: Room,
    solids: Sequence[Solid],
    textures: Sequence[Texture],
    light: Light,
    origin: Vector,
    directions: np.ndarray,
    depth: np.ndarray,
    surface: np.ndarray,
    pixel_size: float,
    shadows: bool,
) -> np.ndarray:
    """Displayed colour of every ray, float32 (3, N) in [0, 255].

    Args:
        textures: one for each face of the room, then one for each solid.
        depth, surface: as `raycaster.trace` returned them.
        pixel_size: side of a pixel at a depth of 1 m, metres.
    """
    points = directions * depth + np.array(origin, np.float32)[:, None]
    from_light = points - np.array(light.position, np.float32)[:, None]
    squared_distance = squared_length(from_light)
    colors = np.empty_like(points)
    facing = np.empty_like(depth)
    for index in np.flatnonzero(np.bincount(surface, minlength=len(textures))).tolist():
        chosen = np.flatnonzero(surface == index)
        if index < ROOM_FACES:
            axis, sign = divmod(index, 2)
            inward = np.float32(1 - 2 * sign)
            toward_light = -inward * from_light[axis, chosen]
            toward_camera = np.abs(directions[axis, chosen])
            position = points[:, chosen][[other for other in (0, 2, 1) if other != axis]]
        else:
            solid = solids[index - ROOM_FACES]
            position = solid.local(points[:, chosen])
            normals = solid.normals(position)
            toward_light = -_dot(normals, from_light[:, chosen])
            toward_camera = np.abs(_dot(normals, directions[:, chosen]))
        footprint = depth[chosen] * np.float32(pixel_size) / np.maximum(toward_camera, np.float32(0.05))
        facing[chosen] = np.maximum(toward_light, np.float32(0))
        for channel, values in zip(colors, textures[index].albedo(position, footprint), strict=True):
            channel[chosen] = values
    if shadows:
        facing[_in_shadow(solids, light, from_light, squared_distance)] = 0
    falloff = np.float32(light.strength) / (1 + squared_distance * np.float32(1 / light.fade**2))
    colors *= np.float32(light.ambient) + facing / np.sqrt(squared_distance) * falloff
    return np.minimum(np.sqrt(colors) * np.float32(255), np.float32(255))


def _in_shadow(
    solids: Sequence[Solid], light: Light, from_light: np.ndarray, squared_distance: np.ndarray
) -> np.ndarray:
    """Indices of the points that a solid hides from the light (some more than once)."""
    hidden = [np.empty(0, np.int64)]
    for solid in solids:
        candidates = near_solid(light.position, from_light, squared_distance, solid)
        # At 1 the ray is at the point itself; a little less keeps lit faces from shadowing themselves.
        blocked = solid.enter(light.position, from_light[:, candidates]) < np.float32(0.998)
        hidden.append(candidates[blocked])
    return np.concatenate(hidden)


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


# --- patterns: position (2 or 3, N) in periods, lattice -> share of the second colour, float32 (N,) in [0, 1] ---------


def _plain(position: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    return np.full(position.shape[1], 0.5, np.float32)


def _checker(position: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    cells = np.floor(position + np.float32(0.5)).astype(np.int32)
    return (cells.sum(axis=0) & 1).astype(np.float32)


def _stripes(position: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Along the first axis of a wall; around a solid."""
    along = position[1] if len(position) == 3 else position[0]
    return (np.floor(along + np.float32(0.5)).astype(np.int32) & 1).astype(np.float32)


def _tiles(position: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Squares with joints."""
    inside = np.abs(position - np.floor(position) - np.float32(0.5)).max(axis=0)
    return (inside < np.float32(0.47)).astype(np.float32)


def _planks(position: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Long boards along the second axis, each of its own shade."""
    rows = np.floor(position[0])
    row = rows.astype(np.int32) & (_LATTICE - 1)
    along = position[1] * np.float32(0.15) + lattice[0, row] * np.float32(_LATTICE)
    boards = np.floor(along)
    shade = lattice[row, boards.astype(np.int32) & (_LATTICE - 1)]
    joint = (position[0] - rows < np.float32(0.06)) | (along - boards < np.float32(0.01))
    return np.where(joint, np.float32(0), np.float32(0.25) + np.float32(0.75) * shade)


def _bricks(position: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Rows twice as long as high, every second one shifted by half a brick."""
    rows = np.floor(position[1])
    along = position[0] * np.float32(0.5) + (rows.astype(np.int32) & 1).astype(np.float32) * np.float32(0.5)
    bricks = np.floor(along)
    shade = lattice[rows.astype(np.int32) & (_LATTICE - 1), bricks.astype(np.int32) & (_LATTICE - 1)]
    joint = (position[1] - rows < np.float32(0.1)) | (along - bricks < np.float32(0.05))
    return np.where(joint, np.float32(0), np.float32(0.4) + np.float32(0.6) * shade)


def _noise(position: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Smooth blotches: the lattice, interpolated."""
    cell = np.floor(position[:2])
    x, y = position[:2] - cell
    x, y = (f * f * (3 - 2 * f) for f in (x, y))
    column, row = cell.astype(np.int32) & (_LATTICE - 1)
    right, below = (column + 1) & (_LATTICE - 1), (row + 1) & (_LATTICE - 1)
    top = lattice[row, column] + x * (lattice[row, right] - lattice[row, column])
    bottom = lattice[below, column] + x * (lattice[below, right] - lattice[below, column])
    return top + y * (bottom - top)


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": _plain,
    "checker": _checker,
    "stripes": _stripes,
    "tiles": _tiles,
    "planks": _planks,
    "bricks": _bricks,
    "noise": _noise,
}
