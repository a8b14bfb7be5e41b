"""Handwriting recognition: train, judge and use models that read handwriting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwr.errors import HwrError

if TYPE_CHECKING:
    from hwr.recognizer import Reading, Recognizer

__version__ = "0.1.0"
__all__ = ["HwrError", "Reading", "Recognizer"]


def __getattr__(name: str) -> object:
    """Imports torch only when a model is wanted."""
    if name in ("Recognizer", "Reading"):
        from hwr import recognizer

        return getattr(recognizer, name)
    raise AttributeError(f"module 'hwr' has no attribute {name!r}")
