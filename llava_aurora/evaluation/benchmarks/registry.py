"""Every benchmark by its name. A new one is a line here and a function that reads it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava_aurora.errors import AuroraError
from llava_aurora.evaluation.benchmarks import published
from llava_aurora.evaluation.benchmarks.mask_questions import read_grounded, read_refcoco, read_scene_masks
from llava_aurora.evaluation.benchmarks.question import QuestionSet
from llava_aurora.evaluation.benchmarks.record_questions import read_record_questions
from llava_aurora.evaluation.benchmarks.scene_questions import read_scene_counting, read_scene_depth
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import TokenFamily


@dataclass(frozen=True)
class Wording:
    """How a model is spoken to: the frame of its coordinates, its tokens, and how it is shown an image."""

    frame: int
    families: tuple[TokenFamily, ...] = ()
    aspect_ratio: str = "resize"

    @classmethod
    def of(cls, perception: PerceptionTokens | None, *, image_size: int, aspect_ratio: str = "resize") -> "Wording":
        """That of a model whose vision tower sees `image_size` pixels a side."""
        kinds = perception.kinds if perception is not None else {}
        frame = kinds["box"].family.size if "box" in kinds else image_size
        return cls(frame, tuple(kind.family for kind in kinds.values()), aspect_ratio)

    @property
    def writer(self) -> RecordWriter:
        return RecordWriter(prompts=Prompts.plain(), families=self.families)


Read = Callable[[Path, Wording], QuestionSet]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark."""

    title: str  # as reports call it
    family: str | None  # name of the task family that it is about; None where its records say so
    read: Read  # questions from a folder
    of_phrases: bool = False  # each asks for the mask of a phrase


def _scenes(*, marked: bool, one_height: bool = False) -> Read:
    def read(folder: Path, wording: Wording) -> QuestionSet:
        return read_scene_depth(
            folder, writer=wording.writer, frame=wording.frame, marked=marked, one_height=one_height
        )

    return read


BENCHMARKS: dict[str, Benchmark] = {
    "hardblink": Benchmark("HardBLINK", "depth", lambda folder, _: published.read_hardblink_questions(folder)),
    "blink_depth": Benchmark("BLINK, relative depth", "depth", lambda folder, _: published.read_blink_depth(folder)),
    "cv_bench_depth": Benchmark("CV-Bench, depth", "depth", lambda folder, _: published.read_cv_bench_depth(folder)),
    "blink_counting": Benchmark("BLINK, counting", "counting", lambda folder, _: published.read_blink_counting(folder)),
    "cv_bench_counting": Benchmark(
        "CV-Bench, counting", "counting", lambda folder, _: published.read_cv_bench_counting(folder)
    ),
    "seed_bench_counting": Benchmark(
        "SEED-Bench, counting", "counting", lambda folder, _: published.read_seed_bench_counting(folder)
    ),
    "scenes_depth": Benchmark("Ray-cast scenes, marked points", "depth", _scenes(marked=True)),
    "scenes_coordinates": Benchmark("Ray-cast scenes, points by coordinates", "depth", _scenes(marked=False)),
    "scenes_one_height": Benchmark(
        "Ray-cast scenes, marked points at one height", "depth", _scenes(marked=True, one_height=True)
    ),
    "scenes_one_height_coordinates": Benchmark(
        "Ray-cast scenes, points at one height by coordinates", "depth", _scenes(marked=False, one_height=True)
    ),
    "scenes_counting": Benchmark(
        "Ray-cast scenes, counting",
        "counting",
        lambda folder, wording: read_scene_counting(folder, writer=wording.writer, frame=wording.frame),
    ),
    "scenes_masks": Benchmark(
        "Ray-cast scenes, masks of phrases",
        "masks",
        lambda folder, wording: read_scene_masks(folder, aspect_ratio=wording.aspect_ratio),
        of_phrases=True,
    ),
    "grounded": Benchmark(
        "Ray-cast scenes, descriptions with masks",
        "masks",
        lambda folder, wording: read_grounded(folder, aspect_ratio=wording.aspect_ratio),
    ),
    "refcoco": Benchmark(
        "RefCOCO, RefCOCO+, RefCOCOg",
        "masks",
        lambda folder, wording: read_refcoco(folder, aspect_ratio=wording.aspect_ratio),
        of_phrases=True,
    ),
}
BENCHMARKS["records"] = Benchmark("Own records", None, lambda folder, _: read_record_questions(folder))
GROUPS = {"scenes": ("scenes_depth", "scenes_coordinates", "scenes_counting"), "masks": ("scenes_masks", "grounded")}


def benchmark_names(names: Sequence[str]) -> list[str]:
    """The benchmarks that are meant, groups spelled out. Raises AuroraError for a name that is none."""
    found: list[str] = []
    for name in names:
        if name not in BENCHMARKS and name not in GROUPS:
            raise AuroraError(f"unknown benchmark {name!r}; available: {', '.join([*GROUPS, *BENCHMARKS])}")
        found += [each for each in GROUPS.get(name, (name,)) if each not in found]
    return found
