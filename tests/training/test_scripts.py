"""The training scripts in every form they can be started in, and what they say when they cannot train."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PORT = str(20000 + os.getpid() % 10000)  # other launches on this machine may hold the default one
SCRIPTS = ("finetune_aurora", "finetune_aurora_lora", "pretrain_aurora")


@pytest.mark.parametrize("name", [*SCRIPTS, "launch", "slurm_aurora"])
def test_bash_can_parse_it(name):
    (path,) = (ROOT / "scripts").glob(f"{name}.*")
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize(
    ("gpus", "environment", "count"),
    [
        (4, {}, "--num_gpus 4 "),
        (2, {"CUDA_VISIBLE_DEVICES": "2,3"}, ""),  # which DeepSpeed takes, where it is given no number
        (1, {"CUDA_VISIBLE_DEVICES": "MIG-1c2d"}, "--num_gpus 1 "),
        (2, {"CUDA_VISIBLE_DEVICES": "2,3", "NUM_GPUS": "1"}, "--num_gpus 1 "),
        (0, {"CUDA_VISIBLE_DEVICES": "0"}, "--num_gpus 1 "),
    ],
)
def test_the_gpus_that_are_named_are_trained_on(tmp_path, gpus, environment, count):
    (tmp_path / "bin").mkdir()
    for name, said in {"deepspeed": '"$@"', "python": f"{gpus} 1234"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\necho {said}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    others = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "NUM_GPUS")}
    run = subprocess.run(
        ["bash", ROOT / "scripts" / "finetune_aurora.sh", "--flag"],
        env={**others, **environment, "VIRTUAL_ENV": str(tmp_path), "MASTER_PORT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"{count}--master_port 1 {ROOT}/scripts/finetune_aurora.sh --flag\n"


@pytest.mark.parametrize("name", SCRIPTS)
def test_python_can_parse_it_and_both_can_run_it(name):
    path = ROOT / "scripts" / f"{name}.sh"
    compile(path.read_text(), path, "exec")
    assert os.access(path, os.X_OK)


@pytest.mark.parametrize(
    ("name", "flags", "absent"),
    [
        ("finetune_aurora", [], "--model_name_or_path and --data_path are missing"),
        ("finetune_aurora", ["--model_name_or_path", "base"], "--data_path is missing"),
        ("finetune_aurora_lora", [], "--data_path is missing"),
    ],
)
def test_what_is_missing_is_named_with_three_ways_to_start(start, name, flags, absent):
    run = start("python", f"scripts/{name}.sh", *flags, code=2)
    assert run.output.startswith(f"error: {absent}\n")
    for way in ("deepspeed scripts/finetune_aurora_lora.sh", "deepspeed scripts/finetune_aurora.sh", "scripts/demo.sh"):
        assert way in run.output
    assert run.output.endswith(f"All flags: bash scripts/{name}.sh --help\n")


def test_help_shows_examples_the_recipe_and_every_flag(start):
    run = start("./scripts/finetune_aurora_lora.sh", "--help")
    assert run.output.count("usage: ") == 1
    for part in ("Examples:", "torchrun", "--lora_r 128", "--curriculum VALUE", "--per_device_train_batch_size"):
        assert part in run.output
    places = [
        run.output.index(part)
        for part in ("Examples:", "flags of llava_aurora:", "--aux_losses VALUE", "flags of LLaVA")
    ]
    assert places == sorted(places)
    assert "option_strings" not in run.output


@pytest.mark.deepspeed
@pytest.mark.parametrize(("flags", "code", "said"), [([], 2, "are missing"), (["--help"], 0, "usage: ")])
def test_two_ranks_say_it_once(forked, flags, code, said):
    run = forked("scripts/finetune_aurora.sh", *flags, ranks=2, code=code)
    assert run.output.count(said) == 1


@pytest.mark.deepspeed
def test_two_ranks_name_a_missing_file_once(workshop, start, tmp_path):
    flags = workshop.flags(tmp_path / "out", image_folder=tmp_path / "none")
    run = start("deepspeed", "--num_gpus", 2, "--master_port", PORT, "scripts/finetune_aurora.sh", *flags, code=1)
    assert run.output.count(f"error: --image_folder {tmp_path / 'none'}: no such file or folder") == 1
    assert "Traceback" not in run.output


# --- Runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(workshop):
    """What the paper's recipe cannot know of the tiny model; everything else is the recipe's."""

    def flags(out: Path, **changes: object) -> list[str]:
        given = {
            "model_name_or_path": workshop.base,
            "data_path": workshop.records,
            "image_folder": workshop.images,
            "vision_tower": workshop.base / "vision_tower",
            "mm_vision_select_layer": -1,
            "model_max_length": 512,
            **workshop.perception_flags(),
            "curriculum": "",
            "lora_r": 8,
            "per_device_train_batch_size": 4,
            "max_steps": 2,
            "dataloader_num_workers": 0,
            "disable_tqdm": True,
            "output_dir": out,
            **changes,
        }
        return [f"--{name}={value}" for name, value in given.items() if value is not None]

    return flags


@pytest.mark.deepspeed
def test_the_papers_recipe_in_every_form_on_two_ranks(tiny, start, tmp_path):
    """deepspeed, bash and torchrun; from another working directory."""
    script = ROOT / "scripts" / "finetune_aurora_lora.sh"
    starts = {
        "deepspeed": (["deepspeed", "--num_gpus", 2, "--master_port", PORT, script], {}),
        "bash": (["bash", script], {"NUM_GPUS": "2", "MASTER_PORT": PORT}),
        "torchrun": (["torchrun", "--standalone", "--nproc_per_node", 2, script], {}),
    }
    losses = {}
    for name, (command, environment) in starts.items():
        out = tmp_path / f"llava-{name}-lora"
        command = ["env", "-C", tmp_path, *command, *tiny(out)]
        run = start(*command, **environment)
        assert run.output.count("recipe aurora_lora sets flags") == 1
        assert len(run.losses) == 2
        losses[name] = [step["loss"] for step in run.losses]
        assert (out / "adapter_model.safetensors").is_file() or (out / "adapter_model.bin").is_file()
        assert list(out.glob("runs/*/events*")), "TensorBoard is the default log"
    assert losses["deepspeed"] == losses["bash"] == losses["torchrun"]


@pytest.mark.deepspeed
def test_the_first_stage(workshop, tiny, start, tmp_path):
    out = tmp_path / "pretrain"
    flags = tiny(out, perception_modalities=None, depth_vqvae=None, coordinate_frame=None, curriculum=None, lora_r=None)
    run = start("torchrun", "--standalone", "--nproc_per_node", 2, "scripts/pretrain_aurora.sh", *flags)
    assert "recipe pretrain sets flags" in run.output
    assert (out / "mm_projector.bin").is_file()


# --- SLURM ------------------------------------------------------------------------------------------------------------

# One process stands for each of two nodes: srun runs its command once a node, as SLURM does with one task a node.
STUBS = {
    "srun": """
