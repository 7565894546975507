"""`doctor --gpu` in its tiny size: every check is made, and what breaks is a line with a remedy."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from llava_aurora.demo import launch
from llava_aurora.gpu import card as card_checks
from llava_aurora.gpu import checks, devices, training
from llava_aurora.gpu.checks import CHECKS, check_gpu
from llava_aurora.gpu.layer_stack import build_layer_stack, step_flops
from llava_aurora.gpu.setting import ANSWER, PLANNED_LENGTH, TINY, Setting, Verdict
from llava_aurora.model_sizes import SIZES, find_sizes
from llava_aurora.training.plan import estimate


@pytest.mark.slow
def test_every_check_in_the_tiny_size(forked, tmp_path, monkeypatch):
    """In this process, and training in one forked from a prepared one."""

    def run_training(command, *, log, description):
        script = next(number for number, word in enumerate(command) if word.endswith("train_layers.py"))
        finished = forked(*command[script:], ranks=1)
        assert finished.code == 0, finished.output[-3000:]

    monkeypatch.setattr(launch, "run_training", run_training)
    setting = Setting(tmp_path, True)
    found = {v.name: v for name in CHECKS if name != "communication" for v in CHECKS[name][0](setting)}
    assert states(found.values()) == {
        "device": "skipped",
        "VQ-VAE": "ok",
        "layers": "ok",
        "training, sdpa (chosen)": "ok",
        "memory, model FLOPs": "skipped",
        "generation, constrained": "ok",
        "generation, unconstrained": "ok",
        "training, eager (not chosen)": "ok",
    }
    assert "4 whole maps" in found["generation, constrained"].found
    took = json.loads((tmp_path / "sdpa.json").read_text())
    assert len(took["seconds"]) == len(took["losses"]) == training.STEPS
    # The plan counts what the optimizer holds to the byte, and the records are no longer than it was told.
    run = setting.run
    assert took["optimizer_bytes"] == estimate(run, training.zero3(run.model.hidden)).optimizer
    assert took["labels"] <= run.batch * ANSWER
    assert took["length"] + SIZES["7b"].vision.patches - TINY.vision.patches <= PLANNED_LENGTH


def test_layers_have_the_sizes_that_were_asked_for(tmp_path):
    build_layer_stack(tmp_path / "base", TINY, texts=["a map of the image"] * 9)
    assert find_sizes(str(tmp_path / "base")) == TINY.__class__(**{**vars(TINY), "name": "base"})


def test_a_step_multiplies_six_times_for_each_weight_and_token():
    """PaLM's count: 6 for a weight and token, and attention, of which the half below the diagonal is computed."""
    sizes, length = SIZES["7b"], 1024
    flops = step_flops(sizes, batch=2, length=length, labels=2 * length, new_tokens=0)
    weights = sizes.linear + sizes.hidden * sizes.vocabulary
    attention = 12 * sizes.layers * sizes.hidden * length / 2
    images = 2 * sizes.vision.patches * (6 * sizes.projector + 2 * sizes.vision.weights)
    assert flops == pytest.approx(2 * length * (6 * weights + attention) + images)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_peaks_go_by_name_and_an_unknown_one_is_none(name, tflops):
    assert devices.peak_flops(name) == (tflops and tflops * 1e12)


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "nvidia-smi"),
        ("CUDA error: no kernel image is available for execution on the device", "TORCH_VERSION"),
        ("The NVIDIA driver on your system is too old (found version 11040)", "update it"),
        ("OSError: libcudart.so.13: cannot open shared object file", "LD_LIBRARY_PATH"),
        ("MissingCUDAException: CUDA_HOME does not exist, unable to compile CUDA op(s)", "zero3.json"),
        ("torch.distributed.DistBackendError: NCCL error", "NCCL_DEBUG"),
        ("CUDA error: an illegal memory access was encountered", "CUDA_LAUNCH_BLOCKING"),
        ("ValueError: 3", ""),
    ],
)
def test_what_libraries_say_has_a_remedy(said, helps):
    assert helps in devices.remedy_for(said)
    assert bool(helps) == bool(devices.remedy_for(said))


