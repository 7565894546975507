"""Unpatched LLaVA loads what is trained here, and what it saves is loaded here: the same weights, logits and tokens.

Bit for bit, with CLIP's eager attention and heads whose 1/sqrt(width) is a power of two. Both sides run the same torch
with as many threads on weights rounded once to half precision, in float32.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from llava.mm_utils import tokenizer_image_token
from safetensors.torch import load_file, save_file

from llava_aurora import load_pretrained_model, patch_queue
from llava_aurora.compatibility import old_tower_names
from llava_aurora.model.merge import merge
from llava_aurora.model.writing import TOWER_PREFIX, write_merged_folder
from llava_aurora.tokens.vocabulary import depth_family, pixel_family

PYTHON = os.environ.get("LLAVA_AURORA_UPSTREAM_PYTHON")
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(PYTHON is None, reason="needs unpatched LLaVA: bash scripts/test.sh --with-upstream"),
]
FRAME, CODES = 56, (3, 1, 4, 1, 5, 9, 2, 6, 5)
TOWER = "model.vision_tower."

PROMPTS = {
    "text": "USER: Which point is closer to the camera? ASSISTANT:",
    "image": "USER: <image>\nWhich point is closer to the camera? ASSISTANT:",
}
DEPTH_SPAN = depth_family(codebook_size=16, codes_per_map=len(CODES)).text(CODES)
BOX_SPAN = pixel_family(frame=FRAME).text((1, 2, 30, 40))
PERCEPTION_PROMPTS = {
    "depth": f"USER: <image>\nWhich point is closer? ASSISTANT: The depth map is {DEPTH_SPAN}. So",
    "box": f"USER: <image>\nHow many red cubes? ASSISTANT: One is at {BOX_SPAN}",
}


@dataclass(frozen=True)
class Upstream:
    """What unpatched LLaVA made of a folder; see run_upstream.py."""

    report: dict[str, Any]
    outputs: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]


@pytest.fixture
def ask_upstream(start, tmp_path):
    """Has unpatched LLaVA load a folder and continue the prompts."""

    def ask(folder: Path, prompts: dict[str, str], *options: object) -> Upstream:
        exchange = tmp_path / "exchange"
        exchange.mkdir()
        (exchange / "prompts.json").write_text(json.dumps(prompts))
        save_file(pixels(prompts), exchange / "pixels.safetensors")
        model = tmp_path / "llava"  # the loader goes by the folder's name
        model.symlink_to(folder)
        script = Path(__file__).with_name("run_upstream.py")
        threads = str(torch.get_num_threads())
        start(PYTHON, "-I", script, model, exchange, *options, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS=threads)
        return Upstream(
            json.loads((exchange / "report.json").read_text()),
            load_file(exchange / "outputs.safetensors"),
            load_file(exchange / "weights.safetensors"),
        )

    return ask


def pixels(prompts: dict[str, str]) -> dict[str, torch.Tensor]:
    """A random image for each prompt that has one."""
    random = torch.Generator().manual_seed(0)
    names = [name for name, prompt in prompts.items() if "<image>" in prompt]
    return {name: torch.randn(1, 3, FRAME, FRAME, generator=random) for name in names}


@torch.no_grad()
def assert_the_same(folder: Path, upstream: Upstream, prompts: dict[str, str], *, attention: str = "sdpa") -> None:
    """What our loader makes of a folder is what unpatched LLaVA has made of it."""
    tokenizer, model, processor, length = load_pretrained_model(str(folder), device="cpu", torch_dtype=torch.float16)
    model.float().set_attn_implementation(attention)
    # transformers 4.37 has no other attention for CLIP; torch's own adds up in another order (7e-7 in these logits).
    model.get_vision_tower().vision_tower.set_attn_implementation("eager")
    report = upstream.report
    assert (len(tokenizer), length) == (report["tokenizer_length"], report["context_length"])
    assert dict(processor.crop_size) == report["crop_size"]

    weights = old_tower_names(model.state_dict(), TOWER_PREFIX)
    assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in upstream.weights.items()}
    assert [name for name, weight in weights.items() if not torch.equal(weight, upstream.weights[name])] == []

    images = pixels(prompts)
    for name, prompt in prompts.items():
        theirs = {kind: upstream.outputs[f"{name}.{kind}"] for kind in ("ids", "logits", "greedy")}
        ids = tokenizer_image_token(prompt, tokenizer, return_tensors="pt").unsqueeze(0)
        assert ids.tolist() == theirs["ids"].tolist(), name
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), images=images.get(name)).logits
        assert torch.equal(logits, theirs["logits"]), (name, (logits - theirs["logits"]).abs().max())
        bos, *answer = theirs["greedy"][0].tolist()  # only transformers 4.37 begins with it
        free = {"do_sample": False, "max_new_tokens": 24, "constrained": False}
        greedy = model.generate(ids, images=images.get(name), **free)
        assert bos == report["bos_token_id"], name
        assert greedy[0].tolist() == answer, name
        assert len(answer) > 1, name


def assert_all_is_known(upstream: Upstream, *, trained_here: bool) -> None:
    """Upstream misses nothing; left over is only what its own train() leaves too: the tower has a folder of its own."""
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        assert upstream.report[kind] == [], kind
    tower = sorted(name for name in upstream.weights if name.startswith(TOWER))
    assert upstream.report["unexpected_keys"] == (tower if trained_here else [])


def assert_reads_tokens(upstream: Upstream) -> None:
    """Its tokenizer knows the perception tokens: their ids are the last 74, 18 for depth and 56 for coordinates."""
    for name in PERCEPTION_PROMPTS:
        assert upstream.outputs[f"{name}.ids"].max() >= upstream.report["tokenizer_length"] - 74, name


@pytest.fixture(scope="session")
def untaught(workshop, start, tmp_path_factory) -> Path:
    """A model trained here with every perception flag off."""
    out = tmp_path_factory.mktemp("untaught") / "llava"
    start(sys.executable, "scripts/finetune_aurora.sh", *workshop.flags(out, use_cpu=True))
    return out


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_ordinary_llava_gives_unpatched_llavas_numbers(workshop, ask_upstream, attention):
    upstream = ask_upstream(workshop.base, PROMPTS, "--attention", attention)
    assert_all_is_known(upstream, trained_here=False)
    assert_the_same(workshop.base, upstream, PROMPTS, attention=attention)


def test_what_unpatched_llava_saves_is_loaded_here(workshop, ask_upstream, tmp_path):
    saved = tmp_path / "saved"
    upstream = ask_upstream(workshop.base, PROMPTS, "--save", saved)
    assert len(list(saved.glob("pytorch_model-*.bin"))) > 1
    assert_the_same(saved, upstream, PROMPTS)


def test_rotary_embeddings_of_another_base_survive(workshop, ask_upstream, tmp_path):
    """transformers 5 writes their settings under another name, which LLaVA as published does not read."""
    changed = tmp_path / "changed"
    shutil.copytree(workshop.base, changed)
    config = json.loads((changed / "config.json").read_text())
    config.pop("rope_parameters", None)
    scaling = {"type": "linear", "factor": 2.0}
    (changed / "config.json").write_text(json.dumps(config | {"rope_theta": 300.0, "rope_scaling": scaling}))
    tokenizer, model, _, _ = load_pretrained_model(str(changed), device="cpu")
    write_merged_folder(tmp_path / "saved", model=model, tokenizer=tokenizer)
    written = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (written["rope_theta"], written["rope_scaling"]["factor"]) == (300.0, 2.0)
    assert_the_same(tmp_path / "saved", ask_upstream(tmp_path / "saved", PROMPTS), PROMPTS)


@pytest.mark.slow
def test_a_model_trained_without_tokens_is_loaded_by_unpatched_llava(untaught, ask_upstream):
    upstream = ask_upstream(untaught, PROMPTS)
    assert_all_is_known(upstream, trained_here=True)
    assert_the_same(untaught, upstream, PROMPTS)


@pytest.mark.deepspeed
def test_a_model_with_tokens_and_a_trained_tower_is_loaded_by_unpatched_llava(finetuned, workshop, ask_upstream):
    prompts = PROMPTS | PERCEPTION_PROMPTS
    upstream = ask_upstream(finetuned[0], prompts)
    assert_all_is_known(upstream, trained_here=True)
    assert_the_same(finetuned[0], upstream, prompts)
    trained = {name: w for name, w in load_file(finetuned[0] / "model.safetensors").items() if name.startswith(TOWER)}
    assert all(torch.equal(upstream.weights[name], weight.half().float()) for name, weight in trained.items())
    base = load_file(workshop.base / "vision_tower" / "model.safetensors")
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(upstream.weights[f"{TOWER}vision_tower.{name}"], base[name].half().float())
    assert_reads_tokens(upstream)


@pytest.mark.deepspeed
def test_a_merged_lora_with_tokens_is_loaded_by_unpatched_llava(finetuned_lora, ask_upstream, tmp_path):
    merged = merge(finetuned_lora[0], tmp_path / "merged")
    prompts = PROMPTS | PERCEPTION_PROMPTS
    upstream = ask_upstream(merged, prompts)
    assert_all_is_known(upstream, trained_here=True)
    assert_the_same(merged, upstream, prompts)
    assert_reads_tokens(upstream)


@pytest.mark.deepspeed
@pytest.mark.parametrize("stage", ["frozen", "again", "last"])
def test_each_stage_of_a_tower_is_loaded_by_unpatched_llava(tower_stages, ask_upstream, tmp_path, stage):
    merged = merge(tower_stages[stage], tmp_path / "merged")
    prompts = PROMPTS | PERCEPTION_PROMPTS
    upstream = ask_upstream(merged, prompts)
    assert_the_same(merged, upstream, prompts)
    for name, weight in load_file(tower_stages[stage] / "vision_tower" / "model.safetensors").items():
        assert torch.equal(upstream.weights[f"{TOWER}vision_tower.{name}"], weight.half().float()), name


def test_the_other_side_is_llava_as_published(workshop, ask_upstream):
    report = ask_upstream(workshop.base, {"text": PROMPTS["text"]}).report
    assert not report["finds_llava_aurora"]
    assert report["versions"] == {"llava-torch": "1.2.2.post1", "transformers": "4.37.2", "torch": version("torch")}
    assert set(patch_queue.status(report["packages"]).values()) == {patch_queue.State.PENDING}
