"""LLaVA's dataset over a record store, and the batches that are made of it.

Every record is looked at once when its file is opened for the first time (store/record_file.py); after that it is read
from the store, changed by the ablations that the run asks for, and turned into upstream's tensors: text by upstream's
own functions, images by images/image_reader.py.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from llava.train import train as upstream

from llava_aurora.data.ablations import Transform, ValueStep, check_chains, select_tasks, transforms
from llava_aurora.data.curriculum.sampler import Curriculum
from llava_aurora.data.curriculum.schedule_file import read_schedule
from llava_aurora.data.fresh_points import LEARNED_CODES, DrawnMaps, FreshPoints
from llava_aurora.data.images.image_reader import ImageChange, ImageReader
from llava_aurora.data.prompts import Prompts
from llava_aurora.data.records import RecordWriter
from llava_aurora.data.store.record_file import read_records
from llava_aurora.data.store.record_store import RecordStore
from llava_aurora.errors import AuroraError
from llava_aurora.tokens.perception import depth_and_box
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
        tokenizer: with the perception tokens in it.
        data_args: LLaVA's.
        families: the token families to check, and to count in `modality_lengths`.
        train_tasks: names of tasks or kinds, with commas, to keep no other records; empty for all.
        transforms: what is done with each record when it is read.
        image_change: asked with each record that has an image for what is to be drawn on it this time, or None. Images
            with something drawn on them bypass the image cache.
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
        image_change: Callable[[dict[str, Any]], ImageChange | None] | None = None,
        image_folder: str | None = None,
    ) -> None:
        # Upstream's own constructor would hold the whole file in memory, on every rank; this is all else that it does.
        super(upstream.LazySupervisedDataset, self).__init__()
        self.data_path, self.tokenizer, self.data_args = data_path, tokenizer, data_args
        self.store = select_tasks(RecordStore.open(data_path, families=families), train_tasks)
        self.list_data_dict = RecordView(self.store, transforms)
        self.curriculum: Curriculum | None = None
        self.fresh_points: FreshPoints | None = None
        self.image_change = image_change
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
        if learned := (record.get("aurora") or {}).get(LEARNED_CODES):
            _learn_codes(item["labels"], learned, self.tokenizer)
        if image is not None:
            item["image"] = image
        elif self.data_args.is_multimodal:
            size = self.data_args.image_processor.crop_size
            item["image"] = torch.zeros(3, size["height"], size["width"])
        return {**item, "record_index": index}

    def try_images(self) -> None:
        """Opens the images of some records, the same each time. Raises AuroraError for one that cannot be read."""
        count = min(len(self), RECORDS_TRIED)
        for index in np.random.default_rng(0).choice(len(self), count, replace=False).tolist():
            record = self.list_data_dict[index]
            if "image" in record:
                self._pixel_values(index, record)

    def _pixel_values(self, index: int, record: dict[str, Any]) -> torch.Tensor:
        change = self.image_change(record) if self.image_change else None
        try:
            return self.images.pixel_values(record["image"], change=change)
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
        batch["record_indices"] = torch.tensor([instance["record_index"] for instance in instances])
        return batch


def make_supervised_data_module(tokenizer: Any, data_args: Any) -> dict[str, Any]:
    """What LLaVA's train() asks for: datasets and collator. The tokenizer knows the perception tokens, if any.

    Raises:
        AuroraError: naming file and record, flag or schedule, for whatever of it a run cannot be made of.
    """
    perception = getattr(tokenizer, "perception", None)
    families = perception.vocabulary.families if perception else ()
    value_step = ValueStep.of(data_args.value_step, perception) if data_args.value_step else None
    ablations = transforms(
        plain_coordinates=data_args.plain_coordinates,
        coordinate_step=data_args.coordinate_step,
        value_step=value_step,
    )

    def dataset(
        path: str, train_tasks: str = "", fresh: FreshPoints | None = None, image_folder: str | None = None
    ) -> AuroraDataset:
        made = AuroraDataset(
            path,
            tokenizer,
            data_args,
            families,
            train_tasks=train_tasks,
            transforms=[fresh, *ablations] if fresh else ablations,
            image_change=fresh.image_change if fresh else None,
            image_folder=image_folder,
        )
        if fresh:
            fresh.check(made.store[index] for index in range(0, len(made), max(1, len(made) // RECORDS_TRIED)))
            made.fresh_points = fresh
            fresh.maps = DrawnMaps(made.store, depth_and_box(perception, "--fresh_points")[0].family)
        check_chains(made.store, ablations)
        return made

    def evaluation() -> AuroraDataset:
        made = dataset(data_args.eval_data_path, image_folder=data_args.eval_image_folder)
        made.try_images()  # a wrong folder would be found after the first steps of training only
        return made

    fresh = _fresh_points(data_args, perception, value_step) if data_args.fresh_points else None
    train_dataset = dataset(data_args.data_path, data_args.train_tasks, fresh)
    if data_args.image_cache:
        _ = train_dataset.images  # what is wrong with the cache is said now, and not by a worker
    if data_args.curriculum:
        train_dataset.curriculum = Curriculum(train_dataset.store, read_schedule(data_args.curriculum))
    return {
        "train_dataset": train_dataset,
        "eval_dataset": evaluation() if data_args.eval_data_path else None,
        "data_collator": AuroraCollator(tokenizer=tokenizer),
    }


def _fresh_points(data_args: Any, perception: Any, values: ValueStep | None) -> FreshPoints:
    """What draws marked points anew, in the wording of the records and the frame of the model's coordinates."""
    depth, box = depth_and_box(perception, "--fresh_points")
    prompts = Prompts.load(data_args.prompts) if data_args.prompts else Prompts()
    return FreshPoints(
        writer=RecordWriter(prompts=prompts, depth=depth.family, pixels=box.family),
        image_folder=data_args.image_folder,
        frame=box.frame,
        aspect_ratio=data_args.image_aspect_ratio,
        values=values,
        swapped=data_args.swapped_map_probability,
    )


def _learn_codes(labels: torch.Tensor, codes: Sequence[int], tokenizer: Any) -> None:
    """Puts the codes of a map in the place of others into labels int64 (T,); where none are learned nothing changes."""
    perception = tokenizer.perception
    family = perception.kinds["depth"].family
    first = perception.ids.first_code_id(family)
    places = ((labels >= first) & (labels < first + family.size)).nonzero().flatten()
    labels[places] = first + labels.new_tensor(codes[: len(places)])  # a record too long for the model is cut off
