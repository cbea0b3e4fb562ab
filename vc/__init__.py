"""Emotional voice conversion after EmoReg: a recording keeps its words and its voice and gets another emotion.

``VoiceConverter`` is loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vc.convert import Conversion, VoiceConverter

__all__ = ["Conversion", "VoiceConverter"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from vc import convert

        return getattr(convert, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