@pytest.mark.parametrize(
    ("cuda", "environment", "reason"),
    [
        (None, {}, "without CUDA"),
        ("13.0", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES=''"),
        ("13.0", {"PATH": ""}, "no nvidia-smi"),
    ],
)
def test_without_a_gpu_the_reason_is_the_only_line(monkeypatch, cuda, environment, reason):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    said = []
    (verdict,) = check_gpu(report=said.append)
    assert said == [verdict]
    assert verdict.state == "failed"
    assert reason in verdict.found
    assert verdict.remedy


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A machine that says it had a card of this name, on which four layers of a 7B were chosen; it computes here."""

    def found(name, *, capability=(9, 0), free=140):
        for what, said in {
            **{"is_available": True, "get_device_name": name, "get_device_capability": capability, "device_count": 2},
            **{"mem_get_info": (free * 10**9, 150 * 10**9), "synchronize": None},
        }.items():
            monkeypatch.setattr(torch.cuda, what, lambda said=said: said)
        randn = torch.randn
        monkeypatch.setattr(torch, "randn", lambda *shape, device, **kind: randn(*shape, **kind))
        monkeypatch.setattr(card_checks, "PRODUCT", 8)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1c2d")
        monkeypatch.delenv("DS_ACCELERATOR", raising=False)
        (tmp_path / "run.json").write_text('{"layers": 4, "batch": 8}')
        return Setting(tmp_path, False)

    return found


def states(verdicts):
    return {verdict.name: verdict.state for verdict in verdicts}


@pytest.mark.parametrize(
    ("name", "more", "state"),
    [
        ("NVIDIA H200", {}, "ok"),
        ("NVIDIA H200", {"free": 60}, "warning"),
        ("Tesla V100-SXM2-16GB", {"capability": (7, 0)}, "failed"),
    ],
)
def test_a_card_is_described(card, name, more, state):
    found = list(card_checks.device(card(name, **more)))
    assert states(found)["device"] == state
    assert states(found)["DeepSpeed"] == "warning"  # of a launcher that reads no names of MIG slices
    assert f"2 × {name}" in found[0].found
    assert bool(found[0].remedy) == (state != "ok")
    product = next(verdict for verdict in found if verdict.name == "matrix product")
    assert ("of its peak" in product.found) == ("H200" in name)


def test_measurements_are_held_against_plan_and_peak(card):
    setting = card("NVIDIA H200")
    planned = estimate(replace(setting.run, length=700), training.zero3(4096))
    took = {"length": 700, "labels": 800, "seconds_a_step": 0.25, "optimizer_bytes": planned.optimizer}
    (memory,) = training._against_plan(setting, took | {"peak_bytes": planned.peak})
    assert memory.state == "ok"
    assert "1.00 × the plan's; optimizer 1.00 ×" in memory.found
    (memory,) = training._against_plan(setting, took | {"peak_bytes": 2 * planned.peak})
    assert memory.state == "warning"
    used, whole = training._utilisation(setting, took)
    flops = step_flops(setting.run.model, batch=8, length=700, labels=800, new_tokens=466)
    assert used.numbers["mfu"] == pytest.approx(flops / 0.25 / 989e12)
    assert whole.name == "extrapolated"
    assert 0.25 < whole.numbers["seconds_a_step"] < 0.25 * 8
    setting = card("NVIDIA H200 MIG 1g.18gb")
    unknown, _ = training._utilisation(setting, took)
    assert unknown.state == "skipped"
    assert "the peak of NVIDIA H200 MIG 1g.18gb is not known" in unknown.found


# What a check's process does, in place of the checks.
DIES = {
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": ("SIGSEGV", "the log"),
    "raise RuntimeError('CUDA error: out of memory')": ("RuntimeError: CUDA error: out of memory", "nvidia-smi"),
    "import time; time.sleep(60)": ("not done in 2 s", "NCCL_DEBUG"),
}


@pytest.mark.parametrize("program", DIES)
def test_a_check_that_dies_or_hangs_is_a_line(monkeypatch, tmp_path, program):
    begin = checks.subprocess.Popen
    monkeypatch.setattr(checks.subprocess, "Popen", lambda _, **how: begin([sys.executable, "-c", program], **how))
    found, helps = DIES[program]
    (verdict,) = checks._apart("communication", Setting(tmp_path, True), limit=2)
    assert verdict.state == "failed"
    assert found in str(verdict)
    assert helps in verdict.remedy


@pytest.mark.parametrize("fails", [False, True])
def test_of_a_temporary_folder_the_logs_of_a_failure_stay(monkeypatch, tmp_path, fails):
    def apart(name, setting, *, limit):
        (setting.work / f"{name}.log").touch()
        (setting.work / "base").mkdir(exist_ok=True)
        return [Verdict(name, "failed" if fails else "ok", "")]

    monkeypatch.setattr(checks, "_apart", apart)
    monkeypatch.setattr(checks.tempfile, "tempdir", str(tmp_path))
    check_gpu(tiny=True, report=lambda verdict: None)
    left = {path.name for folder in tmp_path.iterdir() for path in folder.iterdir()}
    assert left == ({"device.log", "communication.log", "vqvae.log", "layers.log"} if fails else set())


def test_what_follows_from_a_failed_check_is_skipped_by_name(monkeypatch, tmp_path):
    failing = {"layers": "failed", "training": "ok"}

    def apart(name, setting, *, limit):
        return [Verdict(name, failing.get(name, "ok"), "")]

    monkeypatch.setattr(checks, "_apart", apart)
    found = {verdict.name: verdict for verdict in check_gpu(work=tmp_path, tiny=True, report=lambda verdict: None)}
    assert [name for name, verdict in found.items() if verdict.state == "skipped"] == [
        "training",
        "generation",
        "other_kernel",
    ]
    assert found["other_kernel"].found == "needs what training makes"
