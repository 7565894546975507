"""The folders checkpoint-N of a training run: how they are written, checked, and matched with the run that resumes."""

import errno
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.files import STAGING_PREFIX, read_json, set_usual_modes, write_json

RECORD = "aurora_run.json"
STATE = "trainer_state.json"
MANIFEST = "aurora_manifest.json"
REPLACED = "replaced"
NEWEST_WHOLE = "newest-whole"
ANEW = "or start over with --resume_from_checkpoint False"


@dataclass(frozen=True)
class RunRecord:
    """The settings of a run that another one must share to resume from its checkpoints."""

    world_size: int  # number of ranks
    per_device_batch: int  # records of a rank in one forward pass
    accumulation: int  # forward passes in a step
    zero_stage: int | None  # of DeepSpeed; None without it
    lora: bool  # whether LoRA weights are trained
    order: dict[str, Any]  # the flags on which the order of the records depends, with their values
    data_path: str  # the training file
    records: int  # how many it has
    perception: dict[str, Any] | None  # the `aurora` block of the model's config.json

    @property
    def global_batch(self) -> int:
        return self.world_size * self.per_device_batch * self.accumulation

    def write(self, folder: Path) -> None:
        write_json(folder / RECORD, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        values = read_json(folder / RECORD, what="settings of the checkpoint's run")
        try:
            return cls(**values)
        except TypeError as error:
            raise AuroraError(
                f"{folder / RECORD}: of another version ({error}); use the llava_aurora that wrote it"
            ) from error

    def check(self, checkpoint: Path, now: "RunRecord") -> None:
        """Raises AuroraError if the run `now` would not continue this one, which wrote `checkpoint`."""
        for problem in (self._model_problem(now), self._batch_problem(now), self._order_problem(now)):
            if problem:
                raise AuroraError(f"{checkpoint}: {problem}, {ANEW}")

    def _model_problem(self, now: "RunRecord") -> str | None:
        tokens = _differences(self.perception or {}, now.perception or {})
        if tokens:
            return f"its perception tokens differ: {'; '.join(tokens[:3])}; give the flags of the run that wrote it"
        if self.lora != now.lora:
            return f"written {_with(self.lora)} LoRA, this run is {_with(now.lora)}; set --lora_enable {self.lora}"
        if self.zero_stage != now.zero_stage:
            name = "no --deepspeed" if self.zero_stage is None else f"deepspeed_configs/zero{self.zero_stage}.json"
            return f"written with {_zero(self.zero_stage)}, this run has {_zero(now.zero_stage)}; start with {name}"
        return None

    def _batch_problem(self, now: "RunRecord") -> str | None:
        if (self.global_batch, self.per_device_batch) == (now.global_batch, now.per_device_batch):
            return None
        passes = self.world_size * self.accumulation
        if passes % now.world_size:
            remedy = f"start a number of ranks that divides {passes}"
        else:
            remedy = (
                f"set --per_device_train_batch_size {self.per_device_batch}"
                f" --gradient_accumulation_steps {passes // now.world_size}"
            )
        return f"a step had {self._batch()}, in this run it has {now._batch()}; {remedy}"

    def _batch(self) -> str:
        return (
            f"{self.global_batch} records ({self.world_size} ranks × {self.per_device_batch}"
            f" × {self.accumulation} accumulation steps)"
        )

    def _order_problem(self, now: "RunRecord") -> str | None:
        if self.records != now.records:
            return (
                f"written over {self.records} records ({self.data_path}), this run has {now.records}"
                f" ({now.data_path}); give that run's --data_path"
            )
        for flag, value in self.order.items():
            if value != now.order.get(flag):
                remedy = f"leave out --{flag}" if value in (None, "") else f"set --{flag} {value}"
                return f"the order of records differs (--{flag} is {now.order.get(flag)!r} now); {remedy}"
        return None


def _differences(written: Any, now: Any, path: str = "aurora") -> list[str]:
    if isinstance(written, dict) and isinstance(now, dict):
        names = sorted(written.keys() | now.keys())
        return [line for name in names for line in _differences(written.get(name), now.get(name), f"{path}.{name}")]
    return [] if written == now else [f"{path} is {_short(written)} there, {_short(now)} here"]


def _short(value: Any) -> str:
    return "missing" if value is None else "present" if isinstance(value, dict) else repr(value)


def _with(there: bool) -> str:
    return "with" if there else "without"


def _zero(stage: int | None) -> str:
    return "no DeepSpeed" if stage is None else f"ZeRO-{stage}"


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint was written to its end; whether its files are still there and undamaged is not looked at."""
    return (folder / MANIFEST).is_file()


def write_manifest(folder: Path) -> None:
    """Writes the sizes and checksums of all files in `folder`; of a checkpoint, the last thing that is written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        checksums = pool.map(_sha256, files)
        entries = {
            str(file.relative_to(folder)): {"size": file.stat().st_size, "sha256": checksum}
            for file, checksum in zip(files, checksums, strict=True)
        }
    write_json(folder / MANIFEST, entries)


def damage_of(folder: Path) -> str | None:
    """What keeps a run from resuming from `folder`: a missing or changed file, by name. None if all is well."""
    if missing := [name for name in (RECORD, STATE, MANIFEST) if not (folder / name).is_file()]:
        return f"{' and '.join(missing)} missing"
    try:
        expected = {
            name: (entry["size"], entry["sha256"])
            for name, entry in read_json(folder / MANIFEST, what="sizes and checksums").items()
        }
    except (AuroraError, AttributeError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"

    def damage(name: str) -> str | None:
        file, (size, checksum) = folder / name, expected[name]
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        return None if _sha256(file) == checksum else f"{name} is damaged (its checksum differs)"

    with ThreadPoolExecutor() as pool:
        return next(filter(None, pool.map(damage, expected)), None)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def checkpoints(run_folder: Path) -> list[Path]:
    """The folders checkpoint-N, by N."""
    found = [path for path in run_folder.glob("checkpoint-*") if path.is_dir() and _step(path).isdigit()]
    return sorted(found, key=lambda path: int(_step(path)))


def _step(folder: Path) -> str:
    return folder.name.removeprefix("checkpoint-")


def newest_whole(run_folder: Path) -> Path | None:
    return next((folder for folder in reversed(checkpoints(run_folder)) if is_whole(folder)), None)


def check_whole(folder: Path) -> None:
    """Raises AuroraError, naming the missing or damaged file, if no run can resume from `folder`."""
    if not folder.is_dir():
        raise AuroraError(f"{folder}: no such folder; give a checkpoint-N, {ANEW}")
    damage = damage_of(folder)
    if damage:
        raise AuroraError(
            f"{folder}: {damage}; resume from the newest undamaged checkpoint with --resume_from_checkpoint"
            f" {NEWEST_WHOLE}, {ANEW}"
        )


def check_optimizer_states(folder: Path, optimizer_states: str) -> None:
    """Raises AuroraError if a checkpoint has no optimizer states, or names a place outside of it for them.

    Args:
        folder: the checkpoint.
        optimizer_states: `latest` with DeepSpeed, which holds the name of the folder of its states, else optimizer.pt.
    """
    if not (folder / optimizer_states).is_file():
        raise AuroraError(
            f"{folder}: has no optimizer states ({optimizer_states} is missing: --save_only_model?); train on from its"
            f" weights with --model_name_or_path {folder}, {ANEW}"
        )
    if optimizer_states == "latest":
        name = (folder / "latest").read_text(encoding="utf-8", errors="replace").strip()
        if name not in {path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()}:
            raise AuroraError(f"{folder / 'latest'}: {name[:40]!r} is no folder inside the checkpoint; {ANEW[3:]}")


def staging_for(run_folder: Path, name: str) -> Path:
    """The folder in which the ranks write checkpoint `name`; the same path on every rank."""
    return run_folder / f"{STAGING_PREFIX}{name}"


def put_in_place(staging: Path, final: Path) -> None:
    """Writes the manifest and renames `staging/final.name` to `final`; an older folder there is removed afterwards.

    Raises FileNotFoundError if another rank has done so already.
    """
    staged = staging / final.name
    set_usual_modes(staged)
    write_manifest(staged)
    try:
        os.rename(staged, final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        os.rename(final, staging / REPLACED)
        os.rename(staged, final)
    shutil.rmtree(staging, ignore_errors=True)


def clear_leftovers(run_folder: Path) -> None:
    """Removes a checkpoint that a killed run was writing; one that it had moved aside to replace is put back."""
    for staging in run_folder.glob(f"{STAGING_PREFIX}*"):
        final = run_folder / staging.name.removeprefix(STAGING_PREFIX)
        if (staging / REPLACED).is_dir() and not final.exists():
            os.rename(staging / REPLACED, final)
        shutil.rmtree(staging, ignore_errors=True)
