"""`llava-aurora eval`, `replace-test` and `compare`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava_aurora.cli.output import Commands, tell
from llava_aurora.cli.shared import Base, Decoding, Load4, Load8, Prompt, Refinements, model_or_demo, usable_device
from llava_aurora.errors import AuroraError
from llava_aurora.listed import listed

if TYPE_CHECKING:
    from llava_aurora.evaluation.answers import AnswerSettings
    from llava_aurora.generation.predictor import Predictor

app = Commands()

_Tasks = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="hardblink, blink_depth, cv_bench_depth, blink_counting, cv_bench_counting, seed_bench_counting, "
        "scenes_depth, scenes_coordinates, scenes_counting, or scenes for these three; scenes_one_height, "
        "scenes_one_height_coordinates; scenes_masks, grounded, or masks for both; refcoco; "
        "records: your own, in records.json of --data; several separated by commas. Or, alone: games, "
        "car races; pixels, the colours of all cells of images.",
    ),
]
_Model = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the model: whole, LoRA, or with --base only a projector; or a hub name. Default: the demo's."
    ),
]
_Out = Annotated[
    Path, typer.Option(help="Folder of the evaluation; an existing one of the same model is resumed and extended.")
]
_Data = Annotated[Path | None, typer.Option(help="Folder of the benchmark; default for scenes: rendered.")]
_Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …; this process's GPU or else the CPU.")]
_Batch = Annotated[int, typer.Option(min=1, help="Questions at a time.")]
_Tokens = Annotated[int, typer.Option(min=1, help="Maximum number of tokens of an answer.")]
_Conversation = Annotated[str, typer.Option(help="LLaVA's conversation template.")]
_Limit = Annotated[
    int | None, typer.Option(min=1, help="Only this number of questions of each benchmark, steps of a round.")
]
_Scenes = Annotated[int, typer.Option(min=1, help="Number of scenes to render without --data.")]
_Seed = Annotated[int, typer.Option(min=0, help="Random seed of rendered scenes and of replacements of maps.")]
_Pictures = Annotated[
    int,
    typer.Option("--cases", "--pictures", min=0, help="Right and wrong cases to draw, per benchmark and reasoning."),
]
_Rounds = Annotated[int, typer.Option(min=1, help="Rounds of games, with seeds from --seed on.")]
_Gif = Annotated[Path | None, typer.Option(help="Draw the model's first round of games in this file.")]
_Unconstrained = Annotated[bool, typer.Option("--unconstrained", help="Allow malformed spans of tokens.")]


@app.command(
    "eval",
    epilog="Examples: llava-aurora eval scenes --model checkpoints/aurora --out eval/aurora  |  llava-aurora eval "
    "hardblink --model checkpoints/aurora --data hardblink/ --out eval/aurora  |  accelerate launch --num_processes 8 "
    "-m llava_aurora.cli eval seed_bench_counting ...  |  llava-aurora eval scenes_masks --reasoning direct,pixels "
    "--model checkpoints/mine --out eval/mine. Run again after an interruption to resume.",
)
def evaluate_model(
    tasks: _Tasks,
    out: _Out,
    model: _Model = None,
    data: _Data = None,
    reasoning: Annotated[
        str,
        typer.Option(help="chain, direct; of masks of phrases also pixels: a yes or no for each cell of the box."),
    ] = "chain,direct",
    base: Base = None,
    device: _Device = None,
    batch_size: _Batch = 16,
    max_new_tokens: _Tokens = 512,
    reasoning_prompt: Prompt = None,
    conversation: _Conversation = "vicuna_v1",
    decoding: Decoding = "greedy",
    refinements: Refinements = 1,
    limit: _Limit = None,
    scenes: _Scenes = 500,
    seed: _Seed = 1_000_003,
    pictures: _Pictures = 4,
    rounds: _Rounds = 10,
    gif: _Gif = None,
    unconstrained: _Unconstrained = False,
    load_8bit: Load8 = False,
    load_4bit: Load4 = False,
) -> None:
    """Ask a model the questions of a benchmark, with and without a chain; numbers, report.md and report.html."""
    given = locals()
    if "games" in (names := listed(tasks)):
        if len(names) > 1:
            raise AuroraError(
                f"{tasks}: games are played alone; run `llava-aurora eval games`, and the others by themselves"
            )
        from llava_aurora.cli.games import play_games

        play_games(lambda: _predictor(given, usable_device(device)), _settings(given), given)
        return
    if listed(tasks) == ["pixels"]:
        from llava_aurora.cli.pixels import evaluate_pixels_of

        evaluate_pixels_of(lambda: _predictor(given, usable_device(device)), given)
        return
    if gif is not None:
        raise AuroraError(f"--gif {gif}: only `llava-aurora eval games` draws one; leave it out")
    from llava_aurora.evaluation.run import evaluate

    _run(evaluate, given)


def _options_of_eval(function: Callable[..., None]) -> Callable[..., None]:
    """The options that `eval` takes, but those of chains and games: a function of **options with these."""
    own = ("reasoning", "rounds", "gif")
    options = [option for option in signature(evaluate_model).parameters.values() if option.name not in own]
    setattr(function, "__signature__", Signature(options))  # noqa: B010
    return function


@app.command(
    "replace-test",
    epilog="Examples: llava-aurora replace-test scenes_depth --model checkpoints/aurora --out eval/aurora  |  "
    "llava-aurora replace-test hardblink --model checkpoints/aurora --data hardblink/ --out eval/aurora. "
    "Chains from `eval` in the same folder are reused.",
)
@_options_of_eval
def replace_test(**given: Any) -> None:
    """Test whether a model uses the depth map that it writes: replace the map and compare its answers."""
    from llava_aurora.evaluation.replacement import replacement_test

    _run(replacement_test, given)


@app.command(answers=True, epilog="Example: llava-aurora compare eval/direct eval/aurora")
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of `eval` of one model.")],
    second: Annotated[Path, typer.Argument(help="The same of another model, on the same questions.")],
) -> None:
    """Compare two models question by question: difference with its interval, and McNemar's exact test."""
    from llava_aurora.evaluation.comparison import compare_evaluations
    from llava_aurora.report.document import interval

    found = compare_evaluations(first, second)
    tell(comparisons=[asdict(each) for each in found])
    for each in found:
        paired = each.paired
        print(f"{each.title}, {each.reasoning}, {paired.difference.count} questions")
        print(f"  {interval(each.first.to_json())} % right: {first}")
        print(f"  {interval(each.second.to_json())} % right: {second}")
        tested = f"McNemar's p = {paired.p_value:.2g}" if each.answered else "no p-value: one of them stated no answer"
        print(f"  {interval(paired.difference.to_json())} points: second minus first; {tested}")
        print(f"  only the first right in {paired.only_first}, only the second in {paired.only_second}")


