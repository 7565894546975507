"""Pretrains the tiny LLaVA that the demo starts from, and measures what it can do. Resumes.

    python experiments/pretrain_tiny.py --out pretraining                 # hours on one core with AMX
    python experiments/pretrain_tiny.py --out pretraining --evaluate      # the abilities of what is there

OUT/training/, held_out/   scenes, rendered once
OUT/start/                 the model with random weights
OUT/state.pt               where training is: parameters and optimizer
OUT/base/                  the model as LLaVA loads it, with README.md
OUT/vqvae/                 with --vqvae: the depth VQ-VAE of the demo, from the depth maps of other scenes; two minutes
"""

import argparse
import json
import shutil
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

sys.path.insert(0, str(Path(__file__).parent))

from tiny import pictures
from tiny.batches import IMAGE_TOKENS, Batch, Batches
from tiny.card import write_card
from tiny.forward import IN_MODEL, language, see
from tiny.image_tasks import THINGS
from tiny.pictures import FRAME, GRID, HELD_OUT_SEED, TRAINING_SEED, Pictures, load_pictures
from tiny.words import PIECES, corpus

from llava_aurora.compatibility import old_tower_names, rope_theta, save_tower, vision_transformer
from llava_aurora.data.sources.scenes.scene_folder import write_scenes
from llava_aurora.demo.stages import train_small_vqvae
from llava_aurora.demo.tiny_llava import VISION_TOWER, TinyLlavaConfig, build_tiny_llava
from llava_aurora.files import read_json, write_json
from llava_aurora.model.checkpoint import load_pretrained_model
from llava_aurora.tasks.forms import LETTERS
from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig

MODEL = TinyLlavaConfig(
    frame=FRAME, patch=16, vision_width=128, vision_layers=4, vision_heads=8,
    width=192, layers=5, heads=6, vocabulary=1232, max_length=1024,
)  # fmt: skip
VQVAE = DepthVQVAEConfig(image_size=FRAME, channels=(8, 16, 32, 64), code_dim=16, codebook_size=32)
SCENES, HELD_OUT, VQVAE_SEED = 16_000, 600, 1_000_002
IMAGES, MORE, TEXTS, LENGTH = 8, 56, 4, 256
RATE, WARM_UP, DECAY, CLIP, TOWER = 1.5e-3, 200, 0.05, 1.0, 0.3
TOWER_LEARNS = ("tower: cells", "tower: middles", "tower: marks", "tower: rows", "tower: columns")
PLACES, NEAR = ("where are things", "where marks are", "things and places from left to right"), 8
SAVED_EVERY, LOGGED_EVERY = 250, 50
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's


