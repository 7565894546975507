"""LLaVA's dataset over a record store, and the batches that are made of it.

Every record is looked at once when its file is opened for the first time (store/record_file.py); after that it is read
from the store, changed by the ablations that the run asks for, and turned into upstream's tensors: text by upstream's
own functions, images by images/image_reader.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from llava.train import train as upstream

from llava_aurora.data.curriculum.sampler import Curriculum
from llava_aurora.data.curriculum.schedule_file import read_schedule
from llava_aurora.data.images.image_reader import ImageReader
from llava_aurora.data.store.record_file import images_of, read_records
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.data.transforms.transform import Transform, build_transforms
from llava_aurora.errors import AuroraError
from llava_aurora.tokens.vocabulary import TokenFamily

RECORDS_TRIED = 50
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
        data_path: a file of records, or a folder of parts (`check_records`).
        data_args: LLaVA's.
        families: the token families to check, and to count in `modality_lengths`.
        train_tasks: names of tasks or kinds, with commas, to keep no other records; empty for all.
        transforms: what is done with each record when it is read. Images into which one of them draws bypass the image
            cache.
        image_folder: other than that of `data_args`.
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
        image_folder: str | None = None,
    ) -> None:
        # Upstream's own constructor would hold the whole file in memory, on every rank; this is all else that it does.
        super(upstream.LazySupervisedDataset, self).__init__()
        self.data_path, self.tokenizer, self.data_args = data_path, tokenizer, data_args
        self.store = RecordStore.open(data_path, families=families).of_tasks(train_tasks)
        self.transforms = tuple(transforms)
        self.list_data_dict = RecordView(self.store, self.transforms)
        self.curriculum: Curriculum | None = None
        self.image_folder = image_folder or data_args.image_folder

    @cached_property
    def images(self) -> ImageReader:
        """What reads the images, with the cache if there is one. Raises AuroraError if the cache cannot be used."""
        return ImageReader(
            folder=self.image_folder,
            processor=self.data_args.image_processor,
            aspect_ratio=self.data_args.image_aspect_ratio,
            upright=self.data_args.image_orientation == "upright",
            cache=self.data_args.image_cache,
            cache_gb=self.data_args.image_cache_gb,
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.list_data_dict[index]
        has_image = "image" in record
        image = self._pixel_values(index, record) if has_image else None
        sources = [record["conversations"]]  # ours alone: upstream may write into it
        if has_image:
            sources = upstream.preprocess_multimodal(sources, self.data_args)
        tokens = upstream.preprocess(sources, self.tokenizer, has_image=has_image)
        item = {"input_ids": tokens["input_ids"][0], "labels": tokens["labels"][0]}
        if image is not None:
            item["image"] = image
        elif self.data_args.is_multimodal:
            size = self.data_args.image_processor.crop_size
            item["image"] = torch.zeros(3, size["height"], size["width"])
        return {**item, "record_index": index}

    def start_epoch(self, epoch: int) -> None:
        """Tells the transforms which epoch is read next, before its workers are started."""
        for transform in self.transforms:
            transform.set_epoch(epoch)

    def try_images(self) -> None:
        """Opens the images of some records, the same each time. Raises AuroraError for one that cannot be read."""
        count = min(len(self), RECORDS_TRIED)
        for index in np.random.default_rng(0).choice(len(self), count, replace=False).tolist():
            record = self.list_data_dict[index]
            if "image" in record:
                self._pixel_values(index, record)

    def _pixel_values(self, index: int, record: dict[str, Any]) -> torch.Tensor:
        """(3, H, W), or of a record with several images (N, 3, H, W)."""
        changes = (transform.image_change(record) for transform in self.transforms)
        change = next((each for each in changes if each is not None), None)
        try:
            first, *others = images_of(record)
            pixels = [self.images.pixel_values(first, change=change), *map(self.images.pixel_values, others)]
            return torch.stack(pixels) if others else pixels[0]
        except Exception as error:  # whatever a processor makes of an odd picture, the record is named
            raise AuroraError(
                f"{self.data_path}: record {self.store.row(index)} (id {record.get('id')}): cannot read its image"
                f" {record['image']}: {error}"
            ) from error

    @property
    def modality_lengths(self) -> list[int]:
        """Upstream counts words; a map is one word of a hundred tokens, so its tokens are counted as well."""
        return self.store.lengths.tolist()


@dataclass
class AuroraCollator(upstream.DataCollatorForSupervisedDataset):
    """Upstream's batch, and in it `record_indices`: which records of the dataset it is made of, int64 (B,)."""

    def __call__(self, instances: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = super().__call__(instances)
        if any(instance["image"].dim() > 3 for instance in instances if "image" in instance):
            # LLaVA puts the images of a batch in the places for them one by one, whichever row these are in.
            several = (instance["image"] for instance in instances)
            batch["images"] = torch.cat([each if each.dim() > 3 else each[None] for each in several])
        batch["record_indices"] = torch.tensor([instance["record_index"] for instance in instances])
        return batch


def make_supervised_data_module(tokenizer: Any, data_args: Any) -> dict[str, Any]:
    """What LLaVA's train() asks for: datasets and collator. The tokenizer knows the perception tokens, if any.

    Raises AuroraError naming file and record, flag or schedule, for whatever of it a run cannot be made of.
    """
    perception = getattr(tokenizer, "perception", None)
    families = perception.vocabulary.families if perception else ()
    transforms = build_transforms(data_args, perception)

    def dataset(path: str, *, training: bool, image_folder: str | None = None) -> AuroraDataset:
        chosen = [transform for transform in transforms if training or not transform.training_only]
        made = AuroraDataset(
            path,
            tokenizer,
            data_args,
            families,
            train_tasks=data_args.train_tasks if training else "",
            transforms=chosen,
            image_folder=image_folder,
        )
        for transform in chosen:
            transform.check(made.store)
        return made

    def evaluation() -> AuroraDataset:
        made = dataset(data_args.eval_data_path, training=False, image_folder=data_args.eval_image_folder)
        made.try_images()  # a wrong folder would be found after the first steps of training only
        return made

    train_dataset = dataset(data_args.data_path, training=True)
    if data_args.image_cache:
        _ = train_dataset.images  # what is wrong with the cache is said now, and not by a worker
    if data_args.curriculum:
        train_dataset.curriculum = Curriculum(train_dataset.store, read_schedule(data_args.curriculum))
    return {
        "train_dataset": train_dataset,
        "eval_dataset": evaluation() if data_args.eval_data_path else None,
        "data_collator": AuroraCollator(tokenizer=tokenizer),
    }
