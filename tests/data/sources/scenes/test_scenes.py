import hashlib
import subprocess
import sys

import numpy as np
import pytest

from llava_aurora.data.sources.scenes.phrases import unique_phrases
from llava_aurora.data.sources.scenes.raycaster import Room, Sphere
from llava_aurora.data.sources.scenes.rooms import COLORS, SHAPES
from llava_aurora.data.sources.scenes.scene import Scene, SceneConfig, relative_depth, render_scene, scene_seed
from llava_aurora.data.sources.scenes.surfaces import PATTERNS, Light, Texture, shade
from llava_aurora.errors import AuroraError


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    config = SceneConfig(frame=64)
    return [render_scene(seed=scene_seed(5, index), config=config) for index in range(25)]


def test_arrays_have_the_promised_shapes_and_ranges(scenes):
    for scene in scenes:
        assert (scene.image.shape, scene.image.dtype) == ((64, 64, 3), np.uint8)
        assert (scene.depth.shape, scene.depth.dtype) == ((64, 64), np.float32)
        assert (scene.instances.shape, scene.instances.dtype) == ((64, 64), np.int16)
        assert 0.2 < scene.depth.min() < scene.depth.max() < 15
        assert 20 < scene.image.mean() < 240


def test_objects_are_what_their_instance_mask_shows(scenes):
    for scene in scenes:
        assert 1 <= len(scene.objects) <= 9
        assert set(np.unique(scene.instances)) == set(range(len(scene.objects) + 1))
        for number, item in enumerate(scene.objects, start=1):
            rows, columns = np.nonzero(scene.instances == number)
            assert item.visible_pixels == len(rows)
            assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            visible = scene.depth[rows, columns]
            assert (item.near, item.far) == pytest.approx((visible.min(), visible.max()), abs=1e-4)
            assert item.color in COLORS
            assert item.shape in SHAPES
            assert (item.name, item.plural) == (f"{item.color} {item.shape}", f"{item.color} {item.shape}s")
        assert [item.box for item in scene.objects] == sorted(item.box for item in scene.objects)


def test_an_object_shows_its_colour(scenes):
    """The mean colour of an object's pixels points the way its name says, in shade and under a pattern too."""
    names = list(COLORS)
    hues = np.array([COLORS[name] for name in names], float) ** 2
    hues /= np.linalg.norm(hues, axis=1, keepdims=True)
    right = []
    for scene in scenes:
        for number, item in enumerate(scene.objects, start=1):
            mean = (scene.image[scene.instances == number].astype(float) ** 2).mean(axis=0)
            right.append(names[int(np.argmax(hues @ mean))] == item.color)
    assert np.mean(right) > 0.97


@pytest.mark.parametrize("area", [0.003, 0.02])
def test_no_object_is_barely_visible(area):
    config = SceneConfig(frame=48, min_objects=0, min_visible_area=area, antialias=False)
    counts = []
    for seed in range(40):
        scene = render_scene(seed=seed, config=config)
        counts.append(len(scene.objects))
        assert all(item.visible_pixels >= area * 48**2 for item in scene.objects)
    assert max(counts) >= 4


def test_kinds_repeat_and_vary(scenes):
    counts = [
        [item.name for item in scene.objects].count(name)
        for scene in scenes
        for name in {o.name for o in scene.objects}
    ]
    assert max(counts) >= 3
    assert counts.count(1) > 10
    assert len({item.name for scene in scenes for item in scene.objects}) > 10


def test_number_of_objects_follows_the_configuration():
    for seed in range(10):
        scene = render_scene(seed=seed, config=SceneConfig(frame=48, min_objects=3, max_objects=4, antialias=False))
        assert 3 <= len(scene.objects) <= 4
    assert render_scene(seed=0, config=SceneConfig(frame=48, min_objects=0, max_objects=0)).objects == ()


