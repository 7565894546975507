"""The pre-flight check of `data check`: every record and every image of a training file.

The file is streamed. Worker processes check portions of records and images; their findings are merged in the order of
the file. Only names and hashes of images are kept.
"""

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava_aurora.batches import batches
from llava_aurora.data.images.image_files import path_inside
from llava_aurora.data.store.parquet_file import Unreadable
from llava_aurora.data.store.record_file import as_trained, images_of, part_files, unchecked_records
from llava_aurora.data.store.record_progress import follow
from llava_aurora.data.store.record_store import record_length
from llava_aurora.data.validation.findings import Findings, ValidationReport
from llava_aurora.data.validation.frames import FrameChecks
from llava_aurora.data.validation.images import Examined, ImageList, Listed, examine
from llava_aurora.data.validation.records import Report, TextChecks, record_name
from llava_aurora.errors import AuroraError
from llava_aurora.tasks.registry import task_name
from llava_aurora.tokens.vocabulary import TokenFamily, any_mask_family, depth_family, pixel_family

if TYPE_CHECKING:
    from llava_aurora.data.validation.labels import ModelLimits

RECORDS_AT_ONCE = 256
IMAGES_AT_ONCE = 32
PORTIONS_WAITING = 4  # for each worker
BYTES_WORTH_A_PROCESS = 2_000_000  # it takes seconds to start
RECORDS_WITHOUT_MAPS = 10_000  # after so many, a file is taken to hold no maps
ANY_CODE = 10**6

