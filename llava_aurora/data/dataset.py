"""Training records as LLaVA reads them, checked before the first step.

Every record is looked at once when the file is opened: its structure, and each span of perception tokens in it. What
is wrong is said in one line that names file and record, before any time on a GPU is spent.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from llava.train import train as upstream
from PIL import Image

from llava_aurora.atomic import read_json
from llava_aurora.errors import AuroraError
from llava_aurora.vocabulary import TokenFamily

SPEAKERS = ("human", "gpt")


def read_records(path: str | Path, *, families: Iterable[TokenFamily] = ()) -> list[dict[str, Any]]:
    """Reads a training file in LLaVA's JSON format and checks it.

    Raises:
        AuroraError: naming file and record, if it is no such file or a span of tokens in it is malformed.
    """
    records = read_json(path, what="training records")
    if not isinstance(records, list) or not records:
        raise AuroraError(f"{path}: not LLaVA's format: a JSON list of records is expected, with at least one")
    families = tuple(families)
    for index, record in enumerate(records):
        if problem := _problem(record, families):
            name = f" (id {record['id']})" if isinstance(record, dict) and "id" in record else ""
            raise AuroraError(f"{path}: record {index}{name}: {problem}")
    return records


def _problem(record: Any, families: tuple[TokenFamily, ...]) -> str | None:
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        return 'not LLaVA\'s format: {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}]} is expected'
    turns = record["conversations"]
    if len(turns) < 2:
        return "a conversation has at least a question and an answer"
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            return f"turn {number} has no text under 'value'"
        if turn.get("from") != SPEAKERS[number % 2]:
            return f"turn {number} is from {turn.get('from')!r}; 'human' and 'gpt' take turns, 'human' first"
        for family in families:
            try:
                family.parse(turn["value"])
            except AuroraError as error:
                return f"turn {number}: {error}"
    places = sum(turn["value"].count(upstream.DEFAULT_IMAGE_TOKEN) for turn in turns)
    if "image" in record and places != 1:
        return f"has an image and {places} places for it; exactly one {upstream.DEFAULT_IMAGE_TOKEN} is expected"
    if "image" not in record and places:
        return f"has {upstream.DEFAULT_IMAGE_TOKEN} in its text but no image"
    return None


class AuroraDataset(upstream.LazySupervisedDataset):
    """LLaVA's dataset over checked records.

    Args:
        data_path: a JSON file in LLaVA's format.
        tokenizer: with the perception tokens in it.
        data_args: LLaVA's.
        families: the token families to check, and to count in `modality_lengths`.
    """

    def __init__(self, data_path: str, tokenizer: Any, data_args: Any, families: Iterable[TokenFamily] = ()) -> None:
        self.data_path = data_path
        self.families = tuple(families)
        read_records(data_path, families=self.families)
        super().__init__(data_path, tokenizer, data_args)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        try:
            return super().__getitem__(index)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            record = self.list_data_dict[index]
            raise AuroraError(
                f"{self.data_path}: record {index} (id {record.get('id')}): cannot read its image"
                f" {Path(self.data_args.image_folder or '.') / record['image']}: {error}"
            ) from error

    @property
    def modality_lengths(self) -> list[int]:
        """Upstream counts words; a map is one word of a hundred tokens, so its tokens are counted as well."""
        lengths = []
        for length, record in zip(super().modality_lengths, self.list_data_dict, strict=True):
            text = "".join(turn["value"] for turn in record["conversations"])
            tokens = sum(family.count(text) for family in self.families)
            lengths.append(length + tokens if length > 0 else length - tokens)
        return lengths


def make_supervised_data_module(tokenizer: Any, data_args: Any) -> dict[str, Any]:
    """What LLaVA's train() asks for: dataset and collator. The tokenizer knows the perception tokens, if any."""
    perception = getattr(tokenizer, "perception", None)
    families = perception.vocabulary.families if perception else ()
    dataset = AuroraDataset(data_args.data_path, tokenizer, data_args, families=families)
    return {
        "train_dataset": dataset,
        "eval_dataset": None,
        "data_collator": upstream.DataCollatorForSupervisedDataset(tokenizer=tokenizer),
    }
