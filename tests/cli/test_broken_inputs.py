"""Inputs in which anything may be anything: each command ends by itself, or in one line that says what is wrong."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import llava_aurora
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.errors import AuroraError
from llava_aurora.vqvae.checkpoint import load_depth_vqvae
from llava_aurora.vqvae.folders import encode_folder

DEEP = "[" * 100_000 + "]" * 100_000
ANYTHING = st.one_of(
    st.sampled_from([None, True, -1, 0, 10**30, 1.5, float("nan"), float("inf"), "", "a\0b", "\ud800", "x" * 3000]),
    st.sampled_from([[], {}, [None], [[[]]], {"": {}}, [True] * 9, "../../x", "/etc/passwd", "{", "5"]),
)
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 56, "height": 56}],
    "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog", "supercategory": "animal"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "iscrowd": 0, "area": 400}],
}


@pytest.fixture(scope="module")
def inputs(workshop, tmp_path_factory) -> Path:
    """One good file for each command, and what else the command needs."""
    folder = tmp_path_factory.mktemp("inputs")
    write_scenes(out=folder / "scenes", count=2, seed=3, config=SceneConfig(frame=56, shadows=False))
    model = load_depth_vqvae(workshop.vqvae)
    encode_folder(model=model, maps=folder / "scenes" / "depth", out=folder / "codes.parquet")
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((56, 56, 3), np.uint8)).save(folder / "images" / "a.png")
    (folder / "coco.json").write_text(json.dumps(COCO))
    (folder / "records.json").write_text(json.dumps(json.loads(workshop.records.read_text())[:4]))
    shutil.copytree(workshop.vqvae, folder / "vqvae")
    shutil.copytree(workshop.base, folder / "base")
    return folder


# Of each command: the file that is broken, and its arguments.
COMMANDS = {
    "data boxes": ("coco.json", ["--annotations", "coco.json", "--images", "images", "--frame", "56"]),
    "data records": (
        "scenes/scenes.jsonl",
        ["--scenes", "scenes", "--codes", "codes.parquet", "--vqvae", "vqvae", "--frame", "56"],
    ),
    "data scenes": ("scenes/scenes.json", ["--count", "2", "--frame", "56", "--no-shadows", "--seed", "3"]),
    "data check": ("records.json", ["records.json", "--image-folder", "images", "--quick", "--workers", "1"]),
    "data view": ("records.json", ["records.json", "--image-folder", "images"]),
    "data convert": ("records.json", ["records.json"]),
    "vqvae decode": ("codes.parquet", ["codes.parquet", "--vqvae", "vqvae"]),
    "vqvae encode": ("vqvae/config.json", ["scenes/depth", "--vqvae", "vqvae"]),
    "plan": ("base/config.json", ["--model", "base"]),
    "ask": ("base/config.json", ["What?", "--model", "base", "--image", "images/a.png", "--max-new-tokens", "1"]),
}


def places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Where a JSON value can be replaced: itself, and all that is in it."""
    yield place
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from places(part, (*place, key))


def replaced(value: Any, place: tuple, by: Any) -> Any:
    if not place:
        return by
    key, *rest = place
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(value[key], tuple(rest), by)
    return copy


def ends_well(command: str, folder: Path) -> None:
    """The command succeeds, or raises the error that is shown as one line."""
    out = folder / {"data scenes": "scenes", "vqvae encode": "out.parquet"}.get(command, "out.jsonl")
    given = {"plan": [], "ask": ["--picture", folder / "out.png"], "convert": [out]}
    arguments = [str(folder / part) if (folder / part).exists() else part for part in COMMANDS[command][1]]
    arguments += map(str, [out] if command == "data convert" else given.get(command, ["--out", out]))
    result = llava_aurora(*command.split(), *arguments)
    (folder / "out.jsonl").unlink(missing_ok=True) if not (folder / "out.jsonl").is_dir() else shutil.rmtree(out)
    if not isinstance(result.exception, SystemExit | AuroraError | None):
        raise result.exception
    assert "\n" not in (str(result.exception) if isinstance(result.exception, AuroraError) else "")


@pytest.mark.parametrize("command", [name for name, (file, _) in COMMANDS.items() if "json" in file])
@given(data=st.data())
@settings(max_examples=12, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_of_any_kind_in_any_place(command, inputs, tmp_path, data):
    file, folder = COMMANDS[command][0], tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(inputs, folder)
    text = (folder / file).read_text()
    lines = text.splitlines() if file.endswith(".jsonl") else [text]
    line = data.draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[line])
    place = data.draw(st.sampled_from(list(places(value))))
    lines[line] = json.dumps(replaced(value, place, data.draw(ANYTHING)))
    (folder / file).write_text("\n".join(lines))
    ends_well(command, folder)


@pytest.mark.parametrize("damage", ["deep", "deep inside", "halved", "empty", "garbage", "missing", "pipe", "folder"])
@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_are_broken_whole(command, damage, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "copy")
    file = folder / COMMANDS[command][0]
    content = file.read_bytes()
    file.unlink()
    if damage == "pipe":
        os.mkfifo(file)
    elif damage == "folder":
        file.mkdir()
    elif damage != "missing":
        broken = {"deep": DEEP.encode(), "deep inside": f'{{"images": {DEEP}}}'.encode(), "empty": b""}
        broken |= {"halved": content[: len(content) // 2], "garbage": bytes(range(256)) * 4}
        file.write_bytes(broken[damage])
    ends_well(command, folder)
