"""Batches of the pretraining: conversations in LLaVA's own form (template v1), as token ids with labels.

The batch of a step depends on seed and step alone, so that a run that was stopped goes on with what comes next. Half of
the rows hold an image, whose turns share its tokens; each is filled up with questions that need none.

In tables of what an image shows the entry before is nearly always a good guess, so that the image would hardly be
looked at. Most of these answers are therefore read with wrong entries in them; what is learned are the right ones.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from llava.constants import IGNORE_INDEX
from llava.conversation import conv_templates
from torch import Tensor
from torch.utils.data import Dataset
from transformers import LlamaTokenizer

from tiny.image_tasks import TABLES, about_scene, marked, mirrored
from tiny.image_tasks import labels as labels_of_cells
from tiny.pictures import GRID, Pictures
from tiny.text_tasks import TEXT_TASKS, level, weights

IMAGE_TOKENS = GRID**2
_TEMPLATE = conv_templates["vicuna_v1"]
_USER, _ASSISTANT = _TEMPLATE.roles
_WRONG = 0.7  # of the tables of what an image shows


class Turn(NamedTuple):
    ability: str
    question: str
    answer: str


@dataclass(frozen=True)
class Batch:
    """Args:
    ids: int64 (B, T); 0 where an image token or nothing stands.
    labels: int64 (B, T), IGNORE_INDEX where nothing is learned; that of position t is the token behind t.
    images: uint8 (I, S, S, 3) of the first I rows.
    more: uint8 (M, S, S, 3), images that the tower alone is taught about.
    seen: int64 (I + M, 5, cells), what the tower itself is taught of all of them (`image_tasks.labels`).
    abilities: of each turn its ability, row, and the slice of its labels.
    """

    ids: Tensor
    labels: Tensor
    images: Tensor
    more: Tensor
    seen: Tensor
    abilities: list[tuple[str, int, int, int]]


class Encoder:
    """Writes conversations as ids, exactly as LLaVA's `preprocess_v1` does.

    Attributes:
        image_at: where the image tokens begin in a row that has an image.
    """

    def __init__(self, tokenizer: LlamaTokenizer) -> None:
        self.tokenizer = tokenizer
        self.before_image = self.ids(f"{_TEMPLATE.system} {_USER}: ", first=True)
        self.image_at = len(self.before_image)

    def ids(self, text: str, *, first: bool = False) -> list[int]:
        """The pieces of a part of a text that begins at a blank, a special token or, `first`, at its very beginning."""
        pieces = self.tokenizer.tokenize(text) if first else self.tokenizer.tokenize(f"<s>{text}")[1:]
        return ([self.tokenizer.bos_token_id] if first else []) + self.tokenizer.convert_tokens_to_ids(pieces)

    def row(self, turns: list[Turn], *, length: int, image: bool, system: bool) -> tuple[list[int], list[int], list]:
        """Ids, labels and the places of the answers of those turns, one after the other, that fit into `length`."""
        end = [self.tokenizer.eos_token_id]
        ids = [*self.before_image, *[0] * IMAGE_TOKENS] if image else []
        labels, places = [IGNORE_INDEX] * len(ids), []
        for turn in turns:
            if not ids:
                asked = self.ids(
                    f"{_TEMPLATE.system} {_USER}: {turn.question} {_ASSISTANT}:"
                    if system
                    else f"{_USER}: {turn.question} {_ASSISTANT}:",
                    first=True,
                )
            elif not places and image:
                asked = self.ids(f"\n{turn.question} {_ASSISTANT}:", first=True)[1:]
            else:
                asked = self.ids(f"{_USER}: {turn.question} {_ASSISTANT}:")
            said = [*self.ids(f" {turn.answer}"), *end]
            if len(ids) + len(asked) + len(said) > length:
                continue
            places.append((turn.ability, len(ids) + len(asked) - 1, len(ids) + len(asked) + len(said) - 1))
            ids += asked + said
            labels += [IGNORE_INDEX] * len(asked) + said
        return ids, labels, places

    def with_wrong_entries(self, rng: np.random.Generator, row: tuple[list[int], list[int], list]) -> None:
        """Exchanges, in place, entries of most tables of an image; what is read in such a table is not learned."""
        ids, labels, places = row
        for ability, start, stop in places:
            if ability in TABLES and rng.random() < _WRONG:
                pieces = self.tokenizer.convert_ids_to_tokens(ids[start + 1 : stop + 1])
                end = start + 1 + next((place for place, piece in enumerate(pieces) if piece == "."), len(pieces) - 1)
                begun = 1 + pieces.index("▁is") if "▁is" in pieces[:4] else 0
                entries = [start + 1 + at for at, piece in enumerate(pieces) if at >= begun and piece[0] == "▁"]
                entries = [place for place in entries if place < end]
                found, share = [ids[place] for place in entries], rng.uniform(0.2, 1.0)
                for place in entries:
                    if rng.random() < share:
                        ids[place] = found[rng.integers(len(found))]
                labels[end + 1 : stop + 1] = [IGNORE_INDEX] * (stop - end)


class Batches(Dataset):
    """Args:
    pictures, tokenizer: of the training or the held-out scenes.
    images, texts: rows of a batch with an image, and without.
    more: images of a batch that the tower alone is taught about.
    length: of a row.
    steps: batches in all, over which lists and tables grow to their full length in the first fifth.
    seed: of everything.
    wrong: whether tables of an image are read with wrong entries in them.
    """

    def __init__(
        self,
        pictures: Pictures,
        tokenizer: LlamaTokenizer,
        *,
        images: int,
        more: int,
        texts: int,
        length: int,
        steps: int,
        seed: int,
        wrong: bool,
    ) -> None:
        self.wrong = wrong
        self.pictures, self.encoder = pictures, Encoder(tokenizer)
        self.images, self.more, self.texts, self.length, self.steps, self.seed = (
            images,
            more,
            texts,
            length,
            steps,
            seed,
        )

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        rows, images, seen = [], [], []
        for _ in range(self.images):
            image, turns, labels = self._about_image(rng)
            images.append(image)
            seen.append(labels)
            turns += self._text(rng, step)  # what is left of the row
            rows.append(self.encoder.row(turns, length=self.length, image=True, system=True))
            if self.wrong:
                self.encoder.with_wrong_entries(rng, rows[-1])
        for _ in range(self.texts):
            system, row = rng.random() < 0.25, None
            while row is None or not row[2]:  # until one of the turns fits
                row = self.encoder.row(self._text(rng, step), length=self.length, image=False, system=system)
            rows.append(row)
        more = [self._about_image(rng) for _ in range(self.more)]
        images += [image for image, _, _ in more]
        seen += [labels for _, _, labels in more]
        return collate(rows, images, seen, length=self.length, more=self.more)

    def _about_image(self, rng: np.random.Generator) -> tuple[np.ndarray, list[Turn], np.ndarray]:
        index = int(rng.integers(len(self.pictures.images)))
        image, cells, objects = self.pictures.images[index], self.pictures.cells[index], self.pictures.objects[index]
        if rng.random() < 0.5:
            image, (cells, objects) = image[:, ::-1], mirrored(cells, objects)
        objects = sorted(objects, key=lambda each: each[1])
        if rng.random() < 0.45:
            drawn, turns, marks = marked(rng, np.ascontiguousarray(image), cells, objects)
        else:
            drawn, turns, marks = np.ascontiguousarray(image), about_scene(rng, image, cells, objects), {}
        return drawn, [Turn(*turn) for turn in turns], labels_of_cells(cells, objects, marks)

    def _text(self, rng: np.random.Generator, step: int) -> list[Turn]:
        """More turns than fit."""
        drawn = weights(step)
        names, shares = list(drawn), np.array(list(drawn.values()))
        turns: list[Turn] = []
        while sum(len(turn.question) + len(turn.answer) for turn in turns) < 3 * self.length:
            name = names[rng.choice(len(names), p=shares / shares.sum())]
            turns += [Turn(name, *turn) for turn in TEXT_TASKS[name](rng, level(name, step, self.steps))]
        return turns


def collate(rows: list, images: list[np.ndarray], seen: list[np.ndarray], *, length: int, more: int) -> Batch:
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    labels = torch.full((len(rows), length), IGNORE_INDEX)
    abilities = []
    for number, (row, learned, places) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        labels[number, : len(row) - 1] = torch.tensor(learned[1:])
        abilities += [(ability, number, start, stop) for ability, start, stop in places]
    pictures = torch.from_numpy(np.stack(images))
    count = len(images) - more
    return Batch(ids, labels, pictures[:count], pictures[count:], torch.from_numpy(np.stack(seen)), abilities)
