"""Trains the depth VQ-VAE on relative depth maps, and goes on exactly where a killed run stopped.

The defaults are AURORA's recipe (METHOD "The depth VQ-VAE"). The folder it writes is a checkpoint for
`load_depth_vqvae`, with the log and the state to resume from beside the weights.
"""

import io
import json
import math
import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from llava_aurora.batches import batches
from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_folder, regular_file, remove_leftovers
from llava_aurora.progress import count_bars
from llava_aurora.vqvae.autoencoder import DepthVQVAE, DepthVQVAEConfig, build_depth_vqvae
from llava_aurora.vqvae.checkpoint import CONFIG_FILE, WEIGHTS_FILE, refuse_foreign_files, write_checkpoint_files
from llava_aurora.vqvae.depth_scale import DepthScale
from llava_aurora.vqvae.maps import DepthMapFolder, check_depth_map, resize_nearest, to_model_range
from llava_aurora.vqvae.quantizer import perplexity

STATE_FILE = "training_state.pt"
LOG_FILE = "training_log.jsonl"
CACHE_LIMIT = 2**30  # bytes of resized maps kept in memory; above, each map is read again every epoch


@dataclass(frozen=True)
class EpochLog:
    """One line of training_log.jsonl; errors in the units of the model's range [-1, 1]."""

    epoch: int  # from 1
    step: int  # batches so far
    learning_rate: float  # of the last batch
    train_mse: float  # mean over the epoch's batches, while the weights move
    heldout_mse: float  # after the epoch
    commitment: float  # weighted, mean over the epoch's batches
    codebook_use: float  # share of the codes that occurred in the epoch, in [0, 1]
    perplexity: float  # of the epoch's codes, in [1, codebook_size]
    seconds: float


class TrainingResult(NamedTuple):
    """The trained model, in eval mode, and one log per epoch, those before a resume included."""

    model: DepthVQVAE
    history: list[EpochLog]


