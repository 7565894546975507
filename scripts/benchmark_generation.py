"""Answers a second: in batches against one at a time, with and without the constraint, maps in one pass against greedy.

    python scripts/benchmark_generation.py                                        # the demo's size, random weights
    python scripts/benchmark_generation.py --width 512 --layers 8 --questions 16
    python scripts/benchmark_generation.py --model demo_output/work/model         # a trained one

Rendered scenes are asked which of some points is closest, with the answer written as a chain. Without --model a LLaVA
with random weights is built in a temporary folder, with a tokenizer of its own and the demo's tokens. All ways take
turns; shown are medians over rounds, a ratio is taken within its round. The last line is JSON.

    times as fast   than the way under "than"; above 1 is faster
    same answers    share of answers with the very ids of that way's. Batches and "verified" have to give all of them;
                    "parallel" takes a map as it is after one pass and may differ
    forced          every answer has exactly as many new tokens, so that both ways do the same work

"Verified" and "parallel" are left out with models that were not trained with --span_mask_probability.

Example: python scripts/benchmark_generation.py --model demo_output/work/model --batch 16 --questions 32 --threads 2
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import side_by_side
import torch
from PIL import Image

from llava_aurora.batches import batches
from llava_aurora.data.prompts import Prompts
from llava_aurora.data.records import RecordWriter
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.data.sources.scenes.scene_records import SceneTasks, write_scene_records
from llava_aurora.demo.pipeline import HELD_OUT_TASKS
from llava_aurora.demo.presets import PRESETS
from llava_aurora.demo.stages import build_base
from llava_aurora.evaluation.outcomes import question
from llava_aurora.generation.drafts import Phrases, wording_of
from llava_aurora.generation.generate import Answer, generate
from llava_aurora.generation.span_decoding import Mode, SpanDecoder
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.tokens import TokenKind
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.vqvae.autoencoder import build_depth_vqvae
from llava_aurora.vqvae.folders import encode_folder, read_codes

ONE = "one at a time"
TASK = "depth_chain_from_coordinates"
RANDOM_MODELS_TOKENS = 64  # a random model does not know when to end


@dataclass(frozen=True)
class Way:
    """How questions are asked.

    Attributes:
        batch: questions at once.
        than: the way that it is compared with; None of those that are only compared with.
        exact: whether its answers have to be that way's; None if there is nothing to compare.
        forced: new tokens of every answer.
        mode: of decoding in few passes; None is greedy.
    """

    batch: int
    than: str | None = None
    exact: bool | None = None
    forced: int | None = None
    constrained: bool = True
    mode: Mode | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint with depth and box tokens; random weights if left out")
    parser.add_argument("--width", type=int, default=128, help="of the random model")
    parser.add_argument("--layers", type=int, default=3, help="of the random model")
    parser.add_argument("--questions", type=int, default=16, help="a round")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        help=f"an answer; {RANDOM_MODELS_TOKENS} for random weights, and what the context leaves for --model",
    )
    parser.add_argument("--forced-tokens", type=int, default=64, help="new tokens where their number is forced")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; torch's own number if left out")
    options = parser.parse_args()
    numbers = (options.questions, options.batch, options.rounds, options.forced_tokens, options.layers)
    if min(numbers) < 1 or (options.max_new_tokens is not None and options.max_new_tokens < 1):
        parser.error("numbers of questions, tokens, rounds and layers are at least 1")
    if options.width < 32 or options.width % 32:
        parser.error("--width is a multiple of 32")  # four heads of whole eights
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.model is None and options.max_new_tokens is None:
        options.max_new_tokens = RANDOM_MODELS_TOKENS

    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            loaded, asked = random_model(Path(folder), options)
        else:
            loaded = load_pretrained_model(options.model, device=options.device)
            perception = loaded[1].perception
            if perception is None or not {"depth", "box"} <= set(perception.kinds):
                parser.error(f"--model {options.model}: needs depth and box tokens")
            asked = questions(Path(folder), perception.kinds, count=options.questions)
        ways, left_out = ways_of(loaded[1], options)
        results = compare(loaded, asked, ways, options)
    show(results, left_out, title=f"{options.questions} questions, {options.device}")
    side_by_side.print_json(
        "generation",
        model=options.model or f"random, width {options.width}, {options.layers} layers",
        parameters=sum(weight.numel() for weight in loaded[1].parameters()),
        task=TASK,
        questions=options.questions,
        batch=options.batch,
        rounds=options.rounds,
        max_new_tokens=options.max_new_tokens,
        forced_tokens=options.forced_tokens,
        device=options.device,
        ways=results,
        left_out=left_out,
    )


# --- what is asked ----------------------------------------------------------------------------------------------------


def write_records(folder: Path, kinds: dict[str, TokenKind], *, count: int) -> list[dict[str, Any]]:
    """Records of so many rendered scenes, in folder/records.json; their images lie in folder/scenes."""
    depth, box = kinds["depth"], kinds["box"]
    assert isinstance(depth, DepthKind)
    assert isinstance(box, BoxKind)
    preset = PRESETS["demo"]
    scenes = folder / "scenes"
    write_scenes(out=scenes, count=count, seed=preset.seed + 1, config=replace(preset.scene, frame=box.frame))
    encode_folder(model=depth.vqvae, maps=scenes / "depth", out=folder / "codes.jsonl")
    return write_scene_records(
        folder / "records.json",
        scenes=scenes,
        codes=read_codes(folder / "codes.jsonl", model=depth.vqvae).codes,
        writer=RecordWriter(prompts=Prompts.plain(), depth=depth.family, pixels=box.family),
        tasks=SceneTasks(
            shares=dict.fromkeys(HELD_OUT_TASKS, 1.0), points=preset.points, coordinate_frame=box.frame, seed=1
        ),
    )


def questions(folder: Path, kinds: dict[str, TokenKind], *, count: int) -> list[tuple[Image.Image, str]]:
    """Images and what is asked about them."""
    records = [r for r in write_records(folder, kinds, count=count) if r["aurora"]["task"] == TASK]
    return [(Image.open(folder / "scenes" / record["image"]).convert("RGB"), question(record)) for record in records]


def random_model(folder: Path, options: argparse.Namespace) -> tuple[Any, list[tuple[Image.Image, str]]]:
    """A LLaVA of the demo's kind with random weights and the demo's tokens, and the questions."""
    preset = PRESETS["demo"]
    config = replace(preset.model, width=options.width, layers=options.layers)
    kinds: dict[str, TokenKind] = {
        "depth": DepthKind(vqvae=build_depth_vqvae(preset.vqvae)),
        "box": BoxKind(frame=config.frame),
    }
    asked = questions(folder, kinds, count=options.questions)
    families = tuple(kind.family for kind in kinds.values())
    build_base(folder / "base", records=folder / "records.json", families=families, config=config, seed=0)
    loaded = load_pretrained_model(str(folder / "base"), device=options.device)
    tokenizer, model = loaded[:2]
    perception = PerceptionTokens.teach(tokenizer, kinds)
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.attach_perception(perception)
    return loaded, asked


# --- how --------------------------------------------------------------------------------------------------------------


def ways_of(model: Any, options: argparse.Namespace) -> tuple[dict[str, Way], dict[str, str]]:
    """What takes turns, by name; and what is left out, with the reason."""
    many, forced = f"batch {options.batch}", options.forced_tokens
    free = f"{many}, {forced} tokens forced, unconstrained"
    ways = {
        ONE: Way(1),
        many: Way(options.batch, than=ONE, exact=True),
        free: Way(options.batch, forced=forced, constrained=False),
        f"{many}, {forced} tokens forced, constrained": Way(options.batch, than=free, forced=forced),
    }
    modes: tuple[Mode, ...] = ("verified", "parallel")
    if not model.writes_spans_in_one_pass:
        return ways, dict.fromkeys(modes, "the model was not trained with --span_mask_probability")
    for mode in modes:
        for name, batch in ((ONE, 1), (many, options.batch)):
            ways[f"{name}, {mode}"] = Way(batch, than=name, exact=mode == "verified", mode=mode)
    return ways, {}


def ask(
    loaded: Any, asked: Sequence[tuple[Image.Image, str]], way: Way, options: argparse.Namespace, phrases: Phrases
) -> list[Answer]:
    tokenizer, model, image_processor, _ = loaded
    decoder = SpanDecoder(model, phrases=phrases, mode=way.mode) if way.mode else None
    settings = {"min_new_tokens": way.forced} if way.forced else {}
    answers: list[Answer] = []
    for batch in batches(asked, way.batch):
        answers += generate(
            tokenizer,
            model,
            image_processor,
            images=[image for image, _ in batch],
            questions=[text for _, text in batch],
            max_new_tokens=way.forced or options.max_new_tokens,
            constrained=way.constrained,
            decoder=decoder,
            **settings,
        )
    return answers


def compare(
    loaded: Any, asked: Sequence[tuple[Image.Image, str]], ways: dict[str, Way], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Each way's numbers; a decoder's phrases are those of the prompts, and of what it wrote in earlier rounds."""
    tokenizer, model = loaded[:2]
    answers: dict[str, list[Answer]] = {}
    phrases = {
        name: wording_of(Prompts(), tokenizer=tokenizer, perception=model.perception) if way.mode else Phrases()
        for name, way in ways.items()
    }

    def turn(name: str) -> None:
        answers[name] = ask(loaded, asked, ways[name], options, phrases[name])

    seconds = side_by_side.interleaved({name: lambda name=name: turn(name) for name in ways}, rounds=options.rounds)
    results: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        timings = [answer.timings for answer in answers[name][:: way.batch] if answer.timings is not None]
        results[name] = {
            "batch": way.batch,
            "answers_per_second": round(len(asked) / statistics.median(seconds[name]), 4),
            "seconds": round(statistics.median(seconds[name]), 4),
            "forward_passes": round(statistics.mean(each.forward_passes for each in timings), 2),
            "new_tokens": sum(each.tokens for each in timings),
            "finished": sum(answer.finished for answer in answers[name]),
        }
        if way.than is not None:
            least, most = side_by_side.spread(seconds, way.than, name)
            results[name] |= {
                "than": way.than,
                "times_as_fast": round(side_by_side.ratio(seconds, way.than, name), 4),
                "least": round(least, 4),
                "most": round(most, 4),
            }
        if way.than is not None and way.exact is not None:
            pairs = zip(answers[name], answers[way.than], strict=True)
            results[name] |= {
                "exact": way.exact,
                "same_answers": statistics.mean(ours.ids == theirs.ids for ours, theirs in pairs),
            }
    return results


def show(results: dict[str, dict[str, Any]], left_out: dict[str, str], *, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{title}, {torch.get_num_threads()} threads")
    table.add_column("way")
    for heading in ("answers a second", "passes", "new tokens", "times as fast", "same answers"):
        table.add_column(heading, justify="right")
    table.add_column("than")
    for name, result in results.items():
        compared, same = "than" in result, "same_answers" in result
        table.add_row(
            name,
            f"{result['answers_per_second']:.3g}",
            f"{result['forward_passes']:.1f}",
            f"{result['new_tokens']:,}",
            f"{result['times_as_fast']:.3g} ({result['least']:.3g}–{result['most']:.3g})" if compared else "",
            f"{result['same_answers']:.0%}" if same else "",
            result.get("than", ""),
        )
    console = Console(width=180)
    console.print(table)
    for name, result in results.items():
        if result.get("exact") and result["same_answers"] < 1:
            console.print(f"{name}: other answers than {result['than']}, which it has to equal", highlight=False)
    for name, reason in left_out.items():
        console.print(f"{name}: left out, {reason}", highlight=False)


if __name__ == "__main__":
    main()