Named = tuple[str, Any]  # name in the report, record


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What is checked."""

    # token families of the model; if left out, coordinates of the frame, and depth maps of any codebook, all with as
    # many codes as the first one in the file
    families: tuple[TokenFamily, ...] = ()
    frame: int = 336  # side of the frame that coordinates refer to
    model: "ModelLimits | None" = None  # its ModelLimits; None leaves out what needs a tokenizer
    image_folder: Path | None = None  # None leaves images out
    aspect_ratio: str = "pad"  # how training shows images, --image_aspect_ratio
    quick: bool = False  # read headers of images alone; nothing is decoded or compared
    eval_data: Path | None = None  # records or questions, each with an "image", whose images must not be trained on
    eval_image_folder: Path | None = None  # of those; the same folder if left out
    distance: int = 5  # most bits of 128 in which two hashes of the same picture differ, 0 … 7
    workers: int = 1  # most processes; a small file is checked in this one


def check_file(path: str | Path, settings: CheckSettings) -> ValidationReport:
    """Checks a file of training records, with progress on stderr.

    Args:
        path: what training reads: a JSON list, .jsonl, .parquet, or a folder of parts.
    Raises AuroraError if the file cannot be read or is empty. Faults of single records and images are in the report.
    """
    path, findings, images = Path(path), Findings(), ImageList()
    unchecked = tuple(_unchecked(settings))
    if not settings.families:
        families = (_family_of(path), pixel_family(frame=settings.frame), any_mask_family())
        settings = replace(settings, families=families)
        unchecked += (
            f"codes against a codebook (--model or --depth-vqvae); {families[0].lengths[0]} codes a map are expected,"
            f" as in the first, and coordinates in a frame of {settings.frame} (--frame)",
        )

    def examine_all(named: Iterable[Listed]) -> None:
        for portion in batches(images.new(named), IMAGES_AT_ONCE):
            paths = [image.path for image in portion]
            workers.submit(_examine, paths, settings.quick, then=partial(images.take, portion, findings))

    size = sum(part.stat().st_size for part in part_files(path) if part.exists())
    with _Workers(settings, most=size // BYTES_WORTH_A_PROCESS) as workers:
        for records in batches(named_records(path, title=f"{path}: checking"), RECORDS_AT_ONCE):
            workers.submit(_check, records, then=findings.merge)
            if settings.image_folder is not None:
                examine_all(_images(records, settings.image_folder, evaluation=False))
        if settings.eval_data is not None and settings.image_folder is not None:
            folder = settings.eval_image_folder or settings.image_folder
            for records in batches(named_records(settings.eval_data, title=f"{settings.eval_data}"), RECORDS_AT_ONCE):
                held_out = [(f"{settings.eval_data.name}: {where}", record) for where, record in records]
                for where, record in held_out:
                    if isinstance(record, Unreadable):
                        findings.add("format", where, record.problem)
                examine_all(_images(held_out, folder, evaluation=True))
    images.compare(findings, distance=settings.distance)
    return ValidationReport(
        source=path,
        findings=findings,
        unchecked=unchecked,
        in_tokens=settings.model is not None,
        max_length=settings.model.max_length if settings.model else None,
    )


def _family_of(path: Path) -> TokenFamily:
    """Depth tokens of any code, in maps as long as the first one among the file's first records; else AURORA's 100."""
    family = depth_family(codebook_size=ANY_CODE)
    for _, _, record in itertools.islice(unchecked_records(path), RECORDS_WITHOUT_MAPS):
        turns = record.get("conversations") if isinstance(record, dict) else None
        for turn in turns if isinstance(turns, list) else []:
            text = turn.get("value") if isinstance(turn, dict) else None
            if isinstance(text, str) and family.start in text:
                first_map = text.partition(family.start)[2].partition(family.end)[0]
                return replace(family, lengths=(max(1, family.count(first_map)),))
    return family


def codebook_family(vqvae: Path) -> TokenFamily:
    """The depth tokens of a VQ-VAE."""
    from llava_aurora.vqvae.checkpoint import load_depth_vqvae

    model = load_depth_vqvae(vqvae)
    return depth_family(codebook_size=model.config.codebook_size, codes_per_map=model.codes_per_map)


def _unchecked(settings: CheckSettings) -> Iterator[str]:
    if settings.model is None:
        yield "labels, tokenization and lengths in tokens (--model)"
    if settings.image_folder is None:
        yield "images (--image-folder)"
    elif settings.quick:
        yield "images beyond their headers, and whether two show the same (leave out --quick)"
    elif settings.eval_data is None:
        yield "whether training images are evaluation images (--eval-data)"


def named_records(path: Path, *, title: str) -> Iterator[Named]:
    """Records with their names; those of a folder start with the name of the part."""
    for part, index, record in follow(path, unchecked_records, title=title):
        yield (record_name(index, record) if part == path else f"{part.name}: {record_name(index, record)}"), record


def _images(records: Sequence[Named], folder: Path, *, evaluation: bool) -> Iterator[Listed]:
    """The images of these records that lie in the folder."""
    for where, record in records:
        for name in images_of(record) if isinstance(record, dict) else ():
            if not isinstance(name, str):
                continue
            about = record.get("aurora")
            unmarked = about.get("unmarked") if isinstance(about, dict) else None
            try:
                path = path_inside(folder, name)
                copy_of = path_inside(folder, unmarked) if isinstance(unmarked, str) else None
            except AuroraError:
                continue
            yield Listed(path, name, where, evaluation, copy_of)


# --- processes --------------------------------------------------------------------------------------------------------


class _RecordChecks:
    """The checks of a record without its image."""

    def __init__(self, settings: CheckSettings) -> None:
        self.families = settings.families
        self.text = TextChecks(families=settings.families, frame=settings.frame, image_folder=settings.image_folder)
        self.frames, self.labels = None, None
        if settings.image_folder is not None:
            self.frames = FrameChecks(
                image_folder=settings.image_folder, aspect_ratio=settings.aspect_ratio, frame=settings.frame
            )
        if settings.model is not None:
            from llava_aurora.data.validation.labels import LabelChecks

            self.labels = LabelChecks(settings.model)

    def run(self, records: Sequence[Named]) -> Findings:
        found = Findings(records=len(records))
        for where, record in records:
            report = partial(self._report, found, where)
            try:
                self._check(record, found, report)
            except Exception as error:  # the report names the record, and the other records are checked
                report("format", f"the check itself failed: {type(error).__name__}: {error}")
        return found

    def _check(self, record: Any, found: Findings, report: Report) -> None:
        if not self.text.run(record, report):
            return
        record = as_trained(record, self.families)
        if self.frames is not None:
            self.frames.run(record, report)
        found.tasks[task_name(record)] += 1
        length = abs(record_length(record, self.families)) if self.labels is None else self.labels.run(record, report)
        found.lengths[length] += 1
        if (boxes := self.text.true_boxes(record)) is not None:
            found.boxes[boxes] += 1

    @staticmethod
    def _report(found: Findings, where: str, kind: str, message: str) -> None:
        found.add(kind, where, message)


_checks: _RecordChecks | None = None  # of this process


def _start(settings: CheckSettings) -> None:
    global _checks
    _checks = _RecordChecks(settings)


def _check(records: Sequence[Named]) -> Findings:
    assert _checks is not None, "_start comes first"
    return _checks.run(records)


def _examine(paths: Sequence[Path], quick: bool) -> list[Examined]:
    return [examine(path, quick=quick) for path in paths]


class _Workers:
    """Worker processes with a bounded queue; results are taken in the order of submission."""

    def __init__(self, settings: CheckSettings, *, most: int) -> None:
        self.settings, self.number = settings, min(settings.workers, most)
        self._waiting: deque[tuple[Future[Any], Callable[[Any], None]]] = deque()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "_Workers":
        if self.number > 1:
            # Fresh processes: a fork of one that has run torch can hang in its threads.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self.number, mp_context=context, initializer=_start, initargs=(self.settings,)
            )
        else:
            _start(self.settings)
        return self

    def submit(self, function: Callable[..., Any], *arguments: Any, then: Callable[[Any], None]) -> None:
        """Runs a function of this module in a worker, and `then` with its result in this process."""
        if self._pool is None:
            then(function(*arguments))
            return
        try:
            self._waiting.append((self._pool.submit(function, *arguments), then))
        except BrokenProcessPool as error:
            raise _died() from error
        self._take(PORTIONS_WAITING * self.number)

    def _take(self, leave: int) -> None:
        while len(self._waiting) > leave:
            future, then = self._waiting.popleft()
            try:
                result = future.result()
            except BrokenProcessPool as error:
                raise _died() from error
            then(result)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._take(0)
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)


def _died() -> AuroraError:
    return AuroraError("a worker process died (out of memory?); try fewer --workers, --workers 1 shows its error")
