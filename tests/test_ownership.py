"""What is not a command's own is never touched, whatever name it has; what is its own is replaced or continued."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image

from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.errors import AuroraError
from llava_aurora.generation.answer_pictures import save_picture
from llava_aurora.ownership import claim_folder

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 56, "height": 56}],
    "categories": [{"id": 1, "name": "cup"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20]}],
}


@pytest.fixture(scope="module")
def inputs(workshop, tmp_path_factory) -> Path:
    """Scenes, their codes, annotations and records."""
    folder = tmp_path_factory.mktemp("owned")
    write_scenes(out=folder / "scenes", count=2, seed=3, config=SceneConfig(frame=56, shadows=False))
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((56, 56, 3), np.uint8)).save(folder / "images" / "a.png")
    (folder / "coco.json").write_text(json.dumps(COCO))
    (folder / "records.json").write_text(json.dumps(json.loads(workshop.records.read_text())[:4]))
    shutil.copytree(workshop.vqvae, folder / "vqvae")
    run(folder, *COMMANDS["vqvae encode"], "codes.parquet")
    return folder


# Each without the last argument, the file or folder to write.
COMMANDS = {
    "data records": (
        *("data", "records", "--scenes", "scenes", "--codes", "codes.parquet", "--vqvae", "vqvae", "--frame", "56"),
        *("--plain-coordinates", "--out"),
    ),
    "data boxes": ("data", "boxes", "--annotations", "coco.json", "--images", "images", "--frame", "56", "--out"),
    "data depth-records": (
        *("data", "depth-records", "--images", "scenes/images", "--depth", "scenes/depth", "--vqvae", "vqvae"),
        *("--frame", "56", "--out"),
    ),
    "data convert": ("data", "convert", "records.json"),
    "data view": ("data", "view", "records.json", "--image-folder", "images", "--out"),
    "vqvae encode": ("vqvae", "encode", "scenes/depth", "--vqvae", "vqvae", "--out"),
    "vqvae decode": ("vqvae", "decode", "codes.parquet", "--vqvae", "vqvae", "--out"),
    "data depth": (
        *("data", "depth", "--maps", "scenes/depth", "--values", "relative", "--closer", "higher", "--out"),
    ),
    "data check": ("data", "check", "records.json", "--out"),
    "data boxes --resized": (
        *("data", "boxes", "--annotations", "coco.json", "--images", "images", "--frame", "56", "--out", "b.json"),
        *("--aspect-ratio", "resize", "--resized"),
    ),
}
FILES = {"data view": "out.html", "vqvae encode": "out.parquet", "data convert": "out.parquet"}
FOLDERS = {"vqvae decode": "000000.png", "data depth": "000000.png", "data check": "report.json"}
FOLDERS |= {"data boxes --resized": "a.png"}


def run(folder: Path, *command: str):
    """Runs a command on paths relative to the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return llava_aurora(*command)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_anothers_stays_and_what_is_its_own_is_written_again(command, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "copy")
    out = FILES.get(command, "out.json")
    theirs = folder / (f"out/{FOLDERS[command]}" if command in FOLDERS else out)
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text('{"theirs": [1]}')
    to = "out" if command in FOLDERS else out
    result = run(folder, *COMMANDS[command], to)
    assert isinstance(result.exception, AuroraError), result.output
    assert "choose another" in str(result.exception)
    assert theirs.read_text() == '{"theirs": [1]}'
    assert list(folder.rglob(".*")) == []
    theirs.unlink()
    for _ in range(2):
        result = run(folder, *COMMANDS[command], to)
        assert result.exit_code == 0, (result.output, result.exception)


def test_images_are_not_replaced_by_their_resized_copies(inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "copy")
    before = (folder / "images" / "a.png").read_bytes()
    result = run(folder, *COMMANDS["data boxes --resized"], "images")
    assert "images: is not empty, not a folder of resized images" in str(result.exception)
    assert (folder / "images" / "a.png").read_bytes() == before


def test_a_picture_of_an_answer_replaces_no_other(tmp_path):
    picture, path = Image.new("RGB", (4, 4)), tmp_path / "a.png"
    picture.save(path)
    with pytest.raises(AuroraError, match=r"a\.png: already exists and holds no picture of an answer"):
        save_picture(picture, path)
    path.unlink()
    for _ in range(2):
        save_picture(picture, path)
    path.unlink()
    path.mkdir()
    with pytest.raises(AuroraError, match=r"a\.png: already exists"):
        save_picture(picture, path)


def test_a_folder_is_continued_with_the_same_settings_alone(tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        claim_folder(out, "about.json", {"size": (1, 2)}, what="maps")
    with pytest.raises(AuroraError, match=r"out: holds maps made with size \[1, 2\], not \[1, 3\]"):
        claim_folder(out, "about.json", {"size": (1, 3)}, what="maps")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".writing-1").touch()  # left by a killed command
    claim_folder(tmp_path / "other", "about.json", {}, what="maps")
    (tmp_path / "file").touch()
    with pytest.raises(AuroraError, match="file: is not empty, not a folder of maps"):
        claim_folder(tmp_path / "file", "about.json", {}, what="maps")
