"""Alignment: which phone is spoken when, from text or without any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from affgen.align.segments import Segment, frame_phones

if TYPE_CHECKING:
    from affgen.align.aligner import Aligner as Aligner
    from affgen.align.aligner import align as align

__all__ = ["Aligner", "Segment", "align", "frame_phones"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line stays quick."""
    if name in ("Aligner", "align"):
        from affgen.align import aligner

        return getattr(aligner, name)
    raise AttributeError(f"module 'affgen.align' has no attribute {name!r}")