def test_same_seed_gives_the_same_bytes_in_another_process():
    code = (
        "import hashlib; from llava_aurora.data.sources.scenes.scene import *;"
        "s = render_scene(seed=scene_seed(1, 2), config=SceneConfig(frame=64));"
        "print(hashlib.sha256(s.image.tobytes() + s.depth.tobytes() + s.instances.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    scene = render_scene(seed=scene_seed(1, 2), config=SceneConfig(frame=64))
    here = hashlib.sha256(scene.image.tobytes() + scene.depth.tobytes() + scene.instances.tobytes()).hexdigest()
    assert here == other
    assert not np.array_equal(scene.image, render_scene(seed=scene_seed(1, 3), config=SceneConfig(frame=64)).image)


def test_pixels_of_a_seed_are_the_same_for_ever():
    pixels = hashlib.sha256()
    for index in range(3):
        scene = render_scene(seed=scene_seed(11, index), config=SceneConfig(frame=64))
        for array in (scene.image, relative_depth(scene.depth), scene.instances):
            pixels.update(array.tobytes())
    assert pixels.hexdigest() == "eb4d3743cc1d0d39e9c1f31823f4ab7eac28637632830228ac7b0ba6d28ad05b"


def test_a_phrase_names_one_object(scenes):
    found = []
    for scene in scenes:
        for item, phrases in zip(scene.objects, unique_phrases(scene.objects, 64), strict=True):
            others = [other for other in scene.objects if other.name == item.name and other is not item]
            found.append(bool(phrases))
            for phrase in phrases:
                place = phrase.removesuffix(item.name).strip()
                if not place:
                    assert not others
                if place in ("leftmost", "rightmost"):
                    sign = 1 if place == "leftmost" else -1
                    assert all(sign * sum(item.box[::2]) < sign * sum(other.box[::2]) for other in others)
                if place in ("nearest", "farthest"):
                    sign = 1 if place == "nearest" else -1
                    assert all(sign * item.near < sign * other.near for other in others)
    assert 0.7 < np.mean(found) < 1


def test_looks_are_switched_one_by_one_and_leave_geometry_alone():
    seed = scene_seed(0, 0)
    full = render_scene(seed=seed, config=SceneConfig(frame=64))
    for off in ("shadows", "antialias"):
        other = render_scene(seed=seed, config=SceneConfig(frame=64, **{off: False}))
        assert np.array_equal(full.depth, other.depth)
        assert np.array_equal(full.instances, other.instances)
        assert not np.array_equal(full.image, other.image)


def test_scene_seed_depends_on_both_numbers():
    assert len({scene_seed(seed, index) for seed in range(20) for index in range(20)}) == 400
    assert scene_seed(1, 11) != scene_seed(11, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"frame": 8}, "frame 8"),
        ({"min_objects": 5, "max_objects": 4}, "objects 5 to 4"),
        ({"max_objects": 99}, "objects 1 to 99"),
        ({"min_visible_area": 1.5}, "min_visible_area"),
    ],
)
def test_wrong_configuration_is_refused(wrong, message):
    with pytest.raises(AuroraError, match=message):
        SceneConfig(**wrong)


def test_scene_that_cannot_be_is_an_error(monkeypatch):
    monkeypatch.setattr("llava_aurora.data.sources.scenes.scene._ATTEMPTS", 5)
    with pytest.raises(AuroraError, match="lower min_objects"):
        render_scene(seed=0, config=SceneConfig(frame=32, min_objects=12, max_objects=12, min_visible_area=0.2))


def test_relative_depth_is_linear_in_inverse_depth():
    depth = np.array([[1.0, 2.0], [4.0, np.nan], [0.0, np.inf]], np.float32)
    # 1/d: 1, 1/2, 1/4; (1/2 - 1/4) / (1 - 1/4) = 1/3
    assert relative_depth(depth).tolist() == [[255, round(1 + 254 / 3)], [1, 0], [0, 0]]
    assert relative_depth(np.full((2, 2), 3.0)).tolist() == [[255, 255], [255, 255]]
    with pytest.raises(AuroraError, match="no positive finite depth"):
        relative_depth(np.zeros((2, 2), np.float32))


def test_relative_depth_keeps_order(scenes):
    for scene in scenes[:5]:
        relative = relative_depth(scene.depth)
        assert (relative.min(), relative.max()) == (1, 255)
        order = np.argsort(scene.depth, axis=None)
        assert (np.diff(relative.ravel()[order].astype(int)) <= 0).all()


def floor_under_a_sphere(pattern: str, *, shadows: bool) -> np.ndarray:
    """Red channel of a row of floor points, seen from above the room's middle; a sphere hangs over x = 0."""
    texture = Texture(
        pattern=pattern,
        first=(200, 200, 200),
        second=(100, 100, 100),
        period=0.5,
        lattice=np.random.default_rng(0).random((64, 64), dtype=np.float32),
    )
    x = np.linspace(-2, 2, 41, dtype=np.float32)
    origin = (0.0, 2.0, 4.0)
    directions = np.stack([x, np.full_like(x, -2), np.full_like(x, -1)])
    return shade(
        room=Room(low=(-3.0, 0.0, 0.0), high=(3.0, 3.0, 6.0)),
        solids=[Sphere((0.0, 1.0, 3.0), 0.5)],
        textures=[texture] * 7,
        light=Light(position=(0.0, 2.9, 3.0), ambient=0.3, strength=1.0, fade=10.0),
        origin=origin,
        directions=directions,
        depth=np.ones_like(x),
        surface=np.full(len(x), 2, np.int16),
        pixel_size=0.005,
        shadows=shadows,
    )[0]


def test_shadow_falls_where_the_solid_hides_the_light():
    lit, shadowed = floor_under_a_sphere("plain", shadows=False), floor_under_a_sphere("plain", shadows=True)
    x = np.linspace(-2, 2, 41)
    # Tangent from the light, 1.9 above the centre of a sphere of radius 0.5, down to the floor 2.9 below the light.
    edge = 2.9 * 0.5 / np.sqrt(1.9**2 - 0.5**2)
    assert (shadowed[np.abs(x) < edge - 0.01] < lit[np.abs(x) < edge - 0.01]).all()
    assert np.array_equal(shadowed[np.abs(x) > edge + 0.01], lit[np.abs(x) > edge + 0.01])
    assert np.allclose(lit, lit[::-1], rtol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_stay_between_their_two_colours(pattern):
    lattice = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    for axes in (2, 3):
        position = np.random.default_rng(1).uniform(-9, 9, (axes, 500)).astype(np.float32)
        share = PATTERNS[pattern](position, lattice)
        assert share.shape == (500,)
        assert share.dtype == np.float32
        assert 0 <= share.min() <= share.max() <= 1
        assert pattern == "plain" or share.std() > 0.05
