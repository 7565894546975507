"""Sizes of the study. `cpu` is for two cores, `gpu` for one large GPU; `smoke` only shows that every stage runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.demo.tiny_llava import TinyLlavaConfig
from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig

# Benchmarks of held-out scenes. Points lie at one height: anywhere in a room, the lowest is mostly the closest.
MARKED, BY_COORDINATES, COUNTING = "scenes_one_height", "scenes_one_height_coordinates", "scenes_counting"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Everything that is the same for all contestants.

    Args:
        name: as --size has it.
        maps: scenes whose maps and boxes are learned.
        questions: scenes that are asked about; every second one is counted in.
        draws: how often each of these is asked about, every time with other points and other things to count. A model
            that starts from nothing needs many points, but few scenes are the paper's point.
        marked: whether half of the depth questions mark their points in the image; otherwise all give coordinates.
        located: share of the scenes with maps that also show marked points to be located.
        held_out: scenes for evaluation, rendered from another seed.
        scene, vqvae, vqvae_epochs, model: of the demo's kind.
        locating: share of the depth samples, in every epoch of every contestant, that only locate marked points.
        epochs, records_per_epoch: the data budget of each contestant.
        batch, learning_rate, ranks: of training; `batch` is per rank.
        flags: more flags of training, for the machine that it is meant for.
        points: how many points a question has.
        ask_batch, max_new_tokens: of evaluation.
        coordinate_questions: how many of the questions that give coordinates are asked beside marked ones; all if None.
        replaced_questions: of how many questions of each benchmark the maps are replaced; all if None.
        seed: of everything that runs share: scenes, VQ-VAE, records.
    """

    name: str
    maps: int
    questions: int
    draws: int
    marked: bool = True
    located: float = 0.0
    held_out: int
    scene: SceneConfig
    vqvae: DepthVQVAEConfig
    vqvae_epochs: int
    model: TinyLlavaConfig
    locating: float = 0.1
    epochs: int = 10
    records_per_epoch: int
    batch: int
    learning_rate: float
    ranks: int
    flags: Mapping[str, object] = field(default_factory=dict)
    points: tuple[int, ...] = (2, 3, 4, 5)
    ask_batch: int
    max_new_tokens: int
    coordinate_questions: int | None = None
    replaced_questions: int | None = None
    seed: int = 0

    @property
    def depth_benchmarks(self) -> tuple[str, ...]:
        """What contestants are asked about depth; by the first they are compared."""
        return (MARKED, BY_COORDINATES) if self.marked else (BY_COORDINATES,)

    @property
    def samples(self) -> int:
        """What each contestant sees."""
        return self.epochs * self.records_per_epoch

    @property
    def steps(self) -> int:
        """Of training."""
        return self.epochs * math.ceil(self.records_per_epoch / (self.batch * self.ranks))


# The paper's proportions: 20,000 images with maps to 500 with marked points and 250 to count in.
SIZES: Mapping[str, Size] = {
    size.name: size
    for size in (
        Size(
            name="cpu",
            maps=8000,
            questions=200,
            draws=10,
            marked=False,
            held_out=1000,
            scene=SceneConfig(frame=80, shadows=False, variety=0.5),
            vqvae=DepthVQVAEConfig(image_size=80, channels=(8, 16, 32, 64), code_dim=16, codebook_size=32),
            vqvae_epochs=2,
            model=TinyLlavaConfig(frame=80, patch=16, layers=4, max_length=384),
            locating=0.0,
            records_per_epoch=12000,
            batch=16,
            learning_rate=8e-4,
            ranks=1,
            ask_batch=128,
            max_new_tokens=160,
            replaced_questions=800,
        ),
        Size(
            name="gpu",
            maps=8000,
            questions=200,
            draws=10,
            located=0.25,
            held_out=1000,
            scene=SceneConfig(frame=336, shadows=False, variety=0.5),
            vqvae=DepthVQVAEConfig(),
            vqvae_epochs=2,
            model=TinyLlavaConfig(
                frame=336,
                patch=24,
                vision_width=512,
                vision_layers=12,
                width=768,
                layers=12,
                heads=8,
                vocabulary=1000,
                max_length=640,
            ),
            records_per_epoch=6000,
            batch=64,
            learning_rate=4e-4,
            ranks=1,
            flags={"bf16": True, "dataloader_num_workers": 12, "save_steps": 0.25},
            ask_batch=256,
            max_new_tokens=320,
            coordinate_questions=1000,
            replaced_questions=400,
        ),
        Size(
            name="smoke",
            maps=16,
            questions=4,
            draws=2,
            located=1.0,
            held_out=4,
            scene=SceneConfig(frame=56, shadows=False, antialias=False),
            vqvae=DepthVQVAEConfig(image_size=48, channels=(8, 8, 16, 16), code_dim=16, codebook_size=16),
            vqvae_epochs=1,
            model=TinyLlavaConfig(
                frame=56, patch=14, width=64, layers=2, vision_width=64, vision_layers=2, vocabulary=420, max_length=512
            ),
            epochs=2,
            records_per_epoch=16,
            batch=4,
            learning_rate=1e-3,
            ranks=2,
            points=(2,),
            ask_batch=16,
            max_new_tokens=60,
        ),
    )
}