pids=()
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    output=/dev/stdout; ((node)) && output=$0.$node.log  # every node prints the losses; their lines would mix
    SLURM_NODEID=$node SLURM_PROCID=$node "$@" >"$output" 2>&1 & pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
""",
    "scontrol": '[[ "$1 $2" == "show hostnames" ]] && printf "localhost\\nlocalhost\\n"',
}


@pytest.mark.deepspeed
@pytest.mark.parametrize(("nodes", "ranks"), [(1, 2), (2, 1)])
def test_slurm_starts_the_recipe_on_every_node(tiny, start, tmp_path, nodes, ranks):
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in STUBS.items():
        (binaries / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (binaries / name).chmod(0o755)
    spooled = tmp_path / "slurm_script"  # SLURM runs a copy, from its own folder
    shutil.copy(ROOT / "scripts" / "slurm_aurora.sbatch", spooled)
    out = tmp_path / "llava-slurm-lora"
    environment = {
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_GPUS_ON_NODE": str(ranks),
    }
    path = f"PATH={binaries}:{os.environ['PATH']}"
    command = ["env", path, "bash", spooled, *tiny(out, report_to="none", save_steps=1)]
    run = start(*command, **environment)
    assert run.output.count("recipe aurora_lora sets flags") == 1
    assert len(run.losses) == 2
    assert (out / "non_lora_trainables.bin").is_file()
    if nodes == 1:  # queued again, as after a preemption in the second step
        shutil.rmtree(out / "checkpoint-2")
        again = start(*command, **environment)
        assert [step["epoch"] for step in again.losses] == [run.losses[1]["epoch"]]
