"""`llava-aurora data …`."""

from pathlib import Path
from typing import Annotated

import typer

from llava_aurora.cli import shared
from llava_aurora.cli.output import Commands, tell
from llava_aurora.cli.shared import record_writer, shares_of
from llava_aurora.listed import listed_numbers

app = Commands()


@app.command(
    epilog="Example: llava-aurora data scenes --out scenes --count 6000 --frame 112 --workers 2. "
    "Run again after an interruption to resume."
)
def scenes(
    out: Annotated[Path, typer.Option(help="Output folder; an unfinished one with the same settings is resumed.")],
    count: Annotated[int, typer.Option(help="How many scenes.")],
    seed: Annotated[int, typer.Option(help="Random seed of the scenes.")] = 0,
    frame: Annotated[int, typer.Option(help="Side of the square images in pixels.")] = 336,
    min_objects: Annotated[int, typer.Option(help="Minimum number of objects in a scene.")] = 1,
    max_objects: Annotated[int, typer.Option(help="Maximum number of objects in a scene.")] = 9,
    shadows: Annotated[bool, typer.Option("--shadows/--no-shadows", help="Objects cast shadows.")] = True,
    antialias: Annotated[bool, typer.Option("--antialias/--no-antialias", help="Smooth edges.")] = True,
    variety: Annotated[
        float, typer.Option(min=0, max=1, help="How much rooms and cameras differ; 0: not at all.")
    ] = 1.0,
    metric_depth: Annotated[bool, typer.Option("--metric-depth", help="Also write 16-bit depth in mm.")] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0 = one for each core.")] = 0,
) -> None:
    """Render rooms with named objects: images, exact depth maps, boxes."""
    import os

    from llava_aurora.data.sources.scenes.scene import SceneConfig
    from llava_aurora.data.sources.scenes.scene_folder import write_scenes

    config = SceneConfig(
        frame=frame,
        min_objects=min_objects,
        max_objects=max_objects,
        shadows=shadows,
        antialias=antialias,
        variety=variety,
    )
    workers = workers or os.cpu_count() or 1
    records = write_scenes(out=out, count=count, seed=seed, config=config, workers=workers, metric_depth=metric_depth)
    objects = sum(len(record.objects) for record in records)
    tell(out=out, scenes=len(records), objects=objects)
    print(f"{out}: {len(records)} scenes with {objects} objects; the list is {out / 'scenes.jsonl'}")


@app.command(
    "records",
    epilog="Examples: llava-aurora data records --scenes scenes/ --codes codes.parquet --depth-vqvae vq --out "
    "train.json  |  llava-aurora data records ... --tasks depth_generation=1,depth_chain=0.5 --prompts my_wording.json",
)
def scene_records(
    scenes: Annotated[Path, typer.Option(help="Folder of `data scenes`; also the --image_folder of training.")],
    codes: Annotated[Path, typer.Option(help="Its depth folder as codes, from `vqvae encode`.")],
    vqvae: Annotated[Path, typer.Option("--depth-vqvae", "--vqvae", help="The VQ-VAE that the codes come from.")],
    out: shared.RecordsOut,
    tasks: Annotated[str, typer.Option(help=shared.TASKS_HELP)] = "",
    points: shared.Points = "2,3,4,5",
    frame: shared.Frame = 336,
    plain_coordinates: shared.PlainCoordinates = False,
    prompts: shared.PromptsFile = None,
    one_height: shared.OneHeight = False,
    read_points: Annotated[
        int | None, typer.Option(help="Number of points of a depth_reading record; default: as in a question.")
    ] = None,
    mask_cells: shared.MaskCells = 8,
    seed: shared.Seed = 0,
) -> None:
    """Make questions about scenes: training records in LLaVA's JSON format."""
    from llava_aurora.data.sources.scenes.scene_records import DEFAULT_SHARES, SceneTasks, write_scene_records
    from llava_aurora.evaluation.blind import blind_scores
    from llava_aurora.tasks.annotated import Drawing
    from llava_aurora.tokens.mask import MaskKind
    from llava_aurora.tokens.vocabulary import color_family, depth_family
    from llava_aurora.vqvae.checkpoint import load_depth_vqvae
    from llava_aurora.vqvae.folders import read_codes

    model = load_depth_vqvae(vqvae)
    family = depth_family(codebook_size=model.config.codebook_size, codes_per_map=model.codes_per_map)
    masks = MaskKind(cells=mask_cells).family
    writer = record_writer(family, masks, color_family(), prompts=prompts, frame=frame, plain=plain_coordinates)
    asked = SceneTasks(
        shares=shares_of(tasks, DEFAULT_SHARES),
        drawing=Drawing(
            frame=frame, points=listed_numbers(points, "--points", int), one_height=one_height, read_points=read_points
        ),
        seed=seed,
    )
    known = read_codes(codes, model=model).codes
    records = write_scene_records(out, scenes=scenes, codes=known, writer=writer, tasks=asked)
    print(f"{out}: {len(records)} records; train with --image_folder {scenes}")
    blind = blind_scores(records, folder=scenes, frame=frame)
    tell(out=out, records=len(records), blind=list(map(str, blind)))
    print(*blind, sep="\n")
