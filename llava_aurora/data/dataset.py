"""LLaVA's dataset over a record store, and the batches that are made of it.

Every record is looked at once when its file is opened for the first time (record_file.py); after that it is read from
the store, changed by the ablations that the run asks for, and turned into tensors by upstream's own code.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from llava.train import train as upstream
from PIL import Image

from llava_aurora.data.ablations import Transform, check_coordinate_step, select_tasks, transforms
from llava_aurora.data.curriculum import Curriculum
from llava_aurora.data.record_file import read_records
from llava_aurora.data.schedule_file import read_schedule
from llava_aurora.data.store import RecordStore
from llava_aurora.errors import AuroraError
from llava_aurora.vocabulary import TokenFamily

__all__ = ["AuroraCollator", "AuroraDataset", "RecordView", "make_supervised_data_module", "read_records"]


class RecordView(Sequence[dict[str, Any]]):
    """The records of a store as a run reads them: each changed by the same transforms."""

    def __init__(self, store: RecordStore, transforms: Iterable[Transform] = ()) -> None:
        self.store, self.transforms = store, tuple(transforms)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: Any) -> Any:
        record = self.store[index]
        for transform in self.transforms:
            record = transform(record)
        return record


class AuroraDataset(upstream.LazySupervisedDataset):
    """LLaVA's dataset over checked records. An item has upstream's tensors, and its own index as "record_index".

    Args:
        data_path: a JSON file in LLaVA's format.
        tokenizer: with the perception tokens in it.
        data_args: LLaVA's.
        families: the token families to check, and to count in `modality_lengths`.
        train_tasks: names of tasks or kinds, with commas, to keep no other records; empty for all.
        transforms: what is done with each record when it is read.
    """

    def __init__(
        self,
        data_path: str,
        tokenizer: Any,
        data_args: Any,
        families: Iterable[TokenFamily] = (),
        *,
        train_tasks: str = "",
        transforms: Iterable[Transform] = (),
    ) -> None:
        # Upstream's own constructor would hold the whole file in memory, on every rank; this is all else that it does.
        super(upstream.LazySupervisedDataset, self).__init__()
        self.data_path, self.tokenizer, self.data_args = data_path, tokenizer, data_args
        self.store = select_tasks(RecordStore.open(data_path, families=families), train_tasks)
        self.list_data_dict = RecordView(self.store, transforms)
        self.curriculum: Curriculum | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            item = super().__getitem__(index)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            record = self.list_data_dict[index]
            raise AuroraError(
                f"{self.data_path}: record {self.store.row(index)} (id {record.get('id')}): cannot read its image"
                f" {Path(self.data_args.image_folder or '.') / record['image']}: {error}"
            ) from error
        return {**item, "record_index": index}

    @property
    def modality_lengths(self) -> list[int]:
        """Upstream counts words; a map is one word of a hundred tokens, so its tokens are counted as well."""
        return self.store.lengths.tolist()


@dataclass
class AuroraCollator(upstream.DataCollatorForSupervisedDataset):
    """Upstream's batch, and in it `record_indices`: which records of the dataset it is made of, int64 (B,)."""

    def __call__(self, instances: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(instances)
        batch["record_indices"] = torch.tensor([instance["record_index"] for instance in instances])
        return batch


def make_supervised_data_module(tokenizer: Any, data_args: Any) -> dict[str, Any]:
    """What LLaVA's train() asks for: datasets and collator. The tokenizer knows the perception tokens, if any.

    Raises:
        AuroraError: naming file and record, flag or schedule, for whatever of it a run cannot be made of.
    """
    perception = getattr(tokenizer, "perception", None)
    families = perception.vocabulary.families if perception else ()
    changes = transforms(plain_coordinates=data_args.plain_coordinates, coordinate_step=data_args.coordinate_step)

    def dataset(path: str, train_tasks: str) -> AuroraDataset:
        made = AuroraDataset(path, tokenizer, data_args, families, train_tasks=train_tasks, transforms=changes)
        if not data_args.coordinate_step:
            check_coordinate_step(made.store)
        return made

    train_dataset = dataset(data_args.data_path, data_args.train_tasks)
    if data_args.curriculum:
        train_dataset.curriculum = Curriculum(train_dataset.store, read_schedule(data_args.curriculum))
    return {
        "train_dataset": train_dataset,
        "eval_dataset": dataset(data_args.eval_data_path, "") if data_args.eval_data_path else None,
        "data_collator": AuroraCollator(tokenizer=tokenizer),
    }
