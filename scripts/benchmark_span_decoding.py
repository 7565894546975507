"""What writing maps in one pass is worth: forward passes, time and maps beside plain greedy decoding, on one model.

    python scripts/benchmark_span_decoding.py --model demo_output/work/model \\
        --records demo_output/work/records/held_out.json --images demo_output/work/scenes/held_out

Asks the same questions greedily by transformers, verified, and in parallel with one and more passes over each map. All
ways take turns, round by round; times are shown as the median of the rounds' ratios to greedy decoding. The last line
is JSON. The model has to be trained with --span_mask_probability.

    passes       forward passes for an answer, of a batch for all its answers
    of the map   passes in which codes of a map were decided or guessed, for each map
    same text    share of answers that are those of greedy decoding, letter by letter
    read-out     share of questions whose point is closest in the written map too, whatever the model answers
    map MSE      of depth in [0, 1] against the truth
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

WAYS: dict[str, dict[str, Any] | None] = {
    "greedy": None,
    "verified": {"mode": "verified"},
    "parallel, 1 pass": {"mode": "parallel", "refinements": 1},
    "parallel, 2 passes": {"mode": "parallel", "refinements": 2},
    "parallel, 4 passes": {"mode": "parallel", "refinements": 4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a checkpoint with depth tokens")
    parser.add_argument("--records", type=Path, required=True, help="JSON of records")
    parser.add_argument("--images", type=Path, required=True, help="the folder their images are named from")
    parser.add_argument("--task", default="depth_chain_from_coordinates", help="of the records that are asked")
    parser.add_argument("--count", type=int, default=64, help="questions a round")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, help="an answer; what the context leaves if left out")
    options = parser.parse_args()

    import torch
    import transformers
    from rich.console import Console

    from llava_aurora.files import read_json
    from llava_aurora.model.checkpoint import load_pretrained_model

    loaded = load_pretrained_model(options.model)
    records = [record for record in read_json(options.records, what="records") if task_of(record) == options.task]
    records = records[: options.count]
    if not records:
        parser.error(f"{options.records}: no record of the task {options.task}")
    results = []
    for batch in options.batches:
        rows = compare(loaded, records, options, batch=batch)
        Console(width=120).print(table(rows, title=f"{len(records)} answers, batch {batch}"))
        results.append({"batch": batch, "ways": rows})
    print(
        json.dumps(
            {
                "results": results,
                "questions": len(records),
                "rounds": options.rounds,
                "task": options.task,
                "parameters": sum(weight.numel() for weight in loaded[1].parameters()),
                "device": str(loaded[1].device),
                "cores": os.cpu_count(),
                "versions": {module.__name__: module.__version__ for module in (torch, transformers)},
            }
        )
    )


def task_of(record: dict[str, Any]) -> str:
    return record.get("aurora", {}).get("task", "")


def compare(
    loaded: Any, records: list[dict[str, Any]], options: argparse.Namespace, *, batch: int
) -> dict[str, dict[str, float]]:
    """Each way's numbers; the first round, in which caches are filled and the wording learned, is not timed."""
    from rich.progress import track

    decoders = {way: decoder_of(loaded, settings) for way, settings in WAYS.items()}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    outcomes: dict[str, list[Any]] = {}
    for number in track(range(options.rounds + 1), description=f"Batch {batch}", transient=True):
        for way, decoder in decoders.items():
            if decoder is not None:
                decoder.rows.clear()
            began = time.perf_counter()
            outcomes[way] = ask(loaded, records, options, batch=batch, decoder=decoder)
            if number:
                seconds[way].append(time.perf_counter() - began)
    return {
        way: {
            **quality(loaded, outcomes[way], outcomes["greedy"], images=options.images),
            **passes(outcomes[way], decoders[way], batch=batch, loaded=loaded),
            "seconds": statistics.median(seconds[way]),
            "ratio": statistics.median(
                ours / greedy for ours, greedy in zip(seconds[way], seconds["greedy"], strict=True)
            ),
        }
        for way in WAYS
    }


def decoder_of(loaded: Any, settings: dict[str, Any] | None) -> Any:
    """A decoder that keeps what its rows took; None for greedy decoding by transformers."""
    from llava_aurora.data.prompts import Prompts
    from llava_aurora.generation.drafts import wording_of
    from llava_aurora.generation.span_decoding import Decoded, SpanDecoder

    if settings is None:
        return None

    class Counting(SpanDecoder):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.rows: list[Decoded] = []

        def decode(self, *args: Any, **kwargs: Any) -> list[Decoded]:
            rows = super().decode(*args, **kwargs)
            self.rows += rows
            return rows

    tokenizer, model = loaded[:2]
    phrases = wording_of(Prompts(), tokenizer=tokenizer, perception=model.perception)
    return Counting(model, phrases=phrases, **settings)


def ask(
    loaded: Any, records: list[dict[str, Any]], options: argparse.Namespace, *, batch: int, decoder: Any
) -> list[Any]:
    from llava_aurora.evaluation import outcomes

    return outcomes.ask(
        loaded,
        records,
        images=options.images,
        batch_size=batch,
        decoder=decoder,
        max_new_tokens=options.max_new_tokens,
    )


def passes(outcomes: list[Any], decoder: Any, *, batch: int, loaded: Any) -> dict[str, float]:
    """Forward passes, of a batch and of each map."""
    batches = outcomes[::batch]
    whole = statistics.mean(outcome.answer.timings.forward_passes for outcome in batches)
    if decoder is None:
        return {"passes": whole, "map_passes": loaded[1].perception.kinds["depth"].family.lengths[-1] + 1}
    return {"passes": whole, "map_passes": statistics.mean(row.map_passes for row in decoder.rows)}


def quality(loaded: Any, outcomes: list[Any], greedy: list[Any], *, images: Path) -> dict[str, float]:
    """What the answers and their maps are worth."""
    import numpy as np

    from llava_aurora.evaluation.outcomes import accuracy, true_depth

    kinds = loaded[1].perception.kinds
    size = kinds["depth"].vqvae.config.image_size
    frame = kinds["box"].family.size if "box" in kinds else size
    errors = [
        np.mean((outcome.depth / 255 - true_depth(outcome.record, images=images, size=size) / 255) ** 2)
        for outcome in outcomes
        if outcome.depth is not None and "depth" in outcome.truth
    ]
    same = [ours.answer.ids == theirs.answer.ids for ours, theirs in zip(outcomes, greedy, strict=True)]
    return {
        "same_text": sum(same) / len(same),
        "read_out": accuracy(outcomes, lambda outcome: outcome.read_out(frame=frame) == outcome.truth["answer"]),
        "map_mse": float(np.mean(errors)) if errors else float("nan"),
    }


def table(rows: dict[str, dict[str, float]], *, title: str) -> Any:
    from rich.table import Table

    grid = Table(title=title)
    for heading in ("way", "passes", "of the map", "time / greedy", "same text", "read-out", "map MSE"):
        grid.add_column(heading, justify="left" if heading == "way" else "right")
    for way, row in rows.items():
        grid.add_row(
            way,
            f"{row['passes']:.1f}",
            f"{row['map_passes']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['same_text']:.0%}",
            f"{row['read_out']:.1%}",
            f"{row['map_mse']:.4f}",
        )
    return grid


if __name__ == "__main__":
    main()
