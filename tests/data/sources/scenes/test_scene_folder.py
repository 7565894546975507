import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from llava_aurora.cli.__main__ import main
from llava_aurora.data.sources.scenes import scene_folder
from llava_aurora.data.sources.scenes.scene import SceneConfig, relative_depth, render_scene, scene_seed
from llava_aurora.data.sources.scenes.scene_folder import read_scenes, scene_masks, write_scenes
from llava_aurora.errors import AuroraError

CONFIG = SceneConfig(frame=32, max_objects=3, antialias=False)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folder_holds_what_was_rendered(tmp_path):
    records = write_scenes(out=tmp_path, count=3, seed=7, config=CONFIG, metric_depth=True)
    assert read_scenes(tmp_path) == records
    for index, record in enumerate(records):
        scene = render_scene(seed=scene_seed(7, index), config=CONFIG)
        assert (record.id, record.size) == (f"{index:06d}", (32, 32))
        assert np.array_equal(np.array(Image.open(tmp_path / record.image)), scene.image)
        assert np.array_equal(np.array(Image.open(tmp_path / record.depth)), relative_depth(scene.depth))
        metric = np.array(Image.open(tmp_path / record.metric_depth))
        assert np.abs(metric / 1000 - scene.depth).max() < 0.00051
        assert record.objects == scene.objects
        masks = scene_masks(tmp_path, record)
        assert all((mask == (scene.instances == number)).all() for number, mask in enumerate(masks, start=1))
        line = json.loads((tmp_path / "scenes.jsonl").read_text().splitlines()[index])
        assert [item["name"] for item in line["objects"]] == [item.name for item in scene.objects]
        assert all(isinstance(item["phrases"], list) for item in line["objects"])


def test_folders_without_masks_are_read_and_masks_of_other_scenes_refused(tmp_path):
    (record,) = write_scenes(out=tmp_path, count=1, seed=7, config=CONFIG)
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(tmp_path / record.instances)
    with pytest.raises(AuroraError, match=r"instances/000000\.png: does not hold the pixels"):
        scene_masks(tmp_path, record)
    line = json.loads((tmp_path / "scenes.jsonl").read_text())
    del line["instances"]
    (tmp_path / "scenes.jsonl").write_text(json.dumps(line))
    assert scene_masks(tmp_path, read_scenes(tmp_path)[0]) == []


def test_number_of_workers_changes_no_byte(tmp_path):
    for workers in (1, 2):
        write_scenes(out=tmp_path / str(workers), count=20, seed=1, config=CONFIG, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_run_that_was_killed_while_it_wrote_its_first_file_goes_on(tmp_path):
    code = "import os, sys; from llava_aurora.files import *\nwith atomic_file(sys.argv[1]): os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "scenes.json")])
    assert len(list(tmp_path.iterdir())) == 1
    write_scenes(out=tmp_path, count=1, seed=1, config=CONFIG)
    assert read_scenes(tmp_path)


def test_stopped_run_goes_on_and_keeps_what_it_had(tmp_path, monkeypatch):
    render = scene_folder.render_scene
    calls = []

    def stops(**arguments):
        calls.append(arguments["seed"])
        if len(calls) == 5:
            raise AuroraError("disk full")
        return render(**arguments)

    monkeypatch.setattr(scene_folder, "_BATCH", 2)
    monkeypatch.setattr(scene_folder, "render_scene", stops)
    with pytest.raises(AuroraError, match="disk full"):
        write_scenes(out=tmp_path / "a", count=8, seed=1, config=CONFIG)
    assert len(read_scenes(tmp_path / "a")) == 4
    calls[:] = [0] * 9
    write_scenes(out=tmp_path / "a", count=8, seed=1, config=CONFIG)
    assert calls[9:] == [scene_seed(1, index) for index in range(4, 8)]
    write_scenes(out=tmp_path / "b", count=8, seed=1, config=CONFIG)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    calls[:] = [0] * 9
    (tmp_path / "a" / "depth" / "000003.png").unlink()
    write_scenes(out=tmp_path / "a", count=8, seed=1, config=CONFIG)
    assert calls[9:] == [scene_seed(1, 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "made with seed 1, not 2"),
        ({"config": SceneConfig(frame=48)}, "made with frame 32, not 48"),
        ({"metric_depth": True}, "made with metric_depth False"),
    ],
)
def test_folder_of_other_scenes_is_refused_and_untouched(tmp_path, change, message):
    write_scenes(out=tmp_path, count=1, seed=1, config=CONFIG)
    before = contents(tmp_path)
    with pytest.raises(AuroraError, match=message):
        write_scenes(**{"out": tmp_path, "count": 2, "seed": 1, "config": CONFIG, **change})
    assert contents(tmp_path) == before


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(AuroraError, match=r"scenes\.json is missing"):
        write_scenes(out=tmp_path, count=1, seed=1, config=CONFIG)
    with pytest.raises(AuroraError, match="llava-aurora data scenes"):
        read_scenes(tmp_path)
    with pytest.raises(AuroraError, match="at least 1"):
        write_scenes(out=tmp_path / "new", count=0, seed=1, config=CONFIG)


@pytest.mark.parametrize("line", ["{", "[]", "null", '{"id": "1"}', '{"id": "x", "objects": [], "size": [1, 1]}'])
def test_malformed_line_is_named(tmp_path, line):
    write_scenes(out=tmp_path, count=2, seed=1, config=CONFIG)
    path = tmp_path / "scenes.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(AuroraError, match=r"scenes\.jsonl, line 3: "):
        read_scenes(tmp_path)


def test_malformed_object_is_named(tmp_path):
    write_scenes(out=tmp_path, count=1, seed=1, config=CONFIG)
    path = tmp_path / "scenes.jsonl"
    value = json.loads(path.read_text())
    value["objects"][0]["box"] = [1, 2, 3]
    path.write_text(json.dumps(value))
    with pytest.raises(AuroraError, match="line 1: this is not a scene"):
        read_scenes(tmp_path)


def test_command_makes_a_folder(tmp_path, monkeypatch, capsys):
    arguments = ["--out", str(tmp_path / "scenes"), "--count", "2", "--frame", "32", "--no-antialias", "--workers", "1"]
    monkeypatch.setattr("sys.argv", ["llava-aurora", "data", "scenes", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "2 scenes" in capsys.readouterr().out
    assert len(read_scenes(tmp_path / "scenes")) == 2
