"""Rendered scenes: rooms with named objects, with exact depth, instances and boxes.

First stage of the data's way where no photographs are at hand: records.py makes questions of these scenes. A scene is a
function of its seed and configuration alone. scene_folder.py keeps many of them on disk.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from llava_aurora.data.sources.scenes.raycaster import ROOM_FACES, trace
from llava_aurora.data.sources.scenes.rooms import COLORS, SHAPES, Item, SceneConfig, World, sample_world
from llava_aurora.data.sources.scenes.surfaces import shade
from llava_aurora.errors import AuroraError

__all__ = ["COLORS", "SHAPES", "Scene", "SceneConfig", "SceneObject", "relative_depth", "render_scene", "scene_seed"]

_ATTEMPTS = 200
_LEAST_SHOWN = 0.5  # share of an object's outline within the frame that others may not hide
_CHUNK = 1 << 14  # rays shaded at a time: their arrays stay in the processor's cache
_EDGE = 40.0  # neighbours that differ by more than this (of 255) are smoothed
_SUBPIXELS = ((0.375, 0.125), (0.875, 0.375), (0.125, 0.625), (0.625, 0.875))


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """An object that can be seen."""

    # color, shape: a key of COLORS and one of SHAPES
    color: str
    shape: str
    # (x1, y1, x2, y2) in pixels of the frame around the visible pixels; x1, y1 are the first pixel inside, x2, y2 the
    # first one past it, so that width = x2 - x1 and x2 <= frame
    box: tuple[int, int, int, int]
    visible_pixels: int  # how many pixels show it
    # near, far: least and greatest z-depth of those pixels, metres, to 0.1 mm
    near: float
    far: float

    @property
    def name(self) -> str:
        """Such as "red cube"."""
        return f"{self.color} {self.shape}"

    @property
    def plural(self) -> str:
        """Such as "red cubes"."""
        return f"{self.name}s"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One rendered scene; H = W = frame."""

    image: np.ndarray  # uint8 (H, W, 3)
    depth: np.ndarray  # float32 (H, W), z-depth (along the optical axis) at pixel centres, metres
    instances: np.ndarray  # int16 (H, W); 0 is the room, i + 1 is objects[i]
    faces: np.ndarray  # int16 (H, W); the face of the room, as raycaster.py numbers them, -1 where an object is
    objects: tuple[SceneObject, ...]  # from left to right by their boxes


