"""Emotional symbolic music (MusER): compose, continue and transfer piano pieces with an emotion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from music.compose import Composer as Composer
    from music.config import MusicConfig as MusicConfig

__all__ = ["Composer", "MusicConfig"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line stays quick."""
    if name == "Composer":
        from music.compose import Composer

        return Composer
    if name == "MusicConfig":
        from music.config import MusicConfig

        return MusicConfig
    raise AttributeError(f"module 'music' has no attribute {name!r}")
