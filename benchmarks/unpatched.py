"""Steps of training by LLaVA as it was published, on transformers 4.37.2, beside ours with every perception flag off.

    LLAVA_AURORA_UPSTREAM_PYTHON=.venv-upstream/bin/python python benchmarks/unpatched.py
    … python benchmarks/unpatched.py --device cuda --bf16 --width 2048 --layers 22 --frame 336 --batch 16

Each is a run of its own as a user starts it, in one process without DeepSpeed, on the same weights and records; the
whole language model is trained. A step's time is that between two lines of the log. scripts/setup_upstream.sh makes the
environment of the first.
"""

import ast
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Parser, rate, report, times_as_fast
from training_setup import TrainingSetup, add_size_flags

ROOT = Path(__file__).resolve().parents[1]
THEIRS, OURS = "LLaVA as published", "ours, flags off"
WARM_UP = 3


def main() -> None:
    parser = Parser(__doc__)
    add_size_flags(parser)
    parser.number("--steps", 12, "that are counted")
    options = parser.options()
    python = os.environ.get("LLAVA_AURORA_UPSTREAM_PYTHON")
    if not python or not Path(python).is_file():
        sys.exit(f"LLAVA_AURORA_UPSTREAM_PYTHON is {python!r}, no Python; bash scripts/setup_upstream.sh makes one")
    scripts = {
        THEIRS: [python, "-I", str(ROOT / "tests" / "with_upstream" / "train_upstream.py")],
        OURS: [sys.executable, str(ROOT / "scripts" / "finetune_aurora.sh")],
    }
    seconds, losses = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        setup = TrainingSetup.build(Path(folder), options, generations=4 * options.batch, images=0)
        for way, script in scripts.items():
            flags = flags_of(setup, options, out=Path(folder) / "out")
            seconds[way], losses[way] = steps([*script, *flags], device=options.device)
    rows: list[dict[str, Any]] = [
        {"way": way, "seconds_a_step": 1 / rate(seconds[way], 1), "first_loss": losses[way][0], "losses": losses[way]}
        for way in scripts
    ]
    rows[1] |= times_as_fast(seconds, OURS, THEIRS)
    report("unpatched", rows, options)


def flags_of(setup: TrainingSetup, options: Any, *, out: Path) -> list[str]:
    flags = {
        "model_name_or_path": setup.base,
        "version": "v1",
        "data_path": setup.records,
        "image_folder": setup.folder / "images",
        "vision_tower": setup.base / "vision_tower",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -1,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "lazy_preprocess": True,
        "group_by_modality_length": True,  # the same order on both
        "bf16": options.bf16,
        "use_cpu": options.device == "cpu",
        "max_steps": WARM_UP + options.steps,
        "per_device_train_batch_size": options.batch,
        "learning_rate": 1e-5,
        "logging_steps": 1,
        "save_strategy": "no",
        "model_max_length": 2048,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 42,
        "output_dir": out,
    }
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def steps(command: list[str], *, device: str) -> tuple[list[float], list[float]]:
    """Seconds between the lines that a run logs its losses in, and the losses. Ends this script if the run fails."""
    # transformers would spread one process over all GPUs
    shown = "" if device == "cpu" else os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": shown}
    times, losses, lines = [], [], []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("{'loss'"):
                times.append(time.perf_counter())
                losses.append(float(ast.literal_eval(line)["loss"]))
    if process.returncode:
        sys.exit("\n".join([*lines[-15:], f"failed: {' '.join(command[:3])}"]))
    after = times[WARM_UP - 1 :]
    return [later - earlier for earlier, later in itertools.pairwise(after)], losses


if __name__ == "__main__":
    main()
