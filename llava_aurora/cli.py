"""`llava-aurora <verb>`: the commands, each a thin wrapper over one function of the package.

Heavy imports happen inside the commands, so that `--help` answers without loading torch.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from llava_aurora.errors import AuroraError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Perception tokens for LLaVA.")
vqvae_app = typer.Typer(no_args_is_help=True, help="Train the depth VQ-VAE; turn depth maps into codes and back.")
data_app = typer.Typer(no_args_is_help=True, help="Make training data.")
app.add_typer(vqvae_app, name="vqvae")
app.add_typer(data_app, name="data")


# --- LLaVA: patches and state -----------------------------------------------------------------------------------------


@app.command(
    epilog="Examples: llava-aurora patch --source ~/LLaVA  |  llava-aurora patch --source ~/LLaVA --check  |  "
    "llava-aurora patch --source .venv/lib/python3.11/site-packages --reverse"
)
def patch(
    source: Annotated[Path, typer.Option(help="The folder that contains llava/: a checkout or site-packages.")],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit code 1 unless all are applied.")] = False,
    reverse: Annotated[bool, typer.Option("--reverse", help="Take the patches out again.")] = False,
) -> None:
    """Put into LLaVA's source what it needs for current libraries. Twice is the same as once."""
    from llava_aurora import patch_queue

    if check and reverse:
        raise AuroraError("--check changes nothing and --reverse does; give one of them")
    if reverse:
        patch_queue.reverse(source)
    elif not check:
        patch_queue.apply(source)
    states = patch_queue.status(source)
    for each, state in states.items():
        print(f"{state.value:10}{each.name:32}{each.description}")
    missing = sum(state is not patch_queue.State.APPLIED for state in states.values())
    if check and missing:
        raise AuroraError(f"{source}: {missing} of {len(states)} patches are not applied")


@app.command(epilog="Example: llava-aurora doctor")
def doctor() -> None:
    """Show versions, patches, the attention kernel, devices and DeepSpeed; exit code 1 if something is amiss."""
    from llava_aurora.doctor import examine

    if not examine():
        raise AuroraError("this installation cannot train; run `bash scripts/setup.sh`")


# --- VQ-VAE -----------------------------------------------------------------------------------------------------------


