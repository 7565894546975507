"""Models as training has them, and a batch for the loss without one."""

import pytest
import torch

from llava_aurora import load_pretrained_model
from llava_aurora.configuration import ModelArguments
from llava_aurora.model.training_loss import TrainingSettings
from llava_aurora.tokens import vocabulary_of
from llava_aurora.tokens.box import BoxKind
from llava_aurora.tokens.depth import DepthKind
from llava_aurora.tokens.perception import PerceptionTokens
from llava_aurora.tokens.vocabulary import PerceptionIds
from llava_aurora.vqvae.checkpoint import load_depth_vqvae

DEFAULTS = TrainingSettings()


@pytest.fixture
def taught(workshop):
    """Gives tokenizer, model and image processor as train() has them when the trainer is built."""

    def make(*, language_model: bool, settings=DEFAULTS, **changes):
        tokenizer, model, processor, _ = load_pretrained_model(str(workshop.base))
        tokenizer.pad_token = tokenizer.unk_token
        model.requires_grad_(language_model)
        model.model.mm_projector.requires_grad_(True)
        flags = {
            "model_name_or_path": str(workshop.base),
            "mm_use_im_patch_token": False,
            **workshop.perception_flags(),
        }
        flags["depth_vqvae"] = str(flags["depth_vqvae"])
        model.initialize_vision_tokenizer(ModelArguments(**{**flags, **changes}), tokenizer)
        model.start_training(settings, tokenizer=tokenizer)
        model.config.use_cache = False
        return tokenizer, model.train(), processor

    return make


WORDS, DIMENSION = 20, 12


@pytest.fixture
def perception(workshop) -> PerceptionTokens:
    vqvae = load_depth_vqvae(workshop.vqvae)
    with torch.no_grad():
        vqvae.decoder[-1].weight.mul_(1000)  # an untrained decoder's pictures hardly differ
    kinds = {"depth": DepthKind(vqvae=vqvae), "box": BoxKind(frame=56)}
    vocabulary = vocabulary_of(kinds.values())
    ids = PerceptionIds(
        vocabulary=vocabulary, first_ids={"DEPTH": WORDS, "PIXEL": WORDS + 18}, separators={"PIXEL": (3,)}
    )
    return PerceptionTokens(kinds=kinds, ids=ids)


@pytest.fixture
def labels(perception) -> torch.Tensor:
    """Three rows: a question and an answer with a map; an answer without; a map that is cut off."""
    depth = perception.kinds["depth"].family
    span = perception.ids.ids(depth, [3, 1, 4, 1, 5, 9, 2, 6, 5])
    rows = [[-100] * 4 + [7, *span, 8], [-100] * 4 + [5] * 12, [-100] * 10 + [7, *span[:6]]]
    return torch.tensor([(row + [-100] * 20)[:17] for row in rows])


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(3, 17, DIMENSION, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def head(perception) -> torch.nn.Linear:
    torch.manual_seed(1)
    return torch.nn.Linear(DIMENSION, WORDS + perception.token_count, bias=False)
