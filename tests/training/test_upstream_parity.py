"""With every perception flag off, training is that of LLaVA without the plugin on the same libraries, bit for bit."""

import json
import re
import sys

import pytest
import torch
from safetensors.torch import load_file

from llava_aurora.compatibility import old_tower_names
from llava_aurora.model.writing import TOWER_PREFIX

pytestmark = pytest.mark.slow
UPSTREAM = "from llava.train.train import train; train(attn_implementation='sdpa')"
SCRIPT = "scripts/finetune_aurora.sh"


def test_losses_weights_and_tokenizer_are_upstreams(workshop, start, forked, tmp_path):
    upstream, ours = (
        workshop.flags(tmp_path / name, use_cpu=True, logging_nan_inf_filter=False, seed=7)
        for name in ("upstream", "ours")
    )
    runs = {"upstream": start(sys.executable, "-c", UPSTREAM, *upstream), "ours": forked(SCRIPT, *ours)}
    compared = ("loss", "grad_norm", "learning_rate")
    steps = {name: [[step[key] for key in compared] for step in run.losses] for name, run in runs.items()}
    assert len(steps["ours"]) == 4
    assert steps["ours"] == steps["upstream"]
    theirs, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("upstream", "ours"))
    theirs = old_tower_names(theirs, TOWER_PREFIX)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    vocabularies = [(tmp_path / name / "tokenizer_config.json").read_text() for name in ("upstream", "ours")]
    assert vocabularies[0] == vocabularies[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"perception_modalities": "depth"},
            "error: --depth_vqvae is missing, which --perception_modalities depth needs",
        ),
        ({"perception_modalities": "dept"}, "error: unknown token kind 'dept'; available: box, color, depth"),
        ({"data_path": "none.json"}, "error: --data_path none.json: no such file or folder"),
        (
            {"perception_modalities": "box", "coordinate_frame": 50},
            r"train.json: record 1 \(id 0/depth_chain\): turn 1: code 55",
        ),
        (
            {"image_folder": "no images", "dataloader_num_workers": 1},
            r"train.json: record \d+ .*: cannot read its image",
        ),
        ({"modality_options": "{"}, "error: --modality_options is not valid JSON"),
        ({"aux_losses": "answer=0.3"}, "error: --aux_losses needs a model with perception tokens"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_one(workshop, forked, tmp_path, changes, message):
    if "image_folder" in changes:  # files that no image is read from
        broken = tmp_path / changes["image_folder"]
        for record in json.loads(workshop.records.read_text()):
            (broken / record["image"]).parent.mkdir(parents=True, exist_ok=True)
            (broken / record["image"]).write_text("no image")
        changes = {**changes, "image_folder": broken}
    run = forked(SCRIPT, *workshop.flags(tmp_path / "out", use_cpu=True, **changes), code=1)
    (line,) = [line for line in run.output.splitlines() if line.startswith("error: ")]
    assert re.search(message, line), line
    assert "Traceback" not in run.output