@dataclass(frozen=True)
class Recipe:
    """How a VQ-VAE is trained: with Adam, every `decay_steps` batches slower by the factor `learning_rate_decay`."""

    batch_size: int
    learning_rate: float
    learning_rate_decay: float
    decay_steps: int
    held_out: float  # share of the maps kept for measuring, at least one
    seed: int

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the batch after `step` batches."""
        return self.learning_rate * self.learning_rate_decay ** (step // self.decay_steps)


def train_depth_vqvae(
    *,
    depth_maps: Sequence[np.ndarray] | str | Path,
    out: str | Path,
    scale: DepthScale | None = None,
    config: DepthVQVAEConfig | None = None,
    epochs: int = 20,
    batch_size: int = 8,
    learning_rate: float = 3e-4,
    learning_rate_decay: float = 0.98,
    decay_steps: int = 500,
    held_out: float = 0.05,
    seed: int = 0,
    resume: bool = False,
    device: str = "cpu",
) -> TrainingResult:
    """Trains a depth VQ-VAE and writes it to `out` after every epoch, whole or not at all.

    Args:
        depth_maps: relative depth maps (see `maps.check_depth_map`), in memory or a folder of .png/.npy files.
        out: checkpoint folder; also gets training_log.jsonl and training_state.pt.
        scale: what the values of files mean, if not relative depth.
        epochs: in all, those before a resume included.
        resume: go on from the state in `out`, where there is one. On CPU the result is, bit for bit, that of an
            uninterrupted run, as all randomness derives from the seed and the step.
    Raises AuroraError naming the file of an unusable map; if `out` holds a VQ-VAE and `resume` is not set, or a state
    of other settings; if the loss is no longer finite (the checkpoint of the last good epoch stays).
    """
    recipe = Recipe(
        batch_size=batch_size,
        learning_rate=learning_rate,
        learning_rate_decay=learning_rate_decay,
        decay_steps=decay_steps,
        held_out=held_out,
        seed=seed,
    )
    out = Path(out)
    refuse_foreign_files(out, expected={CONFIG_FILE, WEIGHTS_FILE, STATE_FILE, LOG_FILE})
    remove_leftovers(out.parent)
    if not resume and (out / WEIGHTS_FILE).exists():
        raise AuroraError(f"{out}: holds a VQ-VAE already; resume its training or choose another folder")
    maps = DepthMapFolder(depth_maps, scale) if isinstance(depth_maps, str | Path) else depth_maps
    frames = Frames(maps, (config or DepthVQVAEConfig()).image_size)
    run = _Run(config or DepthVQVAEConfig(), recipe, frames, device, scale)
    if (out / STATE_FILE).exists():
        run.restore(out / STATE_FILE)
    with count_bars() as progress:
        for epoch in range(len(run.history) + 1, epochs + 1):
            log = run.train_epoch(epoch, progress)
            run.save(out)
            print(_line(log, epochs), flush=True)
    return TrainingResult(run.model.eval(), run.history)


class Frames:
    """Maps resized to the model's frame, kept in memory as bytes where they fit.

    Raises AuroraError naming the map, if one is unusable or there are fewer than two.
    """

    def __init__(self, maps: Sequence[np.ndarray], size: int) -> None:
        self.maps = maps
        self.size = size
        if len(maps) < 2:
            raise AuroraError(f"expected at least 2 depth maps, one for training and one held out, found {len(maps)}")
        self.cache: np.ndarray | None = None
        if len(maps) * size**2 <= CACHE_LIMIT:
            self.cache = np.stack([self._frame(index) for index in range(len(maps))])

    def __len__(self) -> int:
        return len(self.maps)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """float32 (B, 1, size, size) in [-1, 1]."""
        if self.cache is not None:
            frames = self.cache[list(indices)]
        else:
            frames = np.stack([self._frame(index) for index in indices])
        return to_model_range(frames).unsqueeze(1)

    def _frame(self, index: int) -> np.ndarray:
        depth = self.maps[index]
        try:
            return resize_nearest(check_depth_map(depth), (self.size, self.size))
        except ValueError as error:
            raise AuroraError(f"depth map {index}: {error}") from error


@dataclass
class _Tally:
    """Sums over an epoch."""

    squared_error: float = 0.0
    commitment: float = 0.0
    maps: int = 0
    indices: list[Tensor] = field(default_factory=list)


class _Run:
    """The state of one training: model, optimizer, history."""

    def __init__(
        self, config: DepthVQVAEConfig, recipe: Recipe, frames: Frames, device: str, scale: DepthScale | None
    ) -> None:
        self.recipe, self.scale = recipe, scale
        self.frames = frames
        self.device = device
        self.model = build_depth_vqvae(config, seed=recipe.seed).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.learning_rate)
        self.step = 0
        self.history: list[EpochLog] = []
        order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(recipe.seed)).tolist()
        held_out = min(max(1, round(recipe.held_out * len(frames))), len(frames) - 1)
        self.held_out, self.train = order[:held_out], order[held_out:]

    def train_epoch(self, epoch: int, progress: Progress) -> EpochLog:
        started = time.monotonic()
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + epoch)
        shuffled = [self.train[i] for i in torch.randperm(len(self.train), generator=generator).tolist()]
        portions = list(batches(shuffled, self.recipe.batch_size))
        tally = _Tally()
        self.model.train()
        task = progress.add_task(f"VQ-VAE, epoch {epoch}", total=len(portions))
        for batch in progress.track(portions, task_id=task):
            self._train_step(self.frames.batch(batch).to(self.device), tally)
        progress.remove_task(task)
        indices = torch.cat(tally.indices)
        size = self.model.config.codebook_size
        log = EpochLog(
            epoch=epoch,
            step=self.step,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            train_mse=tally.squared_error / tally.maps,
            heldout_mse=self._held_out_mse(),
            commitment=tally.commitment / tally.maps,
            codebook_use=len(indices.unique()) / size,
            perplexity=perplexity(indices, size),
            seconds=round(time.monotonic() - started, 3),
        )
        if not math.isfinite(log.heldout_mse):
            raise self._diverged(f"the error on held-out maps is {log.heldout_mse} after epoch {epoch}")
        self.history.append(log)
        return log

    def _diverged(self, found: str) -> AuroraError:
        kept = f"the checkpoint of epoch {len(self.history)} is kept" if self.history else "nothing was written"
        return AuroraError(f"{found}; {kept}; lower the learning rate")

    def _train_step(self, depth: Tensor, tally: _Tally) -> None:
        self.optimizer.param_groups[0]["lr"] = self.recipe.learning_rate_at(self.step)
        output = self.model(depth)
        loss = output.reconstruction_mse + output.commitment_loss
        if not math.isfinite(loss.item()):
            raise self._diverged(f"the loss is {loss.item()} at step {self.step + 1}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        tally.squared_error += output.reconstruction_mse.item() * len(depth)
        tally.commitment += output.commitment_loss.item() * len(depth)
        tally.maps += len(depth)
        tally.indices.append(output.indices.flatten().cpu())

    @torch.no_grad()
    def _held_out_mse(self) -> float:
        self.model.eval()
        total = 0.0
        for batch in batches(self.held_out, self.recipe.batch_size):
            depth = self.frames.batch(batch).to(self.device)
            total += self.model(depth).reconstruction_mse.item() * len(depth)
        return total / len(self.held_out)

    def settings(self) -> dict[str, Any]:
        """What a resumed run has to share with the one it continues."""
        scale = {"depth": asdict(self.scale)} if self.scale else {}
        return {"maps": len(self.frames), **scale, **asdict(self.recipe), **asdict(self.model.config)}

    def save(self, out: Path) -> None:
        history = [asdict(log) for log in self.history]
        state = {
            "settings": self.settings(),
            "step": self.step,
            "history": history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_folder(out) as folder:
            write_checkpoint_files(self.model, folder)
            (folder / LOG_FILE).write_text("".join(json.dumps(log) + "\n" for log in history), encoding="utf-8")
            content = io.BytesIO()  # torch reports a full disk in its own way, Python's files as OSError
            torch.save(state, content)
            (folder / STATE_FILE).write_bytes(content.getbuffer())

    def restore(self, path: Path) -> None:
        try:
            state = torch.load(regular_file(path, what="training state"), map_location=self.device, weights_only=True)
            self._check_settings(path, state["settings"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
            self.history = [EpochLog(**log) for log in state["history"]]
        except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, pickle.UnpicklingError) as error:
            raise AuroraError(f"{path}: damaged, training cannot resume from it ({type(error).__name__})") from error

    def _check_settings(self, path: Path, found: dict[str, Any]) -> None:
        asked = self.settings()
        for name in {**found, **asked}:
            if found.get(name) != (value := asked.get(name)):
                raise AuroraError(
                    f"{path}: was trained with {name} {found.get(name)}, but the present setting is {value}; "
                    "resume with the same settings or choose another folder"
                )


def _line(log: EpochLog, epochs: int) -> str:
    return (
        f"epoch {log.epoch}/{epochs}: reconstruction MSE {log.train_mse:.5f}, held out {log.heldout_mse:.5f}, "
        f"commitment {log.commitment:.5f}, codes used {log.codebook_use:.0%}, perplexity {log.perplexity:.1f}, "
        f"{log.seconds:.1f} s"
    )
