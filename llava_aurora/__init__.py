"""Perception tokens for LLaVA: a model that writes depth maps and boxes as tokens while it reasons.

    from llava_aurora import Aurora, Predictor, load_pretrained_model, register

Importing this module loads neither torch nor LLaVA; the names below do when they are first used.
"""

import importlib
from typing import Any

from llava_aurora.errors import AuroraError
from llava_aurora.version import __version__

_PUBLIC = {
    "Aurora": "llava_aurora.generation.aurora",
    "TokenKind": "llava_aurora.tokens",
    "PerceptionTokens": "llava_aurora.tokens.perception",
    "PerceptionLogitsProcessor": "llava_aurora.model.constraint",
    "PerceptionVocabulary": "llava_aurora.tokens.vocabulary",
    "Predictor": "llava_aurora.generation.predictor",
    "Result": "llava_aurora.generation.result",
    "load_pretrained_model": "llava_aurora.model.checkpoint",
    "register": "llava_aurora.training.integration",
    "register_kind": "llava_aurora.tokens",
    "unregister": "llava_aurora.training.integration",
}

__all__ = ["AuroraError", "__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