class Pretraining:
    """Args: out: its folder; steps: in all; seed: of weights and data; scenes: to train on; device: of torch."""

    def __init__(self, out: Path, *, steps: int, seed: int, scenes: int = SCENES, device: str = "cpu") -> None:
        self.out, self.steps, self.seed, self.scenes, self.device = out, steps, seed, scenes, device
        if not (out / "start" / "config.json").is_file():
            build_tiny_llava(out / "start", corpus=corpus(), config=MODEL, seed=seed, pieces=PIECES)
        self.tokenizer, self.model, _, _ = load_pretrained_model(str(out / "start"))
        self.model.float().to(device)
        # As loud as patches become: where something is must not drown in what it looks like.
        tower = vision_transformer(self.model.get_vision_tower().vision_tower)
        tower.embeddings.position_embedding.weight.data.mul_(4.0)
        self.parameters = old_tower_names(dict(self.model.named_parameters()), IN_MODEL)
        for each in self.parameters.values():
            each.requires_grad_(True)
        decayed = [each for name, each in self.parameters.items() if each.ndim > 1 and "embed" not in name]
        others = [each for name, each in self.parameters.items() if each.ndim <= 1 or "embed" in name]
        groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), fused=True)
        # Straight from the tower to names: a tower that tells things apart is what everything about images waits for.
        generator = torch.Generator().manual_seed(seed)
        self.heads = [
            torch.nn.Parameter((0.02 * torch.randn(classes, MODEL.width, generator=generator)).to(device))
            for classes in (len(THINGS), len(THINGS), 1 + len(LETTERS), 1 + GRID, 1 + GRID)
        ]
        self.optimizer.add_param_group({"params": self.heads, "weight_decay": DECAY})
        self.step = 0
        if (state := out / "state.pt").is_file():
            found = torch.load(state, weights_only=True, map_location=device)
            self.step = found["step"]
            for name, weight in found["parameters"].items():
                self.parameters[name].data = weight
            for head, weight in zip(self.heads, found["heads"], strict=True):
                head.data = weight
            self.optimizer.load_state_dict(found["optimizer"])

    def batches(self, pictures: Pictures, *, seed: int, steps: int, wrong: bool) -> Batches:
        rows = {"images": IMAGES, "more": MORE, "texts": TEXTS, "length": LENGTH}
        return Batches(pictures, self.tokenizer, **rows, steps=steps, seed=seed, wrong=wrong)

    def logits(self, batch: Batch, *, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, V), and the image tokens (I + M, cells, D)."""
        count, at, parameters, config = len(batch.images), self.image_at, self.parameters, self.model.config
        shown = torch.cat([batch.images, batch.more])
        pixels = ((shown.float() / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).to(self.device)
        seen = see(parameters, pixels.permute(0, 3, 1, 2), patch=MODEL.patch, heads=MODEL.vision_heads, dtype=dtype)
        x = F.embedding(batch.ids.to(self.device), parameters["model.embed_tokens.weight"])
        with_image = torch.cat([x[:count, :at], seen[:count], x[:count, at + IMAGE_TOKENS :]], dim=1)
        x = torch.cat([with_image, x[count:]])
        settings = {"heads": MODEL.heads, "theta": rope_theta(config), "epsilon": config.rms_norm_eps}
        return language(parameters, x, dtype=dtype, **settings), seen

    def tower_losses(self, seen: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        """Of what each cell shows (`image_tasks.labels`); where nothing is, a cell counts a twentieth."""
        losses = []
        for head, label in zip(self.heads, labels.unbind(1), strict=True):
            weight = torch.ones(len(head), device=self.device)
            weight[0] = 0.05
            losses.append(
                F.cross_entropy((seen @ head.T).flatten(0, 1), label.to(self.device).flatten(), weight=weight)
            )
        return losses

    def train(self) -> None:
        pictures = load_pictures(self.out / "training", count=self.scenes, seed=TRAINING_SEED)
        batches = self.batches(pictures, seed=self.seed, steps=self.steps, wrong=True)
        self.image_at = batches.encoder.image_at
        left = Subset(batches, range(self.step, self.steps))
        loader = DataLoader(left, batch_size=None, num_workers=1, prefetch_factor=8)
        losses: dict[str, list[float]] = defaultdict(list)
        started = time.perf_counter()
        for batch in loader:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate()
            logits, seen = self.logits(batch)
            of_tower = self.tower_losses(seen, batch.seen)
            each = F.cross_entropy(
                logits.flatten(0, 1).float(), batch.labels.to(self.device).flatten(), reduction="none"
            )
            learned = (batch.labels != -100).sum()
            (each.sum() / learned + TOWER * sum(of_tower)).backward()
            torch.nn.utils.clip_grad_norm_([*self.parameters.values(), *self.heads], CLIP)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            for name, loss in zip(TOWER_LEARNS, of_tower, strict=True):
                losses[name].append(loss.item())
            by_row = each.detach().cpu().view(batch.labels.shape)
            for ability, row, start, stop in batch.abilities:
                losses[ability].append(float(by_row[row, start:stop].mean()))
            self.step += 1
            if self.step % LOGGED_EVERY == 0:
                means = {name: round(sum(values) / len(values), 3) for name, values in sorted(losses.items())}
                rate = LOGGED_EVERY / (time.perf_counter() - started)
                print(json.dumps({"step": self.step, "steps_per_s": round(rate, 2), **means}), flush=True)
                losses.clear()
                started = time.perf_counter()
            if self.step % SAVED_EVERY == 0 or self.step == self.steps:
                self.save()

    def _rate(self) -> float:
        """Linear warm-up, then a cosine to a twentieth."""
        through = self.step / self.steps
        wave = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * through)).item())
        return RATE * min(1.0, (self.step + 1) / WARM_UP) * (0.05 + 0.95 * wave)

    def save(self) -> None:
        state = {
            "step": self.step,
            "parameters": dict(self.parameters),
            "heads": self.heads,
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, self.out / "state.partial")
        (self.out / "state.partial").replace(self.out / "state.pt")

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """The model in bfloat16 as an ordinary LLaVA checkpoint, its vision tower in a folder inside."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.out / "start", folder)
        tower = self.model.get_vision_tower().vision_tower
        weights = {
            name: each.bfloat16() for name, each in self.model.state_dict().items() if "vision_tower" not in name
        }
        config = read_json(folder / "config.json", what="configuration of the model")
        self.model.save_pretrained(folder, state_dict=weights)
        save_tower(tower, folder / VISION_TOWER, {n: e.bfloat16() for n, e in tower.state_dict().items()})
        for path in (folder, folder / VISION_TOWER):
            found = config if path == folder else read_json(path / "config.json", what="configuration of the tower")
            write_json(path / "config.json", {**found, "torch_dtype": "bfloat16", "dtype": "bfloat16"}, indent=2)
        write_json(folder / "config.json", {**config, "dtype": "bfloat16", "mm_vision_tower": VISION_TOWER}, indent=2)

    @torch.no_grad()
    def evaluate(self, *, count: int) -> dict[str, tuple[int, int]]:
        """For each ability, right answers (in every token) and all of them, in `count` batches of held-out items."""
        pictures = load_pictures(self.out / "held_out", count=min(HELD_OUT, self.scenes), seed=HELD_OUT_SEED)
        batches = self.batches(pictures, seed=HELD_OUT_SEED, steps=1, wrong=False)
        self.image_at = batches.encoder.image_at
        found: dict[str, list[bool]] = defaultdict(list)
        # Of a coordinate's piece, its number; far apart from all others, that of any other piece.
        numbers = -(10**6) * (1 + torch.arange(len(self.tokenizer)))
        numbers[[batches.encoder.ids(f"<s>{place}", first=True)[-1] for place in range(FRAME)]] = torch.arange(FRAME)
        for number in range(count):
            batch = batches[10**6 + number]  # behind the last phase: everything, and at full length
            written = self.logits(batch)[0].argmax(-1).cpu()
            right = (written == batch.labels) | (batch.labels == -100)
            near = (numbers[written] - numbers[batch.labels.clamp(min=0)]).abs() <= NEAR
            for ability, row, start, stop in batch.abilities:
                enough = right | near if ability in PLACES else right
                found[ability].append(bool(enough[row, start:stop].all()))
        return {ability: (sum(each), len(each)) for ability, each in sorted(found.items())}


def train_vqvae(out: Path, *, scenes: int = 5000, epochs: int = 3) -> None:
    """Trains the depth VQ-VAE. Args: out: folder of the run."""
    folder = out / "vqvae_scenes"
    write_scenes(out=folder, count=scenes, seed=VQVAE_SEED, config=pictures.SCENES)
    train_small_vqvae(folder / "depth", out / "vqvae", config=VQVAE, epochs=epochs, seed=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an interrupted one is resumed")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=SCENES, help="to train on, each rendered once")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--evaluate", action="store_true", help="evaluate and export the present state, and stop")
    parser.add_argument("--vqvae", action="store_true", help="train the depth VQ-VAE instead, and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.vqvae:
        return train_vqvae(options.out)
    run = Pretraining(options.out, steps=options.steps, seed=options.seed, scenes=options.scenes, device=options.device)
    if not options.evaluate:
        run.train()
    run.export(options.out / "base")
    abilities = run.evaluate(count=60)
    write_card(options.out / "base", abilities)
    for ability, (right, asked) in abilities.items():
        print(f"{ability:28} {100 * right / asked:5.1f} %  of {asked}")


if __name__ == "__main__":
    main()