def _run(work: Callable[..., object], given: Mapping[str, Any]) -> None:
    """Loads the model on this process's device, evaluates it, and reports in the first process.

    Args: work: takes a predictor and a plan, `out` and `share`.
    """
    from llava_aurora.data.sources.depth.depth_maps import process_share
    from llava_aurora.evaluation.run import Plan

    plan = Plan(
        tasks=listed(given["tasks"]),
        settings=_settings(given),
        reasonings=listed(given.get("reasoning", "chain")),
        **_chosen(given, "data", "batch_size", "limit", "scenes", "seed", "pictures"),
    )
    device = usable_device(given["device"])
    share = process_share(cpu=device == "cpu")
    work(_predictor(given, device), plan, out=given["out"], share=share)
    if share.index == 0:
        _report(given["out"])


def _chosen(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names}


def _settings(given: Mapping[str, Any]) -> "AnswerSettings":
    from llava_aurora.evaluation.answers import AnswerSettings

    names = ("reasoning_prompt", "conversation", "max_new_tokens", "decoding", "refinements")
    return AnswerSettings(constrained=not given["unconstrained"], **_chosen(given, *names))


def _predictor(given: Mapping[str, Any], device: str) -> "Predictor":
    from llava_aurora.generation.predictor import Predictor

    how = _chosen(given, "base", "load_8bit", "load_4bit")
    return Predictor.from_pretrained(model_or_demo(given["model"]), device=device, **how)


def _report(out: Path) -> None:
    """Writes the report and prints the main numbers."""
    from llava_aurora.evaluation.evaluation_report import write_report
    from llava_aurora.evaluation.run import read_results
    from llava_aurora.report.document import interval, percent

    path, results = write_report(out), read_results(out)
    tell(
        report=path,
        benchmarks={
            name: {reasoning: each["summary"] for reasoning, each in entry["reasonings"].items()}
            for name, entry in results["benchmarks"].items()
        },
        replacement={name: each["verdict"] for name, each in results.get("replacement", {}).items()},
    )
    for entry in results["benchmarks"].values():
        for reasoning, asked in entry["reasonings"].items():
            summary = asked["summary"]
            print(
                f"{entry['title']}, {reasoning}: {interval(summary['accuracy'])} % of {summary['questions']} right,"
                f" {percent(summary['unparsable'])} % unparsable, chance"
                f" {percent(summary['chance'])} %, blind {percent(summary.get('blind'))} %"
            )
    for found in results.get("replacement", {}).values():
        print(f"{found['title']}: {found['verdict']['finding']}. {found['verdict']['reason']}")
    print(f"report: {path}")


@app.command(
    epilog="Example: llava-aurora lmms-tasks --data hardblink/ --out tasks/; then lmms_eval --model llava_aurora "
    "--model_args pretrained=checkpoints/aurora --tasks hardblink --include_path tasks/"
)
def lmms_tasks(
    data: Annotated[Path, typer.Option(help="HardBLINK in its published layout.")],
    out: Annotated[Path, typer.Option(help="Folder to make, for lmms-eval's --include_path.")],
) -> None:
    """Write HardBLINK as open-ended tasks for lmms-eval."""
    from llava_aurora.evaluation.plugins.lmms_tasks import write_hardblink_tasks

    tasks = write_hardblink_tasks(data, out)
    tell(out=out, tasks=tasks)
    print(f"{out}: tasks {', '.join(tasks)}")