@vqvae_app.command(
    "train",
    epilog="Examples: llava-aurora vqvae train depth_maps/ --out vqvae/  |  llava-aurora vqvae train depth_maps/ "
    "--out vqvae/ --resume  |  llava-aurora vqvae train depth_maps/ --out small/ --image-size 96 "
    "--channels 8,16,32,64 --code-dim 16 --batch-size 16 --learning-rate 1e-3",
)
def vqvae_train(
    maps: Annotated[Path, typer.Argument(help="Folder of relative depth maps (.png of 8 or 16 bits, .npy).")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the log and the state to resume from.")],
    image_size: Annotated[int | None, typer.Option(help="Side of the frame in pixels.")] = None,
    channels: Annotated[str | None, typer.Option(help="Widths, one halving of the frame each: 16,32,64,...")] = None,
    code_dim: Annotated[int | None, typer.Option(help="Length of a code.")] = None,
    codebook_size: Annotated[int | None, typer.Option(help="Number of codes.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="In all, those before a resume included.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0)] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the state in --out, if there is one.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Train a depth VQ-VAE; what is left out is as in the paper."""
    from llava_aurora.vqvae.autoencoder import config_from_dict
    from llava_aurora.vqvae.training import train_depth_vqvae

    shape = {"image_size": image_size, "channels": channels, "code_dim": code_dim, "codebook_size": codebook_size}
    recipe = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    settings: dict[str, Any] = {name: value for name, value in shape.items() if value is not None}
    given: dict[str, Any] = {name: value for name, value in recipe.items() if value is not None}
    try:
        if channels is not None:
            settings["channels"] = [int(width) for width in channels.split(",")]
        config = config_from_dict(settings)
    except ValueError as error:
        raise AuroraError(f"no VQ-VAE can have this shape: {error}") from error
    train_depth_vqvae(depth_maps=maps, out=out, config=config, resume=resume, device=_usable(device), **given)
    print(f"{out}: the VQ-VAE")


@vqvae_app.command(
    "encode",
    epilog="Example: llava-aurora vqvae encode depth_maps/ --vqvae vqvae/ --out codes.jsonl",
)
def vqvae_encode(
    maps: Annotated[Path, typer.Argument(help="Folder of relative depth maps (.png of 8 or 16 bits, .npy).")],
    vqvae: Annotated[Path, typer.Option(help="VQ-VAE folder, or a published .pt file.")],
    out: Annotated[Path, typer.Option(help="The file of codes to write: JSON lines.")],
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Turn a folder of depth maps into a file of codes; maps that cannot be used are listed, exit code 1."""
    from llava_aurora.vqvae.checkpoint import load_depth_vqvae
    from llava_aurora.vqvae.folders import encode_folder

    model = load_depth_vqvae(vqvae, device=_usable(device))
    report = encode_folder(model=model, maps=maps, out=out, batch_size=batch_size)
    _report_failures(report.written, report.failures, out)


@vqvae_app.command(
    "decode",
    epilog="Examples: llava-aurora vqvae decode codes.jsonl --vqvae vqvae/ --out decoded/  |  "
    "llava-aurora vqvae decode codes.jsonl --vqvae vqvae/ --out decoded/ --height 480 --width 640",
)
def vqvae_decode(
    codes: Annotated[Path, typer.Argument(help="A file that `vqvae encode` wrote.")],
    vqvae: Annotated[Path, typer.Option(help="The VQ-VAE that the codes come from.")],
    out: Annotated[Path, typer.Option(help="Folder for the depth maps, 8-bit PNG.")],
    height: Annotated[int | None, typer.Option(min=1, help="Pixels; the VQ-VAE's frame if left out.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Pixels; the VQ-VAE's frame if left out.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
) -> None:
    """Turn a file of codes into depth maps; lines that cannot be used are listed, exit code 1."""
    from llava_aurora.vqvae.checkpoint import load_depth_vqvae
    from llava_aurora.vqvae.folders import decode_file

    model = load_depth_vqvae(vqvae, device=_usable(device))
    size = (height or model.config.image_size, width or model.config.image_size)
    report = decode_file(model=model, codes=codes, out=out, size=size, batch_size=batch_size)
    _report_failures(report.written, report.failures, out)


def _usable(device: str) -> str:
    import torch

    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise AuroraError(f"--device {device}: not usable here: {str(error).splitlines()[0]}") from error
    return device


def _report_failures(written: int, failures: list[str], out: Path) -> None:
    """Prints what a command on many files did; exit code 1 if some failed, after all were tried."""
    print(f"{out}: {written} written, {len(failures)} failed")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)


# --- Data -------------------------------------------------------------------------------------------------------------


@data_app.command(
    epilog="Example: llava-aurora data scenes --out scenes --count 6000 --frame 112 --workers 2. "
    "Run again after an interruption: it goes on where it was."
)
def scenes(
    out: Annotated[Path, typer.Option(help="Folder to make; an unfinished one of the same settings is continued.")],
    count: Annotated[int, typer.Option(help="How many scenes.")],
    seed: Annotated[int, typer.Option(help="Another seed, other scenes.")] = 0,
    frame: Annotated[int, typer.Option(help="Side of the square images in pixels.")] = 336,
    min_objects: Annotated[int, typer.Option(help="Fewest objects in a scene.")] = 1,
    max_objects: Annotated[int, typer.Option(help="Most objects in a scene.")] = 9,
    shadows: Annotated[bool, typer.Option("--shadows/--no-shadows", help="Objects cast shadows.")] = True,
    antialias: Annotated[bool, typer.Option("--antialias/--no-antialias", help="Smooth edges.")] = True,
    textures: Annotated[bool, typer.Option("--textures/--no-textures", help="Surfaces have patterns.")] = True,
    metric_depth: Annotated[bool, typer.Option("--metric-depth", help="Also write 16-bit depth in mm.")] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0 = one for each core.")] = 0,
) -> None:
    """Render rooms with named objects: images, exact depth maps, boxes."""
    import os

    from llava_aurora.data.scene_folder import write_scenes
    from llava_aurora.data.scenes import SceneConfig

    config = SceneConfig(
        frame=frame,
        min_objects=min_objects,
        max_objects=max_objects,
        shadows=shadows,
        antialias=antialias,
        textures=textures,
    )
    workers = workers or os.cpu_count() or 1
    records = write_scenes(out=out, count=count, seed=seed, config=config, workers=workers, metric_depth=metric_depth)
    objects = sum(len(record.objects) for record in records)
    print(f"{out}: {len(records)} scenes with {objects} objects; the list is {out / 'scenes.jsonl'}")


@data_app.command(
    "records",
    epilog="Examples: llava-aurora data records --scenes scenes/ --codes codes.jsonl --vqvae vq/ --out train.json  |  "
    "llava-aurora data records ... --tasks depth_generation=1,depth_chain=0.5 --prompts my_wording.json",
)
def scene_records(
    scenes: Annotated[Path, typer.Option(help="Folder of `data scenes`; also the --image_folder of training.")],
    codes: Annotated[Path, typer.Option(help="Its depth folder as codes, from `vqvae encode`.")],
    vqvae: Annotated[Path, typer.Option(help="The VQ-VAE that the codes come from.")],
    out: Annotated[Path, typer.Option(help="The JSON file to write: the --data_path of training.")],
    tasks: Annotated[str, typer.Option(help="task=records a scene, with commas; all once if left out.")] = "",
    points: Annotated[str, typer.Option(help="Allowed numbers of points in a question.")] = "2,3,4,5",
    frame: Annotated[int, typer.Option(help="Side of the frame that coordinates refer to.")] = 336,
    plain_coordinates: Annotated[bool, typer.Option("--plain-coordinates", help="Numbers instead of tokens.")] = False,
    prompts: Annotated[Path | None, typer.Option(help="JSON file of your own wording.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything drawn at random.")] = 0,
) -> None:
    """Ask questions of scenes: training records in LLaVA's JSON format."""
    from llava_aurora.data.prompts import Prompts
    from llava_aurora.data.records import RecordWriter
    from llava_aurora.data.scene_records import DEFAULT_SHARES, SceneTasks, write_scene_records
    from llava_aurora.vocabulary import depth_family, pixel_family
    from llava_aurora.vqvae.checkpoint import load_depth_vqvae
    from llava_aurora.vqvae.folders import read_codes

    model = load_depth_vqvae(vqvae)
    try:
        shares = {name: float(share) for name, share in (part.split("=") for part in tasks.split(",") if part)}
        counts = [int(count) for count in points.split(",")]
    except ValueError as error:
        raise AuroraError(f"--tasks is name=share,… and --points is number,…: {error}") from error
    writer = RecordWriter(
        prompts=Prompts.load(prompts) if prompts else Prompts(),
        depth=depth_family(codebook_size=model.config.codebook_size, codes_per_map=model.codes_per_map),
        pixels=None if plain_coordinates else pixel_family(frame=frame),
    )
    asked = SceneTasks(shares=shares or DEFAULT_SHARES, points=counts, coordinate_frame=frame, seed=seed)
    known = read_codes(codes, model=model).codes
    records = write_scene_records(out, scenes=scenes, codes=known, writer=writer, tasks=asked)
    print(f"{out}: {len(records)} records; train with --image_folder {scenes}")


# --- Training ---------------------------------------------------------------------------------------------------------


@app.command(
    epilog="Examples: llava-aurora plan --model 13b --gpus 8 --memory 48  |  "
    "llava-aurora plan --model checkpoints/mine --mode lora --lora-r 64 --gpus 2 --memory 24 --length 1024"
)
def plan(
    model: Annotated[str, typer.Option(help="7b, 13b, 34b, or the folder of a checkpoint (its config.json).")] = "13b",
    gpus: Annotated[int, typer.Option(min=1, help="How many, in all.")] = 8,
    memory: Annotated[float, typer.Option(min=1, help="GB of one GPU.")] = 48,
    mode: Annotated[
        str | None, typer.Option(help="full, lora, qlora or projector; the first three if left out.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Records a GPU and step.")] = 16,
    length: Annotated[int, typer.Option(min=1, help="Tokens of the longest record, image tokens included.")] = 2048,
    answer: Annotated[int, typer.Option(min=1, help="Those of them that are answers.")] = 512,
    lora_r: Annotated[int, typer.Option(min=1, help="Rank of LoRA.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=0, help="Perception tokens; depth and box have 466.")] = 466,
    train_base_vocabulary: Annotated[bool, typer.Option(help="Train the words' rows too, as the paper did.")] = False,
    gradient_checkpointing: Annotated[bool, typer.Option(help="Recompute activations.")] = True,
    dtype: Annotated[str, typer.Option(help="bf16 or fp32.")] = "bf16",
) -> None:
    """Show how much memory a training run needs on each GPU, what fits, and with which flags."""
    from llava_aurora.training.model_sizes import Run, find_sizes
    from llava_aurora.training.plan import print_plan

    if dtype not in ("bf16", "fp32"):
        raise AuroraError(f"--dtype {dtype}: there are bf16 and fp32")
    sizes = find_sizes(model)
    runs = [
        Run(
            model=sizes,
            mode=name,
            lora_r=lora_r,
            new_tokens=new_tokens,
            whole_vocabulary=train_base_vocabulary,
            batch=batch,
            length=length,
            answer=answer,
            checkpointing=gradient_checkpointing,
            element=2 if dtype == "bf16" else 4,
            gpus=gpus,
        )
        for name in ([mode] if mode else ["full", "lora", "qlora"])
    ]
    print_plan(runs, memory=memory)


# --- The demo ---------------------------------------------------------------------------------------------------------


@app.command(epilog="Examples: llava-aurora demo  |  llava-aurora demo --preset smoke --out smoke_output")
def demo(
    out: Annotated[Path, typer.Option(help="Output folder; a demo that was stopped goes on there.")] = Path(
        "demo_output"
    ),
    preset: Annotated[
        str, typer.Option(help="demo: ten minutes on two cores. smoke: a minute, learns nothing.")
    ] = "demo",
) -> None:
    """From nothing to a model that writes depth maps as tokens: scenes, VQ-VAE, fine-tuning, report and pictures."""
    from llava_aurora.demo.pipeline import Demo

    Demo(name=preset, out=out).run()


def main() -> None:
    """Entry point: an AuroraError ends in one line on stderr and exit code 1."""
    try:
        app()
    except AuroraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
