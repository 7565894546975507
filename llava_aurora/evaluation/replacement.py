"""The token replacement test: does a model use the depth map that it wrote?

Each chain is cut off behind its map, the map is replaced, and the model continues to its answer. The answers of a model
that uses its map get worse with a wrong one. As a control the model continues from its own map in the same way. Source:
Ablate-to-Validate (2026). Beyond it, counterfactual maps: what stands under the two closest points exchanged, so that
one answer is predicted; and what stands under the farthest point brought closer step by step (the dose).
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llava_aurora.data.sources.depth.depth_maps import Share
from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.answers import AnswerSettings, AnswerStore
from llava_aurora.evaluation.benchmarks.question import Question
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, benchmark_names
from llava_aurora.evaluation.blind import blind_baseline
from llava_aurora.evaluation.measure import Judged, accuracy, by_category, chance, judge, written_of
from llava_aurora.evaluation.run import RESULTS, Plan, evaluate, paired_json, read_questions, read_results, right, wait
from llava_aurora.evaluation.statistics import Interval, bootstrap_mean, compare_paired
from llava_aurora.evaluation.verdict import Loss, verdict
from llava_aurora.files import write_json
from llava_aurora.generation.predictor import Predictor
from llava_aurora.generation.result import Answer, Result
from llava_aurora.tasks.registry import family_named
from llava_aurora.tasks.task import TaskFamily
from llava_aurora.tokens.kind import TokenKind
from llava_aurora.tokens.perception import PerceptionTokens

CONTROL = "own"
# What each replacement puts in the place of the map.
REPLACEMENTS: Mapping[str, str] = {
    CONTROL: "its own map (control)",
    "true": "the true map",
    "random": "random codes",
    "constant": "code 0 everywhere",
    "first": "its first code everywhere",
    "other": "its map of another image",
    "shuffled": "its own codes, shuffled",
    "empty": "a map without codes",
    "exchanged": "its own map, two closest points exchanged",
    "dose_33": "its own map, farthest point raised by 33 %",
    "dose_67": "its own map, farthest point raised by 67 %",
    "dose_100": "its own map, farthest point raised by 100 %",
}
EDITED = ("exchanged", "dose_33", "dose_67", "dose_100")
DOSES: Mapping[str, float] = {"dose_33": 1 / 3, "dose_67": 2 / 3, "dose_100": 1.0}


@dataclass(frozen=True)
class Chain:
    """A question whose chain holds a whole map: the ids up to the map, and the map's codes."""

    question: Question
    result: Answer
    prefix: tuple[int, ...]
    codes: tuple[int, ...]


def replacement_test(predictor: Predictor, plan: Plan, *, out: Path, share: Share | None = None) -> dict[str, Any]:
    """Runs the test on each benchmark of a plan and adds it to results.json in the first process.

    Chains that the folder has already are used, answers to replaced maps kept and resumed, as in `evaluate`.

    Returns: By benchmark, what results.json keeps under "replacement"; nothing in processes other than the first.
    Raises AuroraError if the model has no tokens of the kind that chains answer from, no chain holds such a span, or as
    `evaluate`.
    """
    share, names = share or Share(), benchmark_names(plan.tasks)
    if predictor.perception is None:
        raise AuroraError("this model has no perception tokens, so there is no span to replace")
    for name in names:
        _check_kind(name, BENCHMARKS[name].family, predictor.perception)
    evaluate(predictor, replace(plan, reasonings=["chain"]), out=out, share=share)
    wait(share)
    store, found = AnswerStore(out), {}
    for task in names:
        questions = read_questions(task, plan, predictor=predictor, out=out).questions
        _check_kind(task, questions[0].family, predictor.perception)
        chains = whole_chains(questions, store.read(task, "chain"), predictor.perception)
        if not chains:
            raise AuroraError(f"{out}: none of the {len(questions)} chains of {task} holds a whole span to replace")
        asked = [chain.question for chain in chains]
        codes = replacements(chains, predictor.perception, seed=plan.seed)
        for name, maps in codes.items():
            answer = partial(_go_on, predictor, plan.settings, {c.question.id: c for c in chains}, maps)
            way = f"chain-{name}"
            store.ask(answer, asked, task=task, reasoning=way, batch_size=plan.batch_size, share=share)
        wait(share)
        if share.index == 0:
            lines = {name: store.finish(asked, task=task, reasoning=f"chain-{name}") for name in codes}
            found[task] = measure_replacements(chains, codes, lines, predictor.perception)
            found[task] |= {"title": BENCHMARKS[task].title, "questions": len(questions), "chains": len(chains)}
        wait(share)
    if share.index == 0:
        results = read_results(out)
        results["replacement"] = results.get("replacement", {}) | found
        write_json(out / RESULTS, results, indent=1)
    return found


