"""Questions about single pixels of one image: packed into rows behind one image, against batches and one at a time.

    python benchmarks/packed_queries.py
    python benchmarks/packed_queries.py --model checkpoints/mine --device cuda --side 64 --asked 64

Without --model, a LLaVA of random weights with LLaVA 1.5's frame (336 pixels, 576 image tokens) and colour tokens.
Every one of side × side pixels is asked packed; `--asked` of them also one at a time and in batches, whose seconds and
tokens a pixel are compared. The answers have to be the same.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from harness import Parser, interleaved, report, times_as_fast
from PIL import Image

from llava_aurora.data.images.seen_colors import seen_colors
from llava_aurora.data.sources.scenes.scene import SceneConfig, render_scene, scene_seed
from llava_aurora.demo.tiny_llava import TinyLlavaConfig, build_tiny_llava
from llava_aurora.evaluation.pixel_probe import pixel_questions, probe
from llava_aurora.generation.predictor import Predictor
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.model.embeddings import RowStart, grow_embeddings
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens

FRAME = 336
ONE, BATCH, PACKED = "one at a time", "batches of 16", "packed"


def main() -> None:
    parser = Parser(__doc__, rounds=3)
    parser.add_argument("--model", help="a checkpoint; with colour tokens, or it is asked in plain text")
    parser.number("--side", 64, "of the grid of pixels that are asked packed")
    parser.number("--asked", 32, "pixels that are also asked one at a time")
    options = parser.options()
    with tempfile.TemporaryDirectory() as folder:
        if options.model:
            predictor = Predictor.from_pretrained(options.model, device=options.device)
        else:
            predictor = random_model(Path(folder), options.device)
    image = Image.fromarray(render_scene(seed=scene_seed(1, 0), config=SceneConfig(frame=predictor.image_size)).image)
    true = seen_colors(image, aspect_ratio=predictor.aspect_ratio, side=options.side)
    cells = [(int(column), int(row)) for row, column in np.argwhere(true[..., 0] >= 0)]
    chosen = [cells[place] for place in np.random.default_rng(0).permutation(len(cells))[: options.asked]]
    questions, how = pixel_questions(predictor, true, chosen)
    images, answers = [image] * len(questions), dict[str, list[Any]]()

    def ask(name: str, size: int, **more: Any) -> None:
        answers[name] = []
        for start in range(0, len(questions), size):
            part = slice(start, start + size)
            answers[name] += predictor.write(images[part], questions[part], **how, **more)

    ways = {
        ONE: lambda: ask(ONE, 1),
        BATCH: lambda: ask(BATCH, 16),
        PACKED: lambda: ask(PACKED, len(questions), decoding="packed"),
        "all": lambda: whole.append(probe(predictor, image, side=options.side)),
    }
    whole: list[Any] = []
    seconds = interleaved(ways, rounds=options.rounds)
    alone = sum(each.timings.token_passes for each in answers[ONE]) / len(questions)
    rows = []
    for name in (ONE, BATCH, PACKED):
        same = [ours.ids == theirs.ids for ours, theirs in zip(answers[name], answers[ONE], strict=True)]
        row = {"way": name, "ms_a_pixel": 1000 * statistics.median(seconds[name]) / len(questions)}
        rows.append({**row, **times_as_fast(seconds, name, ONE), "same_answers": statistics.mean(same)})
    spent = statistics.median(seconds["all"])
    rows.append({"way": f"packed, all {len(cells)}", "ms_a_pixel": 1000 * spent / len(cells)})
    passes = whole[-1].token_passes
    report(
        "packed_queries",
        rows,
        options,
        tokens_read_for_all=passes,
        tokens_read_one_at_a_time=round(alone * len(cells)),
        fewer_tokens=round(alone * len(cells) / passes, 1),
        seconds_for_all=round(spent, 2),
        **({} if all(row.get("same_answers", 1) == 1 for row in rows) else {"other_answers_than_alone": True}),
    )


def random_model(folder: Path, device: str) -> Predictor:
    """A LLaVA of random weights that sees 336 pixels in 576 tokens, with tokens of coordinates and colours."""
    sizes = TinyLlavaConfig(
        frame=FRAME, patch=14, vision_width=64, vision_layers=1, vision_heads=2, layers=2, max_length=1024
    )
    build_tiny_llava(folder / "model", corpus=["What colour is the pixel?"] * 50, config=sizes, seed=0)
    tokenizer, model, processor, _ = load_pretrained_model(str(folder / "model"), device=device)
    perception = PerceptionTokens.teach(tokenizer, build_kinds({"box": {"frame": FRAME}, "color": {}}, folder))
    grow_embeddings(model, rows=len(tokenizer), ids=perception.token_ids(), start=RowStart(method="noise"))
    model.attach_perception(perception)
    return Predictor(tokenizer=tokenizer, model=model, image_processor=processor)


if __name__ == "__main__":
    main()
