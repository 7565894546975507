"""The walks of docs/first_hour.md, command by command, with tiny models in an empty folder."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import llava_aurora
from PIL import Image
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "first_hour.md").read_text()
WALKS = {title: re.findall(r"^    (.+)$", text, re.M) for title, text in re.findall(r"## (.+)\n([^#]+)", PAGE)}
NAMES = ("street", "park", "yard", "room")
# What makes a command of the page fit tiny models: flags by the command that they are added to.
SMALL = {
    "data depth --image-folder": "--model estimator --device cpu",
    "vqvae train": "--image-size 48 --channels 8,8,16,16 --code-dim 16 --codebook-size 16 --epochs 1 --batch-size 2",
    "data depth-records": "--frame 56 --points 2",
    "data check": "--frame 56 --workers 1",
    "data view": "--frame 56",
    "data boxes": "--frame 56 --negatives 0",
    "eval": "--limit 3 --cases 1 --max-new-tokens 4 --scenes 2",
    "ask": "--max-new-tokens 4",
}


@pytest.fixture(scope="module")
def things(tmp_path_factory, workshop):
    """What the walks begin with: photographs, sensor maps, annotations, records, a LLaVA folder, an estimator."""
    folder, rng = tmp_path_factory.mktemp("things"), np.random.default_rng(0)
    for name in ("photos", "sensor"):
        (folder / name).mkdir()
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((128, 96)).save(
            folder / f"photos/{name}.jpg"
        )
        across, down = np.meshgrid(np.linspace(0, 1, 128), np.linspace(0, 1, 96))
        Image.fromarray((9000 - 3000 * (across + 2 * down)).astype(np.uint16)).save(folder / f"sensor/{name}.png")
    images = [{"id": n, "file_name": f"{name}.jpg", "width": 128, "height": 96} for n, name in enumerate(NAMES)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "bbox": [9, 9, 40, 30 + n]} for n in range(4)]
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "car"}]}
    (folder / "instances.json").write_text(json.dumps(coco))
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A street."}]
    chat = [{"id": name, "image": f"{name}.jpg", "conversations": turns} for name in NAMES]
    (folder / "chat.json").write_text(json.dumps(chat))
    model = shutil.copytree(workshop.base, folder / "llava-v1.5-7b")
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "llava", "mm_vision_tower": str(model / "vision_tower"), "mm_vision_select_layer": -1}
    (model / "config.json").write_text(json.dumps(config))
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = Dinov2Config(
        image_size=56, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, out_features=stages,
        reshape_hidden_states=False,
    )  # fmt: skip
    estimator = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, neck_hidden_sizes=[8, 16, 32, 32], fusion_hidden_size=16,
        head_hidden_size=8,
    )  # fmt: skip
    DepthAnythingForDepthEstimation(estimator).save_pretrained(folder / "estimator")
    DPTImageProcessor(size={"height": 56, "width": 56}, keep_aspect_ratio=False).save_pretrained(folder / "estimator")
    return folder


@pytest.fixture
def empty(things, tmp_path, monkeypatch):
    shutil.copytree(things, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_five_walks_of_at_most_ten_commands():
    assert len(WALKS) == 5
    assert all(1 < len(commands) <= 10 for commands in WALKS.values())


@pytest.mark.deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("title", WALKS)
def test_every_command_of_the_page_runs(title, empty, forked):
    if "how well it sees" in title:  # it goes on from the first walk
        make_depth(empty)
    for command in WALKS[title]:
        program, *arguments = shlex.split(command)
        if program == "bash":
            script, *flags = arguments
            done = forked(ROOT / script, *training_flags(flags, empty))
            continue
        assert program == "llava-aurora"
        small = next((shlex.split(more) for name, more in SMALL.items() if f" {name} " in command), [])
        done = llava_aurora(*arguments, *small, catch_exceptions=False)
        assert done.exit_code == 0, f"{command}\n{done.output[-3000:]}"
        if "view.html" in command:
            assert (empty / "view.html").stat().st_size > 10_000
    assert (empty / "street.answer.png").is_file()


def training_flags(flags, folder):
    """The page's flags with absolute paths, since runs are started from the root of the repository; and a tiny run."""
    absolute = [str(folder / flag) if (folder / flag).exists() or flag == "mine" else flag for flag in flags]
    tower = folder / "llava-v1.5-7b" / "vision_tower"
    tiny = {"vision_tower": tower, "mm_vision_select_layer": -1, "coordinate_frame": 56, "model_max_length": 512}
    tiny |= {"max_steps": 1, "per_device_train_batch_size": 2, "dataloader_num_workers": 0, "save_strategy": "no"}
    tiny |= {"deepspeed": "", "use_cpu": True, "bf16": False, "report_to": "none", "lora_r": 4}
    return [*absolute, *(part for name, value in tiny.items() for part in (f"--{name}", str(value)))]


def make_depth(folder):
    for path in (folder / "sensor").iterdir():
        with Image.open(path) as picture:
            near = 1 + (9000 - np.asarray(picture).astype(int)) // 40
        (folder / "photos_depth").mkdir(exist_ok=True)
        Image.fromarray(near.clip(1, 255).astype(np.uint8)).save(folder / "photos_depth" / path.name)
