"""The depth VQ-VAE: relative depth maps <-> grids of code indices.

Importing this package loads torch.
"""

from llava_aurora.vqvae.autoencoder import DepthVQVAE, DepthVQVAEConfig, DepthVQVAEOutput, build_depth_vqvae
from llava_aurora.vqvae.checkpoint import fingerprint, load_depth_vqvae, save_depth_vqvae
from llava_aurora.vqvae.quantizer import EMAQuantizer, perplexity

__all__ = [
    "DepthVQVAE",
    "DepthVQVAEConfig",
    "DepthVQVAEOutput",
    "EMAQuantizer",
    "build_depth_vqvae",
    "fingerprint",
    "load_depth_vqvae",
    "perplexity",
    "save_depth_vqvae",
]
