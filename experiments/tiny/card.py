"""The card of the tiny base: how it was made, what it can do, measured, and what it cannot."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from llava_aurora.report.document import Section, Table, write_markdown

WHAT = (
    "An ordinary LLaVA checkpoint: a CLIP-like tower (frame 112, patch 16, width 128, 4 layers), an"
    " `mlp2x_gelu` projector, a Llama (width 192, 5 layers, 6 heads), a SentencePiece tokenizer of 1,232"
    " pieces; 2.9 million parameters in bfloat16. LLaVA's own loader reads it once `mm_vision_tower` in"
    " config.json is the path of the folder `vision_tower`;"
    " `llava_aurora.demo.tiny_base.copy_tiny_base(FOLDER)` writes such a copy. It is what `llava-aurora demo`"
    " starts from.",
    "`depth_vqvae/` is the depth VQ-VAE of the demo (7 × 7 codes out of 32), trained separately on the depth maps"
    " of 5,000 other scenes. The model has never seen depth.",
)
HOW = (
    "`python experiments/pretrain_tiny.py --out FOLDER`, hours on one CPU core with AMX. Trained on conversations"
    " in LLaVA's template v1 about 16,000 ray-cast scenes and about text alone, without depth, boxes, or numbers of"
    " objects; a place in an image is given in pixels of the frame. In addition to next-token prediction, linear heads"
    " on the image tokens learn what each cell of a 7 × 7 grid shows; they are discarded after training.",
    "Tables of an image (what each cell shows, or how bright, red, green or blue it is, as a number) are mostly learned"
    " behind wrong entries, so that an entry is read from the image and not guessed from those before it.",
    "Coordinates from 0 to 111 and two-digit numbers are one piece each. With `--perception_init words` a new token is"
    " initialized with the piece of the number that it stands for (a coordinate, or the closeness of a code), so that"
    " abilities to copy, look up and compare numbers transfer to the new tokens.",
    "This model was trained in parts while its tasks were being written: 8,300 steps with an earlier tokenizer; then,"
    " with the rows of common pieces carried over, 20,000 steps, whose tables of numbers and wrong entries came in"
    " after the first 8,000; then 6,000 steps of a cosine to 30,000, in which marks stand anywhere in the image, nearly"
    " half of the images have marks, and the tower alone is taught about further images (24, later 56 a step). The"
    " script does all of it in one run of 20,000 steps, which gives a different model of the same kind; that run was"
    " not made.",
    "The last part raised what is found of marks: of the demo's own kind, asked in this model's words, 52 % instead of"
    " 30 % are within 8 pixels (515 marks, after 4,250 of those steps). More steps were not shown to help maps: after"
    " fine-tuning on 6,400 records at a rate of 1e-3, the closest of 3 to 5 points was right by 44 % of 48 written maps"
    " from 28,250 steps, by 85 % from 24,250 on 8,000 records; 85 % from 26,000 in the demo (239 maps; one seed each).",
    "Seeds of scenes: 1,000,000 for training, 1,000,001 for the table below, 1,000,002 for the VQ-VAE; the demo uses 0"
    " and 1.",
)
MEASURED = (
    "Held-out questions with teacher forcing: an answer is right if the most likely token is right at every position;"
    " coordinates of objects and marks may be 8 pixels off. Tables have 7 × 7 words or numbers, and three to six"
    " entries are asked at once (numbers between four entries); *copy* is of up to 40 words. A table of an image"
    " is right only if all 49 entries are, which for shades never happens. Abilities with a low share are unreliable."
)


def write_card(folder: Path, abilities: Mapping[str, tuple[int, int]]) -> None:
    """README.md of a base. Args: folder: of the base; abilities: right answers and all, by name."""
    rows = [(name, f"{100 * right / count:.1f}", str(count)) for name, (right, count) in abilities.items()]
    hashes = [
        (path.relative_to(folder).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*.safetensors"))
    ]
    sections = [
        Section("What it is", list(WHAT), [Table("", ("file", "SHA-256"), hashes)]),
        Section("How it was made", list(HOW)),
        Section("What it can do", [MEASURED], [Table("", ("ability", "right, %", "questions"), rows)]),
    ]
    write_markdown(folder / "README.md", "A tiny LLaVA that reads a little", sections)
