"""The ray-caster against a second one: double precision, one ray at a time, faces and caps instead of slabs."""

import math

import numpy as np
import pytest

from llava_aurora.data.sources.scenes.raycaster import (
    FLOOR,
    FRONT,
    ROOM_FACES,
    Camera,
    Cube,
    Cylinder,
    Room,
    Sphere,
    near_solid,
    squared_length,
    trace,
)
from llava_aurora.data.sources.scenes.rooms import SceneConfig, sample_world


def sphere_hits(sphere, origin, ray):
    toward = np.subtract(sphere.center, origin)
    along = toward @ ray
    miss = np.linalg.norm(toward - along * ray)
    return [along - math.sqrt(sphere.radius**2 - miss**2)] if miss < sphere.radius else []


def cube_hits(cube, origin, ray):
    axes = [
        np.array([math.cos(cube.yaw), 0, -math.sin(cube.yaw)]),
        np.array([0.0, 1.0, 0.0]),
        np.array([math.sin(cube.yaw), 0, math.cos(cube.yaw)]),
    ]
    for axis in axes:
        for normal in (axis, -axis):
            if ray @ normal == 0:
                continue
            t = (np.asarray(cube.center) + normal * cube.half - origin) @ normal / (ray @ normal)
            offset = origin + t * ray - cube.center
            if all(abs(offset @ other) <= cube.half + 1e-9 for other in axes):
                yield t


def cylinder_hits(cylinder, origin, ray):
    start = origin - np.asarray(cylinder.center)
    roots = np.roots(
        [ray[0] ** 2 + ray[2] ** 2, 2 * (start[0] * ray[0] + start[2] * ray[2]), start[0] ** 2 + start[2] ** 2]
        - np.array([0, 0, cylinder.radius**2])
    )
    yield from (t.real for t in roots if t.imag == 0 and abs(start[1] + t.real * ray[1]) <= cylinder.half_height)
    for level in (-cylinder.half_height, cylinder.half_height):
        t = (level - start[1]) / ray[1]
        if math.hypot(start[0] + t * ray[0], start[2] + t * ray[2]) <= cylinder.radius:
            yield t


HITS = {Sphere: sphere_hits, Cube: cube_hits, Cylinder: cylinder_hits}


def slow_trace(world, column, row):
    """z-depth and instance (0 = room) of one ray."""
    camera = world.camera
    forward = np.array(
        [
            math.sin(camera.yaw) * math.cos(camera.pitch),
            -math.sin(camera.pitch),
            math.cos(camera.yaw) * math.cos(camera.pitch),
        ]
    )
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    up = np.cross(forward, right)
    half = camera.frame / 2
    unit = math.tan(camera.field_of_view / 2) / half
    ray = forward + (column - half) * unit * right - (row - half) * unit * up
    ray /= np.linalg.norm(ray)
    origin = np.asarray(camera.position)
    walls = [
        (bound - origin[axis]) / ray[axis]
        for axis in range(3)
        for bound in (world.room.low[axis], world.room.high[axis])
    ]
    best, instance = min(t for t in walls if t > 0), 0
    for number, item in enumerate(world.items, start=1):
        for t in HITS[type(item.solid)](item.solid, origin, ray):
            if 0 < t < best:
                best, instance = t, number
    return best * (ray @ forward), instance


@pytest.mark.parametrize("seed", range(4))
def test_depth_and_instances_agree_with_a_slow_ray_tracer(seed):
    frame = 32
    world = sample_world(np.random.default_rng(seed), SceneConfig(frame=frame, min_objects=6))
    centers = np.arange(frame) + 0.5
    depth, surface, _ = trace(
        room=world.room,
        solids=[item.solid for item in world.items],
        origin=world.camera.position,
        directions=world.camera.directions(centers[None, :], centers[:, None]),
    )
    instances = np.maximum(surface - ROOM_FACES + 1, 0)
    expected = [slow_trace(world, column, row) for row in centers for column in centers]
    expected_depth, expected_instances = map(np.array, zip(*expected, strict=True))
    assert len(set(expected_instances)) >= 4
    same = instances == expected_instances
    assert same.mean() > 0.998  # a silhouette may pass within rounding of a pixel's centre
    assert np.abs(depth - expected_depth)[same].max() < 1e-3


def test_depth_of_what_can_be_told_by_hand():
    camera = Camera(position=(0.0, 1.0, 0.0), yaw=0.0, pitch=0.0, field_of_view=math.pi / 2, frame=101)
    room = Room(low=(-3.0, 0.0, -1.0), high=(3.0, 2.5, 8.0))
    solids = [Sphere((0.0, 1.0, 4.0), 0.5), Cube((1.5, 1.0, 5.0), 0.25, 0.0)]
    centers = np.arange(101) + 0.5
    directions = camera.directions(centers[None, :], centers[:, None])
    depth, surface, alone = trace(room=room, solids=solids, origin=camera.position, directions=directions)
    depth, surface = depth.reshape(101, 101), surface.reshape(101, 101)
    assert depth[50, 50] == pytest.approx(3.5)
    assert surface[50, 50] == ROOM_FACES
    column, row, at = camera.project((1.5, 1.0, 4.75))
    assert (row, at) == (pytest.approx(50.5), pytest.approx(4.75))
    assert depth[int(row), int(column)] == pytest.approx(4.75)
    assert surface[int(row), int(column)] == ROOM_FACES + 1
    assert (depth[40][surface[40] == FRONT] == 8.0).all()
    # The lowest row looks down by 50 pixels at a focal length of 50.5: the floor 1 m below is 1.01 m away.
    assert surface[100, 50] == FLOOR
    assert depth[100, 50] == pytest.approx(50.5 / 50)
    assert alone == [np.count_nonzero(surface == ROOM_FACES), np.count_nonzero(surface == ROOM_FACES + 1)]


def test_project_is_the_inverse_of_directions():
    camera = Camera(position=(0.3, 1.5, 0.2), yaw=0.3, pitch=0.4, field_of_view=1.1, frame=112)
    ray = camera.directions(np.array([20.5]), np.array([71.25]))[:, 0]
    point = tuple(float(o + 2.5 * d) for o, d in zip(camera.position, ray, strict=True))
    assert camera.project(point) == pytest.approx((20.5, 71.25, 2.5), rel=1e-5)


@pytest.mark.parametrize(
    "solid", [Sphere((0.2, 0.4, 3.0), 0.4), Cube((0.2, 0.4, 3.0), 0.4, 0.7), Cylinder((0.2, 0.6, 3.0), 0.3, 0.6)]
)
def test_normals_are_unit_vectors_that_face_the_ray_and_culling_loses_no_hit(solid):
    origin = (0.0, 1.4, 0.0)
    camera = Camera(position=origin, yaw=0.0, pitch=0.3, field_of_view=0.9, frame=64)
    centers = np.arange(64) + 0.5
    directions = camera.directions(centers[None, :], centers[:, None])
    entered = solid.enter(origin, directions)
    hit = np.flatnonzero(np.isfinite(entered))
    assert len(hit) > 50
    candidates = near_solid(origin, directions, squared_length(directions), solid)
    assert set(hit) <= set(candidates)
    assert len(candidates) < directions.shape[1]
    points = directions[:, hit] * entered[hit] + np.array(origin, np.float32)[:, None]
    normals = solid.normals(solid.local(points))
    assert np.allclose(squared_length(normals), 1, atol=1e-4)
    assert ((normals * directions[:, hit]).sum(axis=0) < 1e-3).all()
