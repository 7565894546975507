"""`llava-aurora eval`: asks the questions of benchmarks with and without a chain, and judges the answers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from llava_aurora.data.sources.depth.depth_maps import Share
from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.answers import AnswerSettings, AnswerStore
from llava_aurora.evaluation.benchmarks.question import BY_PIXELS, REASONINGS, WAYS, Question, QuestionSet
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, GROUPS, Wording, benchmark_names
from llava_aurora.evaluation.blind import blind_baseline
from llava_aurora.evaluation.gallery import draw_gallery
from llava_aurora.evaluation.measure import Judged, by_category, judge, measures_of, summarize
from llava_aurora.evaluation.provenance import provenance
from llava_aurora.evaluation.statistics import Paired, compare_paired
from llava_aurora.files import read_json, undamaged, write_json
from llava_aurora.generation.pixel_masks import write_pixel_masks
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.result import Answer, with_costs
from llava_aurora.tasks.registry import family_named

RESULTS, FORMAT = "results.json", 2
DAMAGED = "delete it and run `llava-aurora eval` again, which asks nothing twice"
SCENES = "scenes"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to ask, and how."""

    tasks: Sequence[str]  # names of benchmarks or groups of them
    data: Path | None = None  # folder of the benchmark; of ray-cast scenes it is made if left out
    reasonings: Sequence[str] = REASONINGS  # some of WAYS
    settings: AnswerSettings = field(default_factory=AnswerSettings)  # of the answers
    batch_size: int = 16  # questions at a time
    limit: int | None = None  # the first so many questions of each benchmark; all if None
    # scenes, seed: how many scenes are made, and from which seed; also of replaced maps
    scenes: int = 500
    seed: int = 1_000_003
    pictures: int = 4  # right and wrong cases to draw of each benchmark and reasoning

    def __post_init__(self) -> None:
        if not self.tasks or not self.reasonings:
            raise AuroraError("no questions: name a benchmark, and chain or direct as the reasoning")
        if unknown := [name for name in self.reasonings if name not in WAYS]:
            raise AuroraError(f"unknown reasoning {unknown[0]!r}; available: {', '.join(WAYS)}")
        names = benchmark_names(self.tasks)
        if BY_PIXELS in self.reasonings and (others := [name for name in names if not BENCHMARKS[name].of_phrases]):
            known = ", ".join(name for name, each in BENCHMARKS.items() if each.of_phrases)
            raise AuroraError(
                f"{others[0]}: only masks of phrases ({known}) are asked for by {BY_PIXELS}; leave it out"
            )
        if self.data is None and not set(names) <= {name for names in GROUPS.values() for name in names}:
            raise AuroraError("--data is needed: the folder of the benchmark; only ray-cast scenes are generated")


@dataclass(frozen=True)
class Asked:
    """A benchmark, its questions, and the answers by reasoning, each list in the order of the questions."""

    task: str
    questions: QuestionSet
    answers: dict[str, list[Answer]]


def evaluate(predictor: Predictor, plan: Plan, *, out: Path, share: Share | None = None) -> list[Asked]:
    """Asks all questions that have no answer yet, judges them and writes results.json in the first process.

    Args:
        out: folder of the evaluation; one that was stopped goes on, and further benchmarks can be added.
    Returns: What was asked; nothing in processes other than the first.
    Raises AuroraError for a folder of another model, other settings or questions, and for data that cannot be read.
    """
    share, store = share or Share(), AnswerStore(out)
    store.claim({**predictor.identity, **asdict(plan.settings)})
    if plan.data is None and share.index == 0:
        config = SceneConfig(frame=predictor.image_size)
        write_scenes(out=out / SCENES, count=plan.scenes, seed=plan.seed, config=config)
    wait(share)
    asked = []
    for task in benchmark_names(plan.tasks):
        questions = read_questions(task, plan, predictor=predictor, out=out)
        if share.index == 0:
            store.claim_benchmark(task, data=_data(plan, out), questions=questions)
        for reasoning in plan.reasonings:
            store.ask(
                partial(_answer, predictor, plan.settings, reasoning),
                questions.questions,
                task=task,
                reasoning=reasoning,
                batch_size=plan.batch_size,
                share=share,
                by_image=plan.settings.decoding == "packed",
            )
        asked.append((task, questions))
    wait(share)
    if share.index > 0:
        return []
    found = []
    for task, questions in asked:
        answers = {name: store.finish(questions.questions, task=task, reasoning=name) for name in plan.reasonings}
        found.append(Asked(task, questions, answers))
    write_results(out, predictor=predictor, asked=found, plan=plan)
    return found


def read_questions(task: str, plan: Plan, *, predictor: Predictor, out: Path) -> QuestionSet:
    """The questions of a benchmark, as they are put to this model."""
    ratio = predictor.aspect_ratio
    wording = Wording.of(predictor.perception, image_size=predictor.image_size, aspect_ratio=ratio)
    found = BENCHMARKS[task].read(_data(plan, out), wording)
    return QuestionSet(found.questions[: plan.limit], found.left_out)


