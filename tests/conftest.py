"""The tiny LLaVA that every test shares: 56-pixel frame, 16 image tokens, maps of 3 × 3 codes out of 16."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings
from PIL import Image
from written import write_record

from llava_aurora.demo.tiny_llava import VISION_TOWER, TinyLlavaConfig, build_tiny_llava
from llava_aurora.tasks.points import letter_points
from llava_aurora.tasks.prompts import Prompts
from llava_aurora.tasks.records import RecordWriter
from llava_aurora.tokens.vocabulary import PerceptionVocabulary, depth_family, pixel_family
from llava_aurora.training.ports import free_port
from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig, build_depth_vqvae
from llava_aurora.vqvae.checkpoint import save_depth_vqvae

# No test is timed: a busy machine is no failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
ROOT = Path(__file__).resolve().parents[1]
FRAME, CODES, CELLS = 56, 16, 9
TINY_VQVAE = DepthVQVAEConfig(image_size=48, channels=(8, 8, 16, 16), code_dim=16, codebook_size=CODES)
TINY_LLAVA = TinyLlavaConfig(
    frame=FRAME, patch=14, width=64, layers=2, vision_width=64, vision_layers=2, vocabulary=420, max_length=512
)
# Of every run that a test starts.
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "VIRTUAL_ENV": sys.prefix,
    "DS_ACCELERATOR": "cpu",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
DEPTH, PIXELS = depth_family(codebook_size=CODES, codes_per_map=CELLS), pixel_family(frame=FRAME)


@dataclass(frozen=True)
class Workshop:
    """A folder with all that a training run needs."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def vqvae(self) -> Path:
        return self.folder / "vqvae"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def records(self) -> Path:
        return self.folder / "train.json"

    def flags(
        self, out: Path, *, tokens: bool = False, lora: bool = False, zero: int | None = None, **changes: object
    ) -> list[str]:
        """LLaVA's flags for a short run, and more; a change of None leaves a flag out.

        Args: tokens: depth and box tokens; lora: LoRA of rank 8; zero: stage of DeepSpeed's ZeRO.
        """
        given = {"lora_enable": True, "lora_r": 8} if lora else {}
        given |= self.perception_flags() if tokens else {}
        given |= {"deepspeed": f"deepspeed_configs/zero{zero}.json"} if zero else {}
        flags: dict[str, object] = {
            "model_name_or_path": self.base,
            "version": "v1",
            "data_path": self.records,
            "image_folder": self.images,
            "vision_tower": self.base / VISION_TOWER,
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -1,
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            "output_dir": out,
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "model_max_length": 512,
            "lazy_preprocess": True,
            "report_to": "none",
            "disable_tqdm": True,
            **given,
            **changes,
        }
        return [part for name, value in flags.items() if value is not None for part in (f"--{name}", str(value))]

    def perception_flags(self) -> dict[str, object]:
        return {"perception_modalities": "depth,box", "depth_vqvae": self.vqvae, "coordinate_frame": FRAME}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files begin, so that no process is left alone with one at the end."""
    marks = {item.path: set[str]() for item in items}
    for item in items:
        marks[item.path].update(mark.name for mark in item.iter_markers())
    items.sort(key=lambda item: ("deepspeed" not in marks[item.path], "slow" not in marks[item.path]))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the record stores of tests, and of what they start, out of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAVA_AURORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def writer() -> RecordWriter:
    return RecordWriter(prompts=Prompts(), families=(DEPTH, PIXELS))


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """A folder of this name for all processes that run tests side by side: the first to ask for it fills it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def folder(name: str, fill: Callable[[Path], None]) -> Path:
        out, filled = shared / name, shared / f"{name}.filled"
        with FileLock(shared / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                fill(out)
                filled.touch()
        return out

    return folder


@pytest.fixture(scope="session")
def workshop(once: Once, writer: RecordWriter) -> Workshop:
    """Base model, VQ-VAE, sixteen random images and the records about them."""
    return Workshop(once("workshop", lambda folder: fill_workshop(Workshop(folder), writer)))


def fill_workshop(shop: Workshop, writer: RecordWriter) -> None:
    rng = np.random.default_rng(0)
    shop.images.mkdir()
    records = []
    for number in range(16):
        name = f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (FRAME, FRAME, 3), dtype=np.uint8)).save(shop.images / name)
        codes = rng.integers(0, CODES, CELLS).tolist()
        points = letter_points([(1, 2), (30, 40), (55, 5)], [10, 200, 90], rng)
        about = {"name": str(number), "image": name, "rng": rng}
        boxes = [(1, 2, 30, 40), (5, 6, 9, 9)][: number % 3]
        records += [
            write_record(writer, "depth_generation", codes=codes, **about),
            write_record(writer, "depth_chain", codes=codes, points=points, **about),
            write_record(writer, "depth_direct_from_coordinates", points=points, **about),
            write_record(writer, "counting_chain", thing="red cube", things="red cubes", boxes=boxes, **about),
        ]
    shop.records.write_text(json.dumps(records))
    vocabulary = PerceptionVocabulary((DEPTH, PIXELS))
    texts = [vocabulary.remove_from(turn["value"]) for record in records for turn in record["conversations"]]
    build_tiny_llava(shop.base, corpus=texts, config=TINY_LLAVA, seed=0)
    torch.manual_seed(0)
    save_depth_vqvae(build_depth_vqvae(TINY_VQVAE), shop.vqvae)


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its exit code, all it printed, and the logs of its steps."""

    code: int
    output: str

    @property
    def losses(self) -> list[dict[str, float]]:
        import ast

        logged = [ast.literal_eval(line) for line in self.output.splitlines() if line.startswith("{'loss'")]
        return [{name: float(value) for name, value in step.items()} for step in logged]

    def checked(self, code: int | None) -> "Finished":
        assert code is None or self.code == code, self.output[-3000:]
        return self


Start = Callable[..., Finished]


@pytest.fixture(scope="session")
def forked() -> Iterator[Start]:
    """Runs a Python script as `start` does, on ranks or alone, in seconds less: what it imports is there already."""
    from forked import begin

    def run(
        script: object, *flags: object, ranks: int | None = None, code: int | None = 0, **environment: str
    ) -> Finished:
        with begin(script, *flags, ranks=ranks, **environment) as running:
            printed = running.output.read()
        return Finished(running.process.exitcode, printed).checked(code)

    with pytest.MonkeyPatch.context() as patch:  # libraries read these as they are imported
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield run


@pytest.fixture(scope="session")
def start() -> Start:
    """Runs a command from the root of the repository, as a user would, on the CPU; it has to end with `code`."""

    def run(*command: object, code: int | None = 0, **environment: str) -> Finished:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        return Finished(done.returncode, done.stdout).checked(code)

    return run


Trained = tuple[Path, Finished]


@pytest.fixture(scope="session")
def train_once(workshop: Workshop, once: Once, start: Start, forked: Start) -> Callable[..., Trained]:
    """Trains on two ranks under ZeRO-3, once for all tests; flags beside those of the workshop."""

    def train(name: str, *, launched: bool, **changes: object) -> Trained:
        def run(folder: Path) -> None:
            flags = workshop.perception_flags() | {"deepspeed": "deepspeed_configs/zero3.json"} | changes
            command = ("scripts/finetune_aurora.sh", *workshop.flags(folder / name, **flags))
            meeting = {"NUM_GPUS": "2", "MASTER_PORT": str(free_port())}
            done = start("bash", *command, **meeting) if launched else forked(*command, ranks=2)
            (folder / "finished.json").write_text(json.dumps(asdict(done)))

        folder = once(name, run)
        return folder / name, Finished(**json.loads((folder / "finished.json").read_text()))

    return train


@pytest.fixture(scope="session")
def finetuned(train_once: Callable[..., Trained]) -> Trained:
    """A model with depth and box tokens, fine-tuned as a user starts it: by bash, which hands over to deepspeed."""
    return train_once("llava-aurora", launched=True, unfreeze_mm_vision_tower=True)


@pytest.fixture(scope="session")
def finetuned_lora(train_once: Callable[..., Trained], workshop: Workshop) -> Trained:
    """LoRA with everything on: rows of their own, both extra losses, an evaluation split, checkpoints on the way."""
    return train_once(
        "llava-aurora-lora",
        launched=False,
        lora_enable=True,
        lora_r=8,
        lora_alpha=16,
        gradient_checkpointing=True,
        perception_lr=2e-3,
        mm_projector_lr=2e-5,
        aux_losses="reconstruction=2@2",
        span_mask_probability=0.5,
        span_noise_probability=0.5,
        information_bottleneck="chain,image",
        eval_data_path=workshop.records,
        eval_strategy="steps",
        eval_steps=2,
        per_device_eval_batch_size=4,
        save_strategy="steps",
        save_steps=2,
        report_to="tensorboard",
    )


@pytest.fixture(scope="session")
def tower_stages(train_once: Callable[..., Trained], finetuned: Trained, once: Once) -> dict[str, Path]:
    """A vision tower in stages, by name: trained whole; LoRA beside it frozen, beside it trained on; merged; frozen.

    --vision_tower goes on to name the first tower, as users leave it.
    """
    flags = {"launched": False, "lora_enable": True, "lora_r": 4, "lora_alpha": 8, "mm_vision_tower_lr": 1e-3}
    trained = finetuned[0]
    frozen, _ = train_once("tower-frozen-lora", **flags, model_name_or_path=trained)
    again, _ = train_once("tower-trained-lora", **flags, model_name_or_path=trained, unfreeze_mm_vision_tower=True)

    def merge_into(folder: Path) -> None:
        from llava_aurora.model.merge import merge

        merge(again, folder / "llava")

    merged = once("tower-merged", merge_into) / "llava"
    last, _ = train_once("tower-frozen-again-lora", **flags, model_name_or_path=merged)
    return {"trained": trained, "frozen": frozen, "again": again, "merged": merged, "last": last}
