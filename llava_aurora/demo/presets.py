"""Sizes of the demo. `demo` is made for two cores and about twenty minutes; `smoke` shows that every stage runs.

Half of `demo`'s scenes would take half its time, but leave answers at 3 to 5 points at chance, also in half the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llava_aurora.data.sources.scenes.scene import SceneConfig
from llava_aurora.demo.tiny_llava import TinyLlavaConfig
from llava_aurora.vqvae.autoencoder import DepthVQVAEConfig

# Chains say how close each point is, and maps are learned to be written in one pass.
TAUGHT: Mapping[str, object] = {
    "value_step": "interpolated",
    "aux_losses": "attention=0.2,answer=0.3",
    "span_mask_probability": 0.25,
    "span_noise_probability": 0.5,
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Everything that decides how long the demo takes and how well its model sees.

    Args:
        scenes, held_out: numbers of scenes to train on and to ask about.
        scene: of both.
        vqvae, vqvae_epochs: of the depth VQ-VAE, which is trained in small batches at a fast falling rate.
        model: of the LLaVA; its frame is that of the scenes and of the coordinates.
        shares: records of each task a scene.
        read_points: how many points are read in a map (`depth_reading`).
        sound_chains: leaves out chains whose values do not bear out their answer. Of a VQ-VAE that has learned nothing
            those are all.
        epochs, batch, learning_rate: of fine-tuning; `batch` is per rank.
        flags: what else it is told.
        ranks: processes of fine-tuning, and of rendering.
        pictures: how many held-out scenes are drawn.
    """

    scenes: int
    held_out: int
    scene: SceneConfig
    vqvae: DepthVQVAEConfig
    vqvae_epochs: int
    model: TinyLlavaConfig
    shares: dict[str, float]
    read_points: int = 8
    sound_chains: bool = True
    epochs: float
    batch: int
    learning_rate: float
    flags: Mapping[str, object] = field(default_factory=lambda: TAUGHT)
    ranks: int = 2
    pictures: int = 6
    seed: int = 0
    points: tuple[int, ...] = field(default=(2, 3, 4, 5))


PRESETS = {
    "demo": Preset(
        scenes=8000,
        held_out=100,
        scene=SceneConfig(frame=96, shadows=False, variety=0.5),
        vqvae=DepthVQVAEConfig(image_size=96, channels=(8, 16, 32, 64), code_dim=16, codebook_size=32),
        vqvae_epochs=2,
        model=TinyLlavaConfig(),
        shares={
            "depth_generation": 0.7,
            "depth_chain_from_coordinates": 1.0,
            "depth_reading": 0.3,
            "depth_direct_from_coordinates": 0.2,
            "point_location": 0.05,
            "depth_chain": 0.05,
            "box_generation": 0.1,
            "counting_chain": 0.05,
            "counting_direct": 0.05,
        },
        epochs=1,
        batch=12,
        learning_rate=1.5e-3,
    ),
    "smoke": Preset(
        scenes=24,
        held_out=6,
        scene=SceneConfig(frame=56, shadows=False, antialias=False),
        vqvae=DepthVQVAEConfig(image_size=48, channels=(8, 8, 16, 16), code_dim=16, codebook_size=16),
        vqvae_epochs=2,
        model=TinyLlavaConfig(
            frame=56, patch=14, width=64, layers=2, vision_width=64, vision_layers=2, vocabulary=420, max_length=512
        ),
        shares={
            "depth_generation": 1.0,
            "depth_chain_from_coordinates": 1.0,
            "depth_direct_from_coordinates": 1.0,
            "counting_chain": 1.0,
        },
        sound_chains=False,
        epochs=1,
        batch=8,
        learning_rate=1e-3,
        pictures=2,
        points=(2,),
    ),
}
