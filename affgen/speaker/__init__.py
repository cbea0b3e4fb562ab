"""The speaker encoder: a voice, spoken or sung, to a vector of unit length that tells whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affgen.speaker.config import SpeakerConfig as SpeakerConfig
    from affgen.speaker.embed import SpeakerEncoder as SpeakerEncoder
    from affgen.speaker.embed import similarity as similarity

__all__ = ["SpeakerConfig", "SpeakerEncoder", "similarity"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line stays quick."""
    if name in ("SpeakerEncoder", "similarity"):
        from affgen.speaker import embed

        return getattr(embed, name)
    if name == "SpeakerConfig":
        from affgen.speaker.config import SpeakerConfig

        return SpeakerConfig
    raise AttributeError(f"module 'affgen.speaker' has no attribute {name!r}")
