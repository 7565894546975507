"""Answers a second: in batches against one at a time, without the constraint, and maps in few passes against greedy.

    python benchmarks/generation.py --model demo_output/work/model
    python benchmarks/generation.py --model demo_output/work/model --batch 16 64 --questions 64 --threads 2

Rendered scenes are asked which of some points is closest, with a chain. "Same text" is the share of answers whose text
is that of the way it is compared with: batches and "verified" have to give all of them; "parallel" takes a map as it
is after one pass. With forced tokens every answer has equally many, so that both ways do the same work. "Verified" and
"parallel" are left out for a model that was not trained with --span_mask_probability.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

from harness import Parser, interleaved, rate, report, times_as_fast

from llava_aurora import Aurora
from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, Wording

ONE = "one at a time"


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--model", required=True, help="a checkpoint with perception tokens")
    parser.number("--questions", 16, "a round")
    parser.add_argument("--batch", type=int, nargs="+", default=[16], help="questions at once (default: 16)")
    parser.number("--max-new-tokens", None, "an answer; what the context leaves if left out")
    parser.add_argument("--answer-start", default="", help="what every answer begins with, such as <DEPTH_START>")
    parser.number("--forced-tokens", 64, "new tokens where their number is forced")
    options = parser.options()
    aurora = Aurora.from_pretrained(options.model, device=options.device)
    with tempfile.TemporaryDirectory() as folder:
        scenes, size = Path(folder) / "scenes", aurora.image_processor.crop_size["height"]
        write_scenes(out=scenes, count=options.questions, seed=1, config=SceneConfig(frame=size))
        wording = Wording.of(aurora.model.perception, image_size=size)
        asked = BENCHMARKS["scenes_coordinates"].read(scenes, wording).questions[: options.questions]
        images, questions = [each.open() for each in asked], [each.text for each in asked]
    many = {f"batch {batch}": batch for batch in options.batch}
    free = f"{options.forced_tokens} tokens, unconstrained"
    forced = {"max_new_tokens": options.forced_tokens, "min_new_tokens": options.forced_tokens}
    # By name: what it is compared with; whether its text has to be the same (None: cannot); how the model is asked.
    ways: dict[str, tuple[str | None, bool | None, dict[str, Any]]] = {
        ONE: (None, None, {"batch_size": 1}),
        **{name: (ONE, True, {"batch_size": batch}) for name, batch in many.items()},
        free: (None, None, {**forced, "constrained": False}),
        f"{options.forced_tokens} tokens, constrained": (free, None, forced),
    }
    if aurora.model.writes_spans_in_one_pass:
        for decoding in ("verified", "parallel"):
            for name, batch in {ONE: 1, **many}.items():
                how = {"batch_size": batch, "decoding": decoding}
                ways[f"{name}, {decoding}"] = (name, decoding == "verified", how)
    answers: dict[str, list[Any]] = {}

    def ask(name: str, how: dict[str, Any]) -> None:
        settings = {"batch_size": options.batch[0], "max_new_tokens": options.max_new_tokens, **how}
        settings["answer_start"] = options.answer_start
        answers[name] = aurora.ask(images, questions, **settings)

    aurora.ask(images[0], questions[0], max_new_tokens=options.forced_tokens)  # what is slow once
    timed = {name: lambda name=name, how=how: ask(name, how) for name, (_, _, how) in ways.items()}
    seconds = interleaved(timed, rounds=options.rounds, warm_up=0)
    rows, wrong = [], []
    for name, (than, exact, _) in ways.items():
        timings = [answer.timings for answer in answers[name] if answer.timings is not None]
        row: dict[str, Any] = {"way": name, "answers_a_second": rate(seconds[name], len(asked))}
        row["passes"] = statistics.mean(each.forward_passes for each in timings)
        if than is not None:
            row |= times_as_fast(seconds, name, than)
        if than is not None and exact is not None:
            same = [ours.text == theirs.text for ours, theirs in zip(answers[name], answers[than], strict=True)]
            row["same_text"] = statistics.mean(same)
            wrong += [name] if exact and not all(same) else []
        rows.append(row)
    more = {"other_text_where_it_has_to_be_the_same": ", ".join(wrong)} if wrong else {}
    report("generation", rows, options, **more)


if __name__ == "__main__":
    main()
