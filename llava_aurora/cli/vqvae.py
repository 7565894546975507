"""`llava-aurora vqvae …`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llava_aurora.cli.depth_options import CloserOption, UnknownOption, ValuesOption, checked_scale
from llava_aurora.cli.output import Commands, tell
from llava_aurora.cli.shared import Device, report_failures, usable_device
from llava_aurora.errors import AuroraError
from llava_aurora.listed import listed_numbers

app = Commands()


@app.command(
    "train",
    epilog="Examples: llava-aurora vqvae train depth_maps/ --out vqvae/  |  llava-aurora vqvae train depth_maps/ "
    "--out vqvae/ --resume  |  llava-aurora vqvae train depth_maps/ --out small/ --image-size 96 "
    "--channels 8,16,32,64 --code-dim 16 --batch-size 16 --learning-rate 1e-3",
)
def vqvae_train(
    maps: Annotated[Path, typer.Argument(help="Folder of relative depth maps (.png of 8 or 16 bits, .npy).")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the log and the state to resume from.")],
    values: ValuesOption = None,
    closer: CloserOption = None,
    unknown: UnknownOption = "",
    image_size: Annotated[int | None, typer.Option(help="Side of the frame in pixels.")] = None,
    channels: Annotated[str | None, typer.Option(help="Widths, one halving of the frame each: 16,32,64,...")] = None,
    code_dim: Annotated[int | None, typer.Option(help="Length of a code.")] = None,
    codebook_size: Annotated[int | None, typer.Option(help="Number of codes.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="In total, including those before a resume.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0)] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the state in --out, if any.")] = False,
    device: Device = None,
) -> None:
    """Train a depth VQ-VAE; default options are the paper's."""
    from llava_aurora.found_files import in_words
    from llava_aurora.vqvae.autoencoder import config_from_dict
    from llava_aurora.vqvae.training import train_depth_vqvae

    shape = {"image_size": image_size, "channels": channels, "code_dim": code_dim, "codebook_size": codebook_size}
    recipe = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    settings: dict[str, Any] = {name: value for name, value in shape.items() if value is not None}
    given: dict[str, Any] = {name: value for name, value in recipe.items() if value is not None}
    try:
        if channels is not None:
            settings["channels"] = listed_numbers(channels, "--channels", int)
        config = config_from_dict(settings)
    except ValueError as error:
        raise AuroraError(f"no VQ-VAE can have this shape: {error}") from error
    used = usable_device(device)
    scale, found = checked_scale(maps, values=values, closer=closer, unknown=unknown)
    trained = train_depth_vqvae(
        depth_maps=maps, out=out, scale=scale, config=config, resume=resume, device=used, **given
    )
    tell(out=out, maps=len(found.paths), epochs=[asdict(each) for each in trained.history])
    print(f"{out}: a VQ-VAE trained on {len(found.paths)} maps{in_words(found.passed_over)}")


@app.command(
    "encode",
    epilog="Examples: llava-aurora vqvae encode depth_maps/ --depth-vqvae vqvae/ --out codes.parquet --workers 4",
)
def vqvae_encode(
    maps: Annotated[Path, typer.Argument(help="Folder of relative depth maps (.png of 8 or 16 bits, .npy).")],
    vqvae: Annotated[Path, typer.Option("--depth-vqvae", "--vqvae", help="VQ-VAE folder, or a published .pt file.")],
    out: Annotated[Path, typer.Option(help="The file of codes to write, .parquet.")],
    values: ValuesOption = None,
    closer: CloserOption = None,
    unknown: UnknownOption = "",
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read maps.")] = 2,
    device: Device = None,
) -> None:
    """Turn a folder of depth maps into a file of codes; maps that cannot be used are listed, exit code 1."""
    import torch

    from llava_aurora.vqvae.checkpoint import load_depth_vqvae
    from llava_aurora.vqvae.folders import encode_folder

    scale, _ = checked_scale(maps, values=values, closer=closer, unknown=unknown)
    model = load_depth_vqvae(vqvae, device=usable_device(device))
    torch.backends.cudnn.allow_tf32 = False  # its ten bits would make other codes than a CPU does
    report = encode_folder(model=model, maps=maps, out=out, scale=scale, batch_size=batch_size, workers=workers)
    if report.seconds:
        print(f"{report.written / report.seconds:.1f} maps per second")
    report_failures(report.written, report.failures, out, report.passed_over)


@app.command(
    "decode",
    epilog="Examples: llava-aurora vqvae decode codes.parquet --depth-vqvae vqvae/ --out decoded/  |  "
    "llava-aurora vqvae decode codes.parquet --depth-vqvae vqvae/ --out decoded/ --height 480 --width 640",
)
def vqvae_decode(
    codes: Annotated[Path, typer.Argument(help="A file that `vqvae encode` wrote.")],
    vqvae: Annotated[Path, typer.Option("--depth-vqvae", "--vqvae", help="The VQ-VAE that the codes come from.")],
    out: Annotated[Path, typer.Option(help="Folder for the depth maps, 8-bit PNG.")],
    height: Annotated[int | None, typer.Option(min=1, help="Pixels; the VQ-VAE's frame if left out.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Pixels; the VQ-VAE's frame if left out.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    device: Device = None,
) -> None:
    """Turn a file of codes into depth maps; rows that cannot be used are listed, exit code 1."""
    from llava_aurora.vqvae.checkpoint import load_depth_vqvae
    from llava_aurora.vqvae.folders import decode_file

    model = load_depth_vqvae(vqvae, device=usable_device(device))
    size = (height or model.config.image_size, width or model.config.image_size)
    report = decode_file(model=model, codes=codes, out=out, size=size, batch_size=batch_size)
    report_failures(report.written, report.failures, out)
