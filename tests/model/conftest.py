"""Models as training has them."""

import pytest

from llava_aurora import load_pretrained_model
from llava_aurora.configuration import ModelArguments


@pytest.fixture
def taught(workshop):
    """Gives tokenizer, model and image processor as train() has them when the trainer is built."""

    def make(*, language_model: bool, **changes):
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
        model.config.use_cache = False
        return tokenizer, model.train(), processor

    return make
