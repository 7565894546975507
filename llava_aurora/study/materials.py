"""What all runs of a study share: scenes, the VQ-VAE, training records, the first weights, and what needs no model.

scenes/maps/            many scenes whose maps and boxes are learned
scenes/questions_N/     the few scenes that are asked about, once for each draw of points and things
scenes/held_out/        for evaluation
vqvae/  records/  base-SEED/  limits.json
readings/               the records, and points to be read in the maps that are learned
practice/               the records, many points to be read in these maps, and questions about these maps as text
lookups/                the records, many points to be read in these maps, with their image and as text
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llava_aurora.data.fresh_points import MARKED_TASKS
from llava_aurora.data.prompts import Prompts
from llava_aurora.data.records import Record, RecordWriter
from llava_aurora.data.sources.depth.depth_estimation import default_device
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.data.sources.scenes.scene_records import SceneTasks, write_scene_records
from llava_aurora.demo.stages import Stages, build_base, mean_map, token_families, train_small_vqvae
from llava_aurora.evaluation.benchmarks.registry import BENCHMARKS, Wording
from llava_aurora.evaluation.written import closest_by
from llava_aurora.files import atomic_folder, read_json, write_json
from llava_aurora.study.contestants import Variant
from llava_aurora.study.sizes import Size
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.vqvae.autoencoder import DepthVQVAE
from llava_aurora.vqvae.checkpoint import load_depth_vqvae
from llava_aurora.vqvae.folders import encode_folder, read_codes
from llava_aurora.vqvae.maps import read_depth_map

_QUESTION_TASKS = (
    "depth_chain",
    "depth_direct",
    "depth_chain_from_coordinates",
    "depth_direct_from_coordinates",
    "counting_chain",
    "counting_direct",
)
_READ_POINTS = 12  # of a map, in practice; questions have 2 to 5
_PATHS = ("depth", "unmarked")  # under "aurora", relative to the scenes' folder


@dataclass(frozen=True)
class Materials:
    """Args: size: of the study; work: the folder that they lie in."""

    size: Size
    work: Path

    @property
    def images(self) -> Path:
        return self.work / "scenes"

    @property
    def held_out(self) -> Path:
        return self.images / "held_out"

    @property
    def records(self) -> Path:
        return self.work / "records" / "train.json"

    @property
    def readings(self) -> Path:
        return self.work / "readings" / "train.json"

    @property
    def practice(self) -> Path:
        return self.work / "practice" / "train.json"

    @property
    def lookups(self) -> Path:
        return self.work / "lookups" / "train.json"

    @property
    def vqvae(self) -> Path:
        return self.work / "vqvae"

    def base(self, seed: int) -> Path:
        return self.work / f"base-{seed}"

    def records_of(self, contestant: Variant) -> Path:
        """What it is trained on."""
        if contestant.order.startswith("reading"):
            return self.lookups
        if contestant.practises:
            return self.practice
        return self.readings if contestant.reads else self.records

    def prepare(self, stages: Stages, *, seeds: list[int], contestants: Iterable[Variant]) -> None:
        """Makes what is not there yet, of records only what these contestants need.

        Raises:
            AuroraError: if a stage fails.
        """
        stages.run("Render scenes", self.images, self._scenes)
        stages.run("Train the depth VQ-VAE", self.vqvae, self._vqvae)
        stages.run("Encode maps and write records", self.work / "records", self._records)
        needed = {self.records_of(contestant) for contestant in contestants}
        for path, what, make in (
            (self.readings, "Write records of values", self._readings),
            (self.practice, "Write records for practice", self._practice),
            (self.lookups, "Write records of maps as text", self._lookups),
        ):
            if path in needed:
                stages.run(what, path.parent, make)
        for seed in seeds:
            stages.run(f"Build a LLaVA, seed {seed}", self.base(seed), partial(self._base, seed=seed))
        stages.run("Read points out of true maps", self.work / "limits", self._limits)

    def limits(self) -> dict[str, dict[str, float]]:
        """Share of marked points ranked right without a model, by what they are read out of and number of points."""
        return read_json(self.work / "limits" / "limits.json", what="limits of the study")

    def _scenes(self, folder: Path) -> None:
        size = self.size
        counts = {"maps": size.maps, "questions_0": size.questions, "held_out": size.held_out}
        for number, (name, count) in enumerate(counts.items()):
            seed = size.seed + number
            write_scenes(out=folder / name, count=count, seed=seed, config=size.scene, workers=os.cpu_count() or 1)
        for draw in range(1, size.draws):
            shutil.copytree(folder / "questions_0", folder / f"questions_{draw}", dirs_exist_ok=True)

    def _vqvae(self, folder: Path) -> None:
        size = self.size
        train_small_vqvae(
            self.images / "maps" / "depth",
            folder,
            config=size.vqvae,
            epochs=size.vqvae_epochs,
            seed=size.seed,
            device=default_device(),
        )

    def _records(self, folder: Path) -> None:
        size, shares = self.size, {"depth_generation": 1.0, "point_location": self.size.located, "box_generation": 0.25}
        with atomic_folder(folder) as temporary:
            found = self._asked("maps", shares, seed=size.seed, codes=temporary / "maps.jsonl", temporary=temporary)
            for draw in range(size.draws):
                asked = self._asked(
                    f"questions_{draw}",
                    {task: 1.0 for task in _QUESTION_TASKS if size.marked or task not in MARKED_TASKS},
                    seed=size.seed + 1 + draw,
                    codes=temporary / "questions_0.jsonl",
                    temporary=temporary,
                )
                found += [record for record in asked if "counting" not in record["id"] or _scene(record) % 2 == 0]
            shuffled = [found[place] for place in np.random.default_rng(size.seed).permutation(len(found))]
            write_json(temporary / "train.json", shuffled, indent=None)

    def _readings(self, folder: Path) -> None:
        # Points anywhere: a reading has no answer that heights could give away, and values differ most by them.
        self._with_more(folder, {"depth_reading": 1.0}, one_height=False)

    def _practice(self, folder: Path) -> None:
        self._with_more(folder, {"depth_reading": 1.0, "depth_chain_from_map": 1.0}, read_points=_READ_POINTS)

    def _lookups(self, folder: Path) -> None:
        self._with_more(folder, {"depth_reading": 1.0, "depth_reading_from_map": 1.0}, read_points=_READ_POINTS)

    def _with_more(self, folder: Path, shares: dict[str, float], **settings: Any) -> None:
        """The records, and others about the scenes whose maps are learned."""
        with atomic_folder(folder) as temporary:
            codes = self.records.parent / "maps.jsonl"
            more = self._asked("maps", shares, seed=self.size.seed, codes=codes, temporary=temporary, **settings)
            known: list[Record] = read_json(self.records, what="records of the study")
            write_json(temporary / "train.json", known + more, indent=None)

    def _asked(
        self,
        name: str,
        shares: dict[str, float],
        *,
        seed: int,
        codes: Path,
        temporary: Path,
        one_height: bool = True,
        read_points: int | None = None,
    ) -> list[Record]:
        """Records of one folder of scenes, their paths from the folder above; codes are made if they are not there."""
        size, vqvae = self.size, self._loaded_vqvae()
        if not codes.exists():
            encode_folder(model=vqvae, maps=self.images / codes.stem / "depth", out=codes)
        tasks = SceneTasks(
            shares=shares,
            points=size.points,
            coordinate_frame=size.model.frame,
            one_height=one_height,
            read_points=read_points,
            seed=seed,
        )
        records = write_scene_records(
            temporary / f"{name}.json",
            scenes=self.images / name,
            codes=read_codes(codes, model=vqvae).codes,
            writer=self._writer(),
            tasks=tasks,
        )
        return [_moved(record, name) for record in records]

    def _loaded_vqvae(self) -> DepthVQVAE:
        return load_depth_vqvae(self.vqvae).to(default_device())

    def _writer(self) -> RecordWriter:
        depth, pixels = token_families(self.size.vqvae, frame=self.size.model.frame)
        return RecordWriter(prompts=Prompts.plain(), depth=depth, pixels=pixels)

    def _base(self, folder: Path, *, seed: int) -> None:
        families = token_families(self.size.vqvae, frame=self.size.model.frame)
        build_base(folder, records=self.records, families=families, config=self.size.model, seed=seed)

    def _limits(self, folder: Path) -> None:
        frame = self.size.model.frame
        kind = DepthKind(vqvae=self._loaded_vqvae())
        wording = Wording(frame, token_families(self.size.vqvae, frame=frame)[1])
        questions = BENCHMARKS[self.size.depth_benchmarks[0]].read(self.held_out, wording).questions
        mean = mean_map(self.images / "maps" / "depth", size=frame)
        copies: dict[Path, Any] = {}
        right: dict[str, dict[str, list[bool]]] = {"the VQ-VAE's copy of the true map": {}, "the mean map": {}}
        for question in questions:
            assert question.depth is not None, "scenes have depth"
            if question.depth not in copies:
                copies[question.depth] = kind.decode(kind.encode(read_depth_map(question.depth)))
            for depth, by_category in zip((copies[question.depth], mean), right.values(), strict=True):
                answer = closest_by(depth, question.points, frame=frame)
                by_category.setdefault(question.category, []).append(answer == question.answer)
        shares = {
            name: {category: sum(found) / len(found) for category, found in by_category.items()}
            for name, by_category in right.items()
        }
        write_json(folder / "limits.json", shares)


def _scene(record: Record) -> int:
    return int(record["id"].split("/")[1])


def _moved(record: Record, folder: str) -> Record:
    """A record as one of the folder above its own."""
    about = {name: f"{folder}/{value}" if name in _PATHS else value for name, value in record["aurora"].items()}
    image = {"image": f"{folder}/{record['image']}"} if "image" in record else {}
    return {**record, "id": f"{folder}/{record['id']}", **image, "aurora": about}
