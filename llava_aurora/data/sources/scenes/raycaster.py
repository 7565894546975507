"""Geometry of the ray-caster: a camera in a room with solids, and which surface each ray meets at which depth.

First stage of a scene; surfaces.py colours what is hit here. The world has x to the right, y up, z into the room, in
metres, the floor at y = 0. Rays share one origin; directions are float32 (3, N). Only + - * / sqrt act on arrays: IEEE
754 defines them exactly, so that one seed gives the same pixels everywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Vector = tuple[float, float, float]

# Surfaces of the room, as numbered by `Room.exit`; the solid with index k is surface ROOM_FACES + k.
LEFT, RIGHT, FLOOR, CEILING, BACK, FRONT = range(6)
ROOM_FACES = 6


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera with a square frame."""

    position: Vector  # in metres
    yaw: float  # turn to the right, radians
    pitch: float  # turn down, radians
    field_of_view: float  # across the frame, radians
    frame: int  # side of the frame in pixels

    @property
    def focal_length(self) -> float:
        """In pixels."""
        return self.frame / (2 * math.tan(self.field_of_view / 2))

    def axes(self) -> tuple[Vector, Vector, Vector]:
        """Unit vectors right, up, forward in the world."""
        sin_yaw, cos_yaw = math.sin(self.yaw), math.cos(self.yaw)
        sin_pitch, cos_pitch = math.sin(self.pitch), math.cos(self.pitch)
        return (
            (cos_yaw, 0.0, -sin_yaw),
            (sin_yaw * sin_pitch, cos_pitch, cos_yaw * sin_pitch),
            (sin_yaw * cos_pitch, -sin_pitch, cos_yaw * cos_pitch),
        )

    def directions(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Rays through image positions; the centre of pixel (0, 0) is at column 0.5, row 0.5.

        Args: columns, rows: broadcast against each other to N positions.
        Returns float32 (3, N). A step of 1 along a ray goes 1 m along the optical axis, so that ray parameters are
        z-depth.
        """
        across = ((columns - self.frame / 2) / self.focal_length).astype(np.float32)
        above = ((self.frame / 2 - rows) / self.focal_length).astype(np.float32)
        axes = np.array(self.axes(), np.float32)
        rays = [across * right + above * up + forward for right, up, forward in axes.T]
        return np.stack(rays).reshape(3, -1)

    def project(self, point: Vector) -> Vector:
        """Column, row and z-depth of a point in the world; behind the camera only the depth means anything."""
        offset = [p - o for p, o in zip(point, self.position, strict=True)]
        across, above, depth = (sum(a * b for a, b in zip(axis, offset, strict=True)) for axis in self.axes())
        scale = self.focal_length / depth if depth else math.inf
        return self.frame / 2 + across * scale, self.frame / 2 - above * scale, depth


class Solid(Protocol):
    """A convex body.

    Attributes:
        center: in the world, metres.
        reach: radius of a sphere around the centre that holds the body.
        footprint: the same for the circle around its outline on the floor.
    """

    @property
    def center(self) -> Vector: ...

    @property
    def reach(self) -> float: ...

    @property
    def footprint(self) -> float: ...

    def enter(self, origin: Vector, directions: np.ndarray) -> np.ndarray:
        """Ray parameter at which each ray enters, float32 (N,); inf where it misses or starts behind."""

    def local(self, points: np.ndarray) -> np.ndarray:
        """World points (3, N) in the solid's own axes, around its centre."""

    def normals(self, local: np.ndarray) -> np.ndarray:
        """Outward unit normals in the world, float32 (3, N), at points of its surface given in its own axes."""


@dataclass(frozen=True)
class Sphere:
    center: Vector
    radius: float

    @property
    def reach(self) -> float:
        return self.radius

    @property
    def footprint(self) -> float:
        return self.radius

    def enter(self, origin: Vector, directions: np.ndarray) -> np.ndarray:
        x, y, z = (np.float32(o - c) for o, c in zip(origin, self.center, strict=True))
        dx, dy, dz = directions
        near, _ = _quadratic(
            dx * dx + dy * dy + dz * dz,
            dx * x + dy * y + dz * z,
            np.float32(x * x + y * y + z * z - np.float32(self.radius) ** 2),
        )
        return np.where(near > 0, near, np.float32(np.inf))

    def local(self, points: np.ndarray) -> np.ndarray:
        return points - _column(self.center)

    def normals(self, local: np.ndarray) -> np.ndarray:
        return local * np.float32(1 / self.radius)


@dataclass(frozen=True)
class Cube:
    """`half`: half of its side in metres; `yaw`: its turn around the vertical, radians."""

    center: Vector
    half: float
    yaw: float

    @property
    def reach(self) -> float:
        return self.half * math.sqrt(3)

    @property
    def footprint(self) -> float:
        return self.half * math.sqrt(2)

    def enter(self, origin: Vector, directions: np.ndarray) -> np.ndarray:
        start = self._turn(_column(origin) - _column(self.center))
        near, far = _slab(start[0], directions_x := self._turn(directions), self.half, 0)
        for axis in (1, 2):
            low, high = _slab(start[axis], directions_x, self.half, axis)
            near, far = np.maximum(near, low), np.minimum(far, high)
        return np.where((near < far) & (near > 0), near, np.float32(np.inf))

    def local(self, points: np.ndarray) -> np.ndarray:
        return self._turn(points - _column(self.center))

    def normals(self, local: np.ndarray) -> np.ndarray:
        size_x, size_y, size_z = np.abs(local)
        sideways = np.where(size_x >= size_z, np.int8(0), np.int8(2))
        axis = np.where((size_y >= size_x) & (size_y >= size_z), np.int8(1), sideways)
        x, y, z = (np.where(axis == i, np.sign(local[i]), np.float32(0)) for i in range(3))
        cos, sin = np.float32(math.cos(self.yaw)), np.float32(math.sin(self.yaw))
        return np.stack([cos * x + sin * z, y, cos * z - sin * x])

    def _turn(self, vectors: np.ndarray) -> np.ndarray:
        cos, sin = np.float32(math.cos(self.yaw)), np.float32(math.sin(self.yaw))
        x, y, z = vectors
        return np.stack([cos * x - sin * z, y, sin * x + cos * z])


@dataclass(frozen=True)
class Cylinder:
    """Upright; `half_height` in metres."""

    center: Vector
    radius: float
    half_height: float

    @property
    def reach(self) -> float:
        return math.hypot(self.radius, self.half_height)

    @property
    def footprint(self) -> float:
        return self.radius

    def enter(self, origin: Vector, directions: np.ndarray) -> np.ndarray:
        x, y, z = (np.float32(o - c) for o, c in zip(origin, self.center, strict=True))
        dx, _, dz = directions
        near, far = _quadratic(
            dx * dx + dz * dz, dx * x + dz * z, np.float32(x * x + z * z - np.float32(self.radius) ** 2)
        )
        low, high = _slab(y, directions, self.half_height, 1)
        near, far = np.maximum(near, low), np.minimum(far, high)
        return np.where((near < far) & (near > 0), near, np.float32(np.inf))

    def local(self, points: np.ndarray) -> np.ndarray:
        return points - _column(self.center)

    def normals(self, local: np.ndarray) -> np.ndarray:
        x, y, z = local
        out = np.sqrt(x * x + z * z)
        cap = np.abs(y) - np.float32(self.half_height) > out - np.float32(self.radius)
        scale = np.where(cap, np.float32(0), np.float32(1 / self.radius))
        return np.stack([x * scale, np.where(cap, np.sign(y), np.float32(0)), z * scale])


@dataclass(frozen=True)
class Room:
    """An upright box seen from inside: corners `low` and `high`, in metres."""

    low: Vector
    high: Vector

    def exit(self, origin: Vector, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ray parameter float32 (N,) and face int16 (N,) where each ray from inside leaves."""
        with np.errstate(divide="ignore"):
            inverse = 1 / directions
        # The larger of the two quotients is the bound that lies ahead, also for a ray parallel to it (inf).
        x, y, z = (
            np.maximum(inverse[axis] * np.float32(low - start), inverse[axis] * np.float32(high - start))
            for axis, (low, high, start) in enumerate(zip(self.low, self.high, origin, strict=True))
        )
        depth = np.minimum(np.minimum(x, y), z)
        axis = np.where(depth == y, np.int16(1), np.where(depth == x, np.int16(0), np.int16(2)))
        ahead = np.where(axis == 1, directions[1], np.where(axis == 0, directions[0], directions[2])) > 0
        return depth, 2 * axis + ahead


def near_solid(origin: Vector, directions: np.ndarray, squared_lengths: np.ndarray, solid: Solid) -> np.ndarray:
    """Indices of the rays that may meet the solid, int64 (M,): those that meet the sphere around it."""
    x, y, z = (c - o for c, o in zip(solid.center, origin, strict=True))
    outside = np.float32(x * x + y * y + z * z - (1.01 * solid.reach) ** 2)
    if outside <= 0:
        return np.arange(directions.shape[1])
    along = directions[0] * np.float32(x) + directions[1] * np.float32(y) + directions[2] * np.float32(z)
    return np.flatnonzero((along > 0) & (along * along >= squared_lengths * outside))


def squared_length(vectors: np.ndarray) -> np.ndarray:
    """(3, N) -> (N,)."""
    x, y, z = vectors
    return x * x + y * y + z * z


def trace(
    *, room: Room, solids: Sequence[Solid], origin: Vector, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """What each ray meets first.

    Args:
        directions: float32 (3, N), see `Camera.directions`.
    Returns: Ray parameter float32 (N,), surface int16 (N,) (a face of the room or ROOM_FACES + index of the solid), and
    for each solid how many rays would meet it if it stood alone.
    """
    depth, surface = room.exit(origin, directions)
    squared_lengths = squared_length(directions)
    alone = []
    for index, solid in enumerate(solids):
        candidates = near_solid(origin, directions, squared_lengths, solid)
        entered = solid.enter(origin, directions[:, candidates])
        alone.append(int(np.count_nonzero(np.isfinite(entered))))
        closer = entered < depth[candidates]
        chosen = candidates[closer]
        depth[chosen] = entered[closer]
        surface[chosen] = ROOM_FACES + index
    return depth, surface, alone


def _column(vector: Vector) -> np.ndarray:
    return np.array(vector, np.float32)[:, None]


def _quadratic(a: np.ndarray, b: np.ndarray, c: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Both roots of a t² + 2 b t + c, the smaller first; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(b * b - a * c)
        inverse = 1 / a
    return (-b - root) * inverse, (root - b) * inverse


def _slab(
    start: np.ndarray | np.float32, directions: np.ndarray, half: float, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ray parameters at which rays enter and leave the layer -half … half of one axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / directions[axis]
        first, second = (np.float32(-half) - start) * inverse, (np.float32(half) - start) * inverse
    return np.minimum(first, second), np.maximum(first, second)