def _check_kind(name: str, family: str | None, perception: PerceptionTokens) -> None:
    """Raises AuroraError if a benchmark's chains hold no span to replace, or the model has no tokens for it."""
    kind = family_named(family).replaced_kind if family is not None else None
    if family is not None and kind is None:
        raise AuroraError(f"{name}: answers of {family} do not depend on a single span, so there is none to replace")
    if kind is not None and kind not in perception.kinds:
        raise AuroraError(f"{name}: this model has no {kind} tokens, so there is no span to replace")


def _replaced(question: Question, perception: PerceptionTokens) -> TokenKind:
    """The token kind whose spans are replaced."""
    kind = family_named(question.family).replaced_kind
    assert kind is not None, "_check_kind has seen to it"
    return perception.kinds[kind]


def whole_chains(
    questions: Sequence[Question], answers: Mapping[str, Answer], perception: PerceptionTokens
) -> list[Chain]:
    """The chains in which there is a map to replace."""
    chains = []
    for question in questions:
        result = answers[question.id]
        written, _ = written_of(question, result, perception)
        if written.codes is not None:
            chains.append(Chain(question, result, result.ids[: written.map_start], written.codes))
    return chains


def replacements(
    chains: Sequence[Chain], perception: PerceptionTokens, *, seed: int
) -> dict[str, dict[str, tuple[int, ...]]]:
    """For each kind of replacement, the codes that are put in, by the id of the question.

    What is drawn at random depends on question and seed alone. The true map is left out where one is not known, another
    image's where there is only one image.
    """
    kind = _replaced(chains[0].question, perception)

    def drawn(codes_for: Callable[[Sequence[int], np.random.Generator], Sequence[int]]) -> dict[str, tuple[int, ...]]:
        result = {}
        for chain in chains:
            rng = np.random.default_rng([seed, zlib.crc32(chain.question.id.encode())])
            codes = kind.with_labels(codes_for(kind.without_labels(chain.codes), rng))
            result[chain.question.id] = tuple(int(code) for code in codes)
        return result

    found = {
        CONTROL: {chain.question.id: chain.codes for chain in chains},
        "random": drawn(lambda codes, rng: rng.integers(kind.cell_codes, size=len(codes)).tolist()),
        "constant": drawn(lambda codes, rng: [0] * len(codes)),
        "first": drawn(lambda codes, rng: [codes[0]] * len(codes)),
        "shuffled": drawn(lambda codes, rng: rng.permutation(codes).tolist()),
    }
    true = {chain.question.id: _true_codes(chain.question, kind) for chain in chains}
    if all(codes is not None for codes in true.values()):
        found["true"] = {name: tuple(codes or ()) for name, codes in true.items()}
    if len({str(chain.question.image) for chain in chains}) > 1:
        found["other"] = _of_another_image(chains)
    if kind.family.delimited:
        found["empty"] = {chain.question.id: () for chain in chains}
    edits: dict[str, Callable[[Chain, TaskFamily], Sequence[int] | None]] = {
        "exchanged": lambda chain, family: family.exchanged(chain.question, kind, chain.codes)
    }
    for name, share in DOSES.items():
        edits[name] = lambda chain, family, share=share: family.raised(chain.question, kind, chain.codes, share)  # type: ignore[misc]
    for name, edit in edits.items():
        edited = {chain.question.id: edit(chain, family_named(chain.question.family)) for chain in chains}
        if any(codes is not None for codes in edited.values()):  # one that cannot be edited keeps its map
            found[name] = {chain.question.id: tuple(edited[chain.question.id] or chain.codes) for chain in chains}
    return {name: found[name] for name in REPLACEMENTS if name in found}


def _true_codes(question: Question, kind: TokenKind) -> Sequence[int] | None:
    """Of the true span; None if it is not known."""
    if kind.name in question.codes:
        return kind.with_labels(question.codes[kind.name])
    annotation = family_named(question.family).true_annotation(question)
    return kind.encode(annotation) if annotation is not None else None


