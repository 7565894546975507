"""`llava-aurora export` and `grammar`: a trained model, and the grammar of its answers, for other engines."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llava_aurora.cli.output import Commands, tell
from llava_aurora.cli.shared import DType
from llava_aurora.errors import AuroraError

app = Commands()


@app.command(
    epilog="Examples: llava-aurora export --model checkpoints/llava-aurora-13b-lora --out exported  |  "
    "llava-aurora export --model checkpoints/mine --out exported --dtype bfloat16  |  "
    "llava-aurora export --model moved --format llava --out for-llava"
)
def export(
    model: Annotated[Path, typer.Option(help="A folder that training wrote: whole, merged, LoRA or projector.")],
    out: Annotated[Path, typer.Option(help="The folder to create.")],
    format: Annotated[
        Literal["hf", "llava"],
        typer.Option(
            help="hf: transformers' own LLaVA, which vLLM and SGLang read too. llava: LLaVA's own, also for a folder"
            " that was moved and whose trained vision tower LLaVA no longer finds."
        ),
    ] = "hf",
    base: Annotated[str | None, typer.Option(help="The base of LoRA or projector, if it was moved.")] = None,
    dtype: DType = None,
    conversation: Annotated[
        str, typer.Option(help="LLaVA's template that it was trained with; --version v1 is vicuna_v1.")
    ] = "vicuna_v1",
) -> None:
    """Export a trained model for other engines, with LoRA merged, tokens and VQ-VAE included."""
    import torch

    from llava_aurora.export.hugging_face import export_hugging_face
    from llava_aurora.model.merge import merge

    weights = getattr(torch, dtype) if dtype else None
    if format == "llava":
        merge(model, out, base=base, dtype=weights)
    else:
        export_hugging_face(model, out, base=base, dtype=weights, conversation=conversation)
    tell(out=out)
    print(f"{out}: the exported model")


@app.command(
    answers=True,
    epilog="Examples: llava-aurora grammar --model exported --format ebnf > spans.ebnf  |  "
    "llava-aurora grammar --model checkpoints/mine --format regex --task depth_chain",
)
def grammar(
    model: Annotated[Path, typer.Option(help="A trained model's folder, ours or an exported one.")],
    format: Annotated[
        Literal["regex", "ebnf"], typer.Option(help="regex: to be matched in full; ebnf: GBNF, for xgrammar.")
    ] = "ebnf",
    task: Annotated[
        str | None, typer.Option(help="Prescribe the whole answer of this task, such as depth_chain.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="The wording of that answer: the JSON file that records were written with.")
    ] = None,
) -> None:
    """Print the grammar of what a model may answer: text, and well-formed spans of perception tokens in it."""
    if prompts is not None and task is None:
        raise AuroraError("--prompts needs --task, whose answer it words")
    from llava_aurora.generation.grammar import grammar_of_model
    from llava_aurora.tasks.prompts import Prompts

    wording = Prompts.load(prompts) if prompts is not None else None
    written = grammar_of_model(model, notation=format, task=task, prompts=wording).rstrip("\n")
    tell(grammar=written)
    print(written)
