"""Perception modalities: one file is one kind of perception token. base.py holds the contract they share."""

from llava_aurora.modalities.base import (
    Modality,
    build_modalities,
    modality_class,
    register_modality,
    unregister_modality,
    vocabulary_of,
)

__all__ = [
    "Modality",
    "build_modalities",
    "modality_class",
    "register_modality",
    "unregister_modality",
    "vocabulary_of",
]