def _of_another_image(chains: Sequence[Chain]) -> dict[str, tuple[int, ...]]:
    """Each chain gets the map of one half the list away, or the next behind that is of another image."""
    found = {}
    for place, chain in enumerate(chains):
        others = (chains[(place + len(chains) // 2 + step) % len(chains)] for step in range(len(chains)))
        other = next(each for each in others if each.question.image != chain.question.image)
        found[chain.question.id] = other.codes
    return found


def _go_on(
    predictor: Predictor,
    settings: AnswerSettings,
    chains: Mapping[str, Chain],
    maps: Mapping[str, tuple[int, ...]],
    batch: Sequence[Question],
) -> list[Result]:
    perception = predictor.perception
    assert perception is not None
    family = _replaced(batch[0], perception).family
    starts = [[*chains[q.id].prefix, *perception.ids.ids(family, maps[q.id])] for q in batch]
    prompts = [question.prompt("chain", settings.reasoning_prompt) for question in batch]
    options: dict[str, Any] = asdict(settings)
    if not any(maps[q.id] for q in batch):  # else the model writes a map of its own behind the empty one
        options |= {"decoding": "greedy", "suppress_tokens": [perception.ids.start_id(family)]}
    return predictor.write([q.open() for q in batch], prompts, answer_start=starts, **options)


def measure_replacements(
    chains: Sequence[Chain],
    codes: Mapping[str, Mapping[str, tuple[int, ...]]],
    lines: Mapping[str, Sequence[Answer]],
    perception: PerceptionTokens,
) -> dict[str, Any]:
    """What each replacement costs, and the verdict, as JSON takes it.

    Of each replacement: accuracy; `loss`, how much lower that is than the control's, paired by question, every category
    counting alike; `changed`, the share of answers that are others than the control's; `follows`, the share that is the
    closest point by the map put in; `predicted`, of edited maps that imply another answer than the model's own map, the
    share of answers that are this one, and `predicted_before`, the same of the control. Intervals are by bootstrap over
    images.
    """
    judged = {
        name: [judge(chain.question, line, perception) for chain, line in zip(chains, each, strict=True)]
        for name, each in lines.items()
    }
    control, conditions = judged[CONTROL], {}
    losses: dict[str, Loss] = {}
    for name, answers in judged.items():
        loss = _loss(control, answers)
        images = [[each.image_id or each.id for each in answers]]
        differs = [one.stated != other.stated for one, other in zip(control, answers, strict=True)]
        changed = bootstrap_mean(differs, units=images)
        paired = paired_json(compare_paired(right(control), right(answers)))
        follows = _follows(chains, answers, codes[name], perception) if name != "empty" else None
        conditions[name] = {
            "put_in": REPLACEMENTS[name],
            "accuracy": accuracy(answers).to_json(),
            "loss": loss.to_json(),
            "changed": changed.to_json(),
            "p_value": paired["p_value"],
            "follows": follows.to_json() if follows is not None else None,
            **(_as_predicted(chains, control, answers, codes[name], perception) if name in EDITED else {}),
            "answers": [asdict(each) for each in answers],
        }
        losses[name] = Loss(loss=loss, changed=changed, p_value=paired["p_value"])
    originals = [judge(chain.question, chain.result, perception) for chain in chains]
    repeated = sum(a.stated == b.stated for a, b in zip(originals, control, strict=True)) / len(chains)
    blind = blind_baseline([chain.question for chain in chains])
    baselines = {"chance": chance(control), "blind": blind.accuracy if blind is not None else None}
    known = [share for share in baselines.values() if share is not None]
    flips = conditions.get("exchanged", {}).get("predicted")
    said = verdict(
        losses,
        control=accuracy(control),
        baseline=max(known, default=None),
        flips=Interval(**flips) if flips is not None and flips["count"] else None,
    )
    return {"conditions": conditions, "control_repeats_chain": repeated, **baselines, "verdict": asdict(said)}


def _loss(control: Sequence[Judged], answers: Sequence[Judged]) -> Interval:
    """Accuracy of the control less that of the answers, each category counting alike."""
    after = {each.id: each.correct for each in answers}
    groups = by_category(control).values()
    units = [[each.image_id or each.id for each in group] for group in groups]
    lost = ([float(each.correct) - float(after[each.id]) for each in group] for group in groups)
    return bootstrap_mean(*lost, units=units)


def _follows(
    chains: Sequence[Chain],
    answers: Sequence[Judged],
    codes: Mapping[str, tuple[int, ...]],
    perception: PerceptionTokens,
) -> Interval | None:
    followed, images = [], []
    for chain, answer in zip(chains, answers, strict=True):
        implied = _implied(chain, codes[chain.question.id], perception)
        if implied is not None:
            followed.append(answer.stated == implied)
            images.append(answer.image_id or answer.id)
    return bootstrap_mean(followed, units=[images]) if followed else None


def _implied(chain: Chain, codes: Sequence[int], perception: PerceptionTokens) -> str | None:
    annotation = _replaced(chain.question, perception).decode(codes)
    return family_named(chain.question.family).answer_by(chain.question, annotation)


def _as_predicted(
    chains: Sequence[Chain],
    control: Sequence[Judged],
    answers: Sequence[Judged],
    codes: Mapping[str, tuple[int, ...]],
    perception: PerceptionTokens,
) -> dict[str, Any]:
    """Of the maps that imply another answer than their chain's own: how often it is given, and was before."""
    after, before, images = [], [], []
    for chain, own, answer in zip(chains, control, answers, strict=True):
        implied = _implied(chain, codes[chain.question.id], perception)
        if implied is not None and implied != _implied(chain, chain.codes, perception):
            after.append(answer.stated == implied)
            before.append(own.stated == implied)
            images.append(answer.image_id or answer.id)
    if not after:
        return {}
    intervals = {"predicted": after, "predicted_before": before}
    return {name: bootstrap_mean(found, units=[images]).to_json() for name, found in intervals.items()}
