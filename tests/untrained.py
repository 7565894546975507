"""Models before any training."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llava_aurora import Predictor, load_pretrained_model
from llava_aurora.model.embeddings import RowStart, grow_embeddings
from llava_aurora.tokens import build_kinds
from llava_aurora.tokens.perception import PerceptionTokens


def untrained_predictor(workshop, **kinds: dict) -> Predictor:
    """The base model with tokens of depth and box, and of `kinds` by their settings."""
    torch.manual_seed(1)
    tokenizer, model, image_processor, _ = load_pretrained_model(str(workshop.base), device="cpu")
    settings = {"depth": {"vqvae": str(workshop.vqvae)}, "box": {"frame": 56}, **kinds}
    perception = PerceptionTokens.teach(tokenizer, build_kinds(settings, workshop.folder))
    grow_embeddings(model, rows=len(tokenizer), ids=perception.token_ids(), start=RowStart())
    model.attach_perception(perception)
    return Predictor(tokenizer=tokenizer, model=model, image_processor=image_processor)


def tiny_llama(*, vocabulary: int = 50, tied: bool = False) -> LlamaForCausalLM:
    """A Llama without images, one layer of 16."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=tied, **shape))