def scene_seed(seed: int, index: int) -> int:
    """Seed of the scene with this index in a collection: a hash of both, in [0, 2^63)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8], "big") >> 1


def render_scene(*, seed: int, config: SceneConfig) -> Scene:
    """Renders the scene of a seed.

    Objects that would be hard to see (too few visible pixels, or mostly hidden) are taken out, never left in uncounted:
    every object in the image is in `objects`, and each of those is plain to see. Raises AuroraError if no room with
    `config.min_objects` such objects was found.
    """
    rng = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        world = sample_world(rng, config)
        if len(world.items) < config.min_objects:
            continue
        world, depth, surface = _keep_visible(world, config)
        if len(world.items) >= config.min_objects:
            break
    else:
        raise AuroraError(
            f"no scene with {config.min_objects} visible objects found for seed {seed}: lower min_objects, or"
            f" min_visible_area ({config.min_visible_area})"
        )
    image = _image(world, depth, surface, config)
    shape = (config.frame, config.frame)
    depth, surface = depth.reshape(shape), surface.reshape(shape)
    objects = [_describe(item, surface == ROOM_FACES + i, depth) for i, item in enumerate(world.items)]
    order = sorted(range(len(objects)), key=lambda i: objects[i].box)
    ids = np.zeros(ROOM_FACES + len(objects), np.int16)
    ids[[ROOM_FACES + i for i in order]] = np.arange(1, len(objects) + 1)
    faces = np.where(surface < ROOM_FACES, surface, np.int16(-1))
    return Scene(
        image=image, depth=depth, instances=ids[surface], faces=faces, objects=tuple(objects[i] for i in order)
    )


def relative_depth(depth: np.ndarray) -> np.ndarray:
    """Metric depth as 8-bit relative depth, higher = closer, like the maps of a relative depth estimator.

    Per image, linear in inverse depth: round(1 + 254 * (1/d - 1/far) / (1/near - 1/far)), so that the farthest pixel is
    1, the closest 255, and 0 stays free for "unknown". An even depth is 255 everywhere.

    Args: depth: (H, W), metres; not finite or not positive means unknown.
    Returns uint8 (H, W).
    Raises AuroraError if no depth is known anywhere.
    """
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise AuroraError("the depth map holds no positive finite depth at all")
    inverse = np.divide(1.0, depth, out=np.zeros(depth.shape, np.float64), where=known)
    low, high = inverse[known].min(), inverse[known].max()
    scaled = (inverse - low) * (254.0 / (high - low)) if high > low else np.full(depth.shape, 254.0)
    return np.where(known, np.rint(1.0 + scaled), 0).astype(np.uint8)


def _keep_visible(world: World, config: SceneConfig) -> tuple[World, np.ndarray, np.ndarray]:
    """Takes out what is hard to see. Returns the rest with its depth float32 (H·W,) and surfaces int16 (H·W,)."""
    centers = np.arange(config.frame) + 0.5
    directions = world.camera.directions(centers[None, :], centers[:, None])
    while True:
        solids = [item.solid for item in world.items]
        depth, surface, alone = trace(
            room=world.room, solids=solids, origin=world.camera.position, directions=directions
        )
        visible = np.bincount(surface, minlength=ROOM_FACES + len(solids))[ROOM_FACES:]
        kept = tuple(
            item
            for item, seen, whole in zip(world.items, visible, alone, strict=True)
            if seen >= config.min_visible_pixels and seen >= _LEAST_SHOWN * whole
        )
        if len(kept) == len(world.items):
            return world, depth, surface
        world = replace(world, items=kept)


def _image(world: World, depth: np.ndarray, surface: np.ndarray, config: SceneConfig) -> np.ndarray:
    """uint8 (H, W, 3)."""
    frame = config.frame
    centers = np.arange(frame) + 0.5
    directions = world.camera.directions(centers[None, :], centers[:, None])
    colors = _shade(world, directions, depth, surface, config).reshape(3, frame, frame)
    if config.antialias:
        rows, columns = np.nonzero(_edges(colors))
        across, down = np.array(_SUBPIXELS).T[:, :, None]
        directions = world.camera.directions(columns + across, rows + down)
        solids = [item.solid for item in world.items]
        depth, surface, _ = trace(room=world.room, solids=solids, origin=world.camera.position, directions=directions)
        fine = _shade(world, directions, depth, surface, config).reshape(3, len(_SUBPIXELS), -1)
        colors[:, rows, columns] = (fine[:, 0] + fine[:, 1] + fine[:, 2] + fine[:, 3]) / np.float32(4)
    return np.ascontiguousarray(np.rint(colors).astype(np.uint8).transpose(1, 2, 0))


def _shade(
    world: World, directions: np.ndarray, depth: np.ndarray, surface: np.ndarray, config: SceneConfig
) -> np.ndarray:
    """Colours float32 (3, N) in [0, 255], chunk by chunk."""
    colors = np.empty_like(directions)
    for start in range(0, len(depth), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        colors[:, chunk] = shade(
            room=world.room,
            solids=[item.solid for item in world.items],
            textures=world.faces + tuple(item.texture for item in world.items),
            light=world.light,
            origin=world.camera.position,
            directions=directions[:, chunk],
            depth=depth[chunk],
            surface=surface[chunk],
            pixel_size=1 / world.camera.focal_length,
            shadows=config.shadows,
        )
    return colors


def _edges(colors: np.ndarray) -> np.ndarray:
    """bool (H, W): pixels that differ much from a neighbour, in any channel."""
    edges = np.zeros(colors.shape[1:], bool)
    down = (np.abs(colors[:, 1:] - colors[:, :-1]) > _EDGE).any(axis=0)
    across = (np.abs(colors[:, :, 1:] - colors[:, :, :-1]) > _EDGE).any(axis=0)
    edges[1:] |= down
    edges[:-1] |= down
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    return edges


def _describe(item: Item, mask: np.ndarray, depth: np.ndarray) -> SceneObject:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    visible = depth[mask]
    return SceneObject(
        color=item.color,
        shape=item.shape,
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        visible_pixels=len(visible),
        near=round(float(visible.min()), 4),
        far=round(float(visible.max()), 4),
    )