def write_results(out: Path, *, predictor: Predictor, asked: Sequence[Asked], plan: Plan) -> None:
    """Writes or extends results.json and the pictures of cases: what was asked before and not now stays."""
    path, header = out / RESULTS, AnswerStore(out).header()
    new: dict[str, Any] = {"format": FORMAT, "benchmarks": {}, "runs": []}
    results = read_results(out) if path.exists() else new
    results["asked"] = header["asked"]
    made = {**provenance(), "seed": plan.seed}
    if made not in results["runs"]:
        results["runs"].append(made)
    for each in asked:
        judged = {
            name: [
                judge(q, line, predictor.perception) for q, line in zip(each.questions.questions, lines, strict=True)
            ]
            for name, lines in each.answers.items()
        }
        entry = results["benchmarks"].setdefault(each.task, {"reasonings": {}})
        benchmark = BENCHMARKS[each.task]
        entry |= {"title": benchmark.title, "family": each.questions.family, **header["benchmarks"][each.task]}
        for name, answers in judged.items():
            entry["reasonings"][name] = _entry(answers, each.questions.questions)
            if costs := AnswerStore(out).costs(each.task, name):
                entry["reasonings"][name]["costs"] = costs
            entry["reasonings"][name]["gallery"] = draw_gallery(
                out,
                task=each.task,
                reasoning=name,
                reasoning_prompt=plan.settings.reasoning_prompt,
                questions=each.questions.questions,
                lines=each.answers[name],
                perception=predictor.perception,
                count=plan.pictures,
            )
        both = [judged_answers(entry, name) for name in REASONINGS if name in entry["reasonings"]]
        if len(both) == 2:
            chain, direct = both
            entry["chain_less_direct"] = paired_json(compare_paired(right(direct), right(chain)))
    write_json(path, results, indent=1)


def read_results(out: Path) -> dict[str, Any]:
    """What `write_results` wrote. Raises AuroraError if there is nothing."""
    if not (out / RESULTS).exists():
        raise AuroraError(f"{out}: no results here ({RESULTS} is missing); run `llava-aurora eval` to its end first")
    results = read_json(out / RESULTS, what="results of the evaluation")
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        raise AuroraError(f"{out / RESULTS}: is damaged or of another version of llava_aurora; {DAMAGED}")
    with undamaged(out / RESULTS, DAMAGED):
        for entry in results["benchmarks"].values():
            for reasoning in entry["reasonings"]:
                judged_answers(entry, reasoning)
        if not isinstance(results["runs"], list):
            raise TypeError("its runs are not a list")
    return dict(results)


def judged_answers(entry: dict[str, Any], reasoning: str) -> list[Judged]:
    """The answers of a benchmark's entry in results.json."""
    return [Judged(**each) for each in entry["reasonings"][reasoning]["answers"]]


def right(judged: Sequence[Judged]) -> list[bool]:
    """Which of them are right."""
    return [each.correct for each in judged]


def paired_json(paired: Paired) -> dict[str, Any]:
    """As JSON takes it."""
    return {**asdict(paired), "difference": paired.difference.to_json()}


def _answer(predictor: Predictor, settings: AnswerSettings, reasoning: str, batch: Sequence[Question]) -> list[Answer]:
    again = family_named(batch[0].family).again
    images, texts = [question.open() for question in batch], [question.text for question in batch]
    if reasoning == BY_PIXELS:
        return write_pixel_masks(predictor, images, texts, [question.phrase for question in batch], **asdict(settings))
    if again is not None and reasoning == "chain":
        return with_costs(predictor.look_again(images, texts, again=again, lenient=True, **asdict(settings)))
    prompts = [question.prompt(reasoning, settings.reasoning_prompt) for question in batch]
    return with_costs(predictor.write(images, prompts, **asdict(settings)))


def _entry(judged: list[Judged], questions: Sequence[Question]) -> dict[str, Any]:
    groups = by_category(judged)
    asked = {name: [each for each in questions if each.category == name] for name in groups}
    return {
        "summary": summarize(judged) | _blind(questions, judged),
        "categories": {name: summarize(group) | _blind(asked[name], group) for name, group in groups.items()},
        "answers": [asdict(each) for each in judged],
    }


def _blind(questions: Sequence[Question], judged: Sequence[Judged]) -> dict[str, Any]:
    blind = blind_baseline(questions)
    found: dict[str, Any] = {"blind": blind.accuracy, "blind_rule": blind.rule} if blind is not None else {}
    measured = family_named(questions[0].family).blind_measures(questions) if questions else ()
    if measured:
        guesses = [replace(each, measures=values) for each, values in zip(judged, measured, strict=True)]
        found["blind_measures"] = measures_of(guesses)
    return found


def _data(plan: Plan, out: Path) -> Path:
    return plan.data if plan.data is not None else out / SCENES


def wait(share: Share) -> None:
    """Until all processes have come here."""
    if share.count > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
