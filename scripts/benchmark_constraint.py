"""What keeping spans well-formed costs: time of the logits processor against the time of a decoding step.

    python scripts/benchmark_constraint.py                  # a tiny and a 300 M model on the CPU, some minutes
    python scripts/benchmark_constraint.py --sizes tiny --rounds 9 --device cuda

Random weights, AURORA's tokens (maps of 100 codes, 336 coordinates). Every step is one forward pass of the whole batch
with a key/value cache, the constraint, and the choice of the next ids. The ids are those of chains (words, points, a
map, boxes), so that rows are in words, in maps and in boxes at once. Rounds without the constraint, with it, with it
on a model just loaded, and with masks between which the last ids alone choose take turns, all on the same ids. Shown
are medians over rounds; the last line is JSON. With one thread on the CPU it is the time of that thread which counts,
so that other work on the machine matters less.

    processor     time spent in the processor, in percent of a step without it
    at first      the same in the first answers of a model, where masks are still being made
    by last id    the same if each row's last id alone chose one of two masks
    whole step    how much longer a step is with it than without, which scatters with the machine
"""

import argparse
import dataclasses
import json
import statistics
import time
from typing import Any

WORDS, PROMPT = 32_000, 64
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4},
    "300m": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 18, "num_attention_heads": 16},
}
WORDS_OF = {"tiny": 640, "300m": WORDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="one table row each")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    parser.add_argument("--steps", type=int, default=40, help="a round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; torch's own number if left out")
    options = parser.parse_args()
    if min(options.batch, options.rounds, options.steps) < 1:
        parser.error("--batch, --rounds and --steps are at least 1")
    import torch
    from rich.console import Console
    from rich.table import Table

    if options.threads:
        torch.set_num_threads(options.threads)
    rows = [measure(size, options) for size in options.sizes]
    table = Table(title=f"batch {options.batch}, {options.device}, {torch.get_num_threads()} threads; ms a step")
    for heading in (
        "model",
        "parameters",
        "scores",
        "without",
        "with",
        "processor",
        "processor",
        "at first",
        "by last id",
        "whole step",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["size"],
            f"{row['parameters'] / 1e6:,.1f} M",
            f"{row['vocabulary']:,}",
            *(f"{row[name]:.3g}" for name in ("free_ms", "constrained_ms", "processor_ms")),
            f"{row['processor_percent']:.2g} %",
            f"{row['at_first_percent']:.2g} %",
            f"{row['last_id_percent']:.2g} %",
            f"{row['difference_percent']:+.2g} %",
        )
    Console(width=140).print(table)
    print(json.dumps({**vars(options), "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}))


def measure(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds on one model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llava_aurora.generation.constraint import PerceptionLogitsProcessor

    torch.manual_seed(0)
    perception = aurora_tokens(WORDS_OF[size])
    vocabulary = perception.token_ids().stop
    config = LlamaConfig(**SIZES[size], vocab_size=vocabulary, max_position_embeddings=2048)
    model = LlamaForCausalLM(config).to(options.device).eval()
    ids = chains(perception, rows=options.batch, length=400).to(options.device)
    decode(model, ids, None, first=0, steps=2)
    decode(model, ids, PerceptionLogitsProcessor(perception), first=0, steps=2)
    for column in range(1, ids.shape[1]):
        PerceptionLogitsProcessor(perception).mask(ids[:, :column], vocabulary_size=vocabulary)
    masks = torch.zeros(2, vocabulary, device=options.device)

    def choose_by_last(ids: Any, scores: Any) -> Any:
        numbers = [token_id % 2 for token_id in ids[:, -1].tolist()]
        return masks.index_select(0, torch.tensor(numbers, device=options.device)).add_(scores)

    rounds: list[dict[str, float]] = []
    for number in range(options.rounds):
        first = number * options.steps % (ids.shape[1] - options.steps)
        free, _ = decode(model, ids, None, first=first, steps=options.steps)
        known, new = PerceptionLogitsProcessor(perception), PerceptionLogitsProcessor(dataclasses.replace(perception))
        whole, alone = decode(model, ids, known, first=first, steps=options.steps)
        _, at_first = decode(model, ids, new, first=first, steps=options.steps)
        _, last_id = decode(model, ids, choose_by_last, first=first, steps=options.steps)
        rounds.append(
            {"free": free, "constrained": whole, "processor": alone, "at_first": at_first, "last_id": last_id}
        )
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return {
        "size": size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": vocabulary,
        **{f"{name}_ms": round(1000 * value, 4) for name, value in medians.items()},
        "processor_percent": round(100 * statistics.median(e["processor"] / e["free"] for e in rounds), 3),
        "at_first_percent": round(100 * statistics.median(e["at_first"] / e["free"] for e in rounds), 3),
        "last_id_percent": round(100 * statistics.median(e["last_id"] / e["free"] for e in rounds), 3),
        "difference_percent": round(100 * statistics.median(e["constrained"] / e["free"] - 1 for e in rounds), 3),
    }


def decode(model: Any, ids: Any, processor: Any, *, first: int, steps: int) -> tuple[float, float]:
    """Seconds of a step, and of the processor in it, while `ids` are written from column `first` on."""
    import torch

    def now() -> float:
        if ids.is_cuda:
            torch.cuda.synchronize()
        elif torch.get_num_threads() == 1:
            return time.thread_time()
        return time.perf_counter()

    with torch.inference_mode():
        cache = model(input_ids=ids[:, :PROMPT] % WORDS_OF["tiny"], use_cache=True).past_key_values
        alone, began = 0.0, now()
        for column in range(first, first + steps):
            scores = model(input_ids=ids[:, column : column + 1], past_key_values=cache).logits[:, -1].float()
            if processor is not None:
                started = now()
                scores = processor(ids[:, : column + 1], scores)
                alone += now() - started
            scores.argmax(dim=-1)
        return (now() - began) / steps, alone / steps


def aurora_tokens(words: int) -> Any:
    """AURORA's 466 tokens behind so many words."""
    from llava_aurora.tokens.box import BoxKind
    from llava_aurora.tokens.depth import DepthKind
    from llava_aurora.tokens.perception import PerceptionTokens
    from llava_aurora.tokens.vocabulary import PerceptionIds, PerceptionVocabulary
    from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae

    depth, box = DepthKind(vqvae=build_depth_vqvae(DepthVQVAEConfig())), BoxKind()
    ids = PerceptionIds(
        vocabulary=PerceptionVocabulary((depth.family, box.family)),
        first_ids={"DEPTH": words, "PIXEL": words + len(depth.family.tokens)},
        separators={"PIXEL": (500,)},
    )
    return PerceptionTokens(kinds={"depth": depth, "box": box}, ids=ids)


def chains(perception: Any, *, rows: int, length: int) -> Any:
    """Words, points, a map, words, boxes, and again; every row at another place of it. int64 (rows, length)."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    depth, pixels = perception.vocabulary.families
    separator = perception.ids.separators["PIXEL"][0]

    def words(count: int) -> list[int]:
        return rng.integers(3, 500, count).tolist()

    def place(corners: int) -> list[int]:
        low = rng.integers(0, 160, 2).tolist()
        codes = [low, (np.array(low) + rng.integers(1, 170, 2)).tolist()][:corners]
        flat = [perception.ids.first_code_id(pixels) + code for corner in codes for code in corner]
        return [token for code in flat for token in (code, separator)][:-1]

    texts = []
    for row in range(rows):
        text: list[int] = []
        while len(text) < length + 25 * row:
            text += [token for _ in range(3) for token in (*words(2), *place(1))]
            text += [*words(5), *perception.ids.ids(depth, rng.integers(0, depth.size, depth.lengths[-1])), *words(25)]
            text += [token for _ in range(4) for token in (*words(3), *place(2))] + words(10)
        texts.append(text[25 * row : 25 * row + length])
    return torch.tensor(texts)


if __name__ == "__main__":
    main()
