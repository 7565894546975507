"""Token kinds: one file is one kind of perception token. kind.py holds the contract they share."""

from llava_aurora.tokens.kind import (
    TokenKind,
    build_kinds,
    kind_class,
    register_kind,
    unregister_kind,
    vocabulary_of,
)

__all__ = [
    "TokenKind",
    "build_kinds",
    "kind_class",
    "register_kind",
    "unregister_kind",
    "vocabulary_of",
]
