"""`llava-aurora plan`, `merge` and `import`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llava_aurora.cli.output import Commands, tell
from llava_aurora.cli.shared import DType
from llava_aurora.errors import AuroraError
from llava_aurora.listed import listed, listed_numbers

app = Commands()
imports = Commands(no_args_is_help=True, help="Convert checkpoints of other projects.")
app.add_typer(imports, name="import")


@app.command(
    answers=True,
    epilog="Examples: llava-aurora plan --model 13b --gpus 8 --memory 48  |  "
    "llava-aurora plan --model checkpoints/mine --mode lora --lora-r 64 --gpus 2 --memory 24 --length 1024  |  "
    "llava-aurora plan --model 7b,13b,34b --gpus 8,64,512 --memory 80 --mode full",
)
def plan(
    model: Annotated[
        str, typer.Option(help="7b, 13b, 34b, or a checkpoint's folder (its config.json); several separated by commas.")
    ] = "13b",
    gpus: Annotated[str, typer.Option(help="Total number of GPUs; several separated by commas, one row each.")] = "8",
    memory: Annotated[float, typer.Option(min=1, max=10_000, help="GB of one GPU.")] = 48,
    mode: Annotated[
        Literal["full", "lora", "qlora", "projector"] | None, typer.Option(help="Default: the first three.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Records per GPU and step.")] = 16,
    length: Annotated[int, typer.Option(min=1, help="Tokens of the longest record, image tokens included.")] = 2048,
    answer: Annotated[int, typer.Option(min=1, help="Number of these tokens that belong to answers.")] = 512,
    lora_r: Annotated[int, typer.Option(min=1, help="Rank of LoRA.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=0, help="Perception tokens; depth and box have 466.")] = 466,
    train_base_vocabulary: Annotated[
        bool, typer.Option(help="Train the embeddings of the original vocabulary too, as the paper did.")
    ] = False,
    gradient_checkpointing: Annotated[bool, typer.Option(help="Recompute activations.")] = True,
    dtype: Annotated[Literal["bf16", "fp32"], typer.Option(help="Type of the weights.")] = "bf16",
) -> None:
    """Estimate memory per GPU and communication of a training run, and which settings fit."""
    from llava_aurora.model_sizes import find_sizes
    from llava_aurora.training.plan import Run
    from llava_aurora.training.plan_report import as_records, print_plan

    numbers = listed_numbers(gpus, "--gpus", int)
    if answer > length:
        raise AuroraError(f"--answer {answer}: more than the {length} tokens of the whole record (--length)")
    if min(numbers) < 1:
        raise AuroraError(f"--gpus {gpus}: at least 1")
    plans = [
        [
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
                gpus=numbers[0],
            )
            for name in ([mode] if mode else ["full", "lora", "qlora"])
        ]
        for sizes in map(find_sizes, listed(model))
    ]
    tell(runs=[record for runs in plans for record in as_records(runs, memory=memory, numbers=numbers)])
    for runs in plans:
        print_plan(runs, memory=memory, numbers=numbers)


@app.command(
    epilog="Examples: llava-aurora merge checkpoints/llava-aurora-13b-lora --out checkpoints/llava-aurora-13b  |  "
    "llava-aurora merge checkpoints/mine/checkpoint-400 --out merged  |  "
    "llava-aurora merge checkpoints/llava-13b-pretrain --base lmsys/vicuna-13b-v1.5 --out merged"
)
def merge(
    out: Annotated[Path, typer.Option(help="The folder to create.")],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL]", help="A folder with LoRA or projector weights, or one of its checkpoints."),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="The same as an option.")] = None,
    base: Annotated[str | None, typer.Option(help="Its base model, if it was moved.")] = None,
    dtype: DType = None,
) -> None:
    """Merge LoRA or projector weights with their base into one folder, which upstream LLaVA loads too."""
    source = model or folder
    if source is None or (model and folder):
        raise typer.BadParameter("give the model once, as MODEL or --model")
    import torch

    from llava_aurora.model.merge import merge as merge_folders

    merge_folders(source, out, base=base, dtype=getattr(torch, dtype) if dtype else None)
    tell(out=out)
    print(f"{out}: the merged model")


@imports.command(
    epilog="Example: llava-aurora import aurora aurora-release --base liuhaotian/llava-v1.5-13b --depth_vqvae vqvae.pt"
    " --out llava-aurora-13b"
)
def aurora(
    folder: Annotated[Path, typer.Argument(help="The checkpoint as released by AURORA's authors.")],
    out: Annotated[Path, typer.Option(help="The folder to create.")],
    base: Annotated[str | None, typer.Option(help="Its LLaVA base; default: the one in adapter_config.json.")] = None,
    depth_vqvae: Annotated[
        Path | None,
        typer.Option("--depth_vqvae", "--depth-vqvae", help="The VQ-VAE of its depth tokens, a .pt file or folder."),
    ] = None,
    frame: Annotated[int, typer.Option(min=1, help="Side of the frame of its coordinates, in pixels.")] = 336,
) -> None:
    """Make one whole folder of the LoRA weights that AURORA released: merged, with tokenizer, VQ-VAE and settings."""
    from llava_aurora.model.aurora_release import import_aurora

    import_aurora(folder, out, base=base, depth_vqvae=depth_vqvae, frame=frame)
    tell(out=out)
    print(f"{out}: the imported model")
