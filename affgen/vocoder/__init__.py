"""The vocoder: log-mel and F0 to wave, by filtered pulses and noise with an inverse STFT at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affgen.vocoder.config import VocoderConfig as VocoderConfig
    from affgen.vocoder.vocoder import Vocoder as Vocoder

__all__ = ["Vocoder", "VocoderConfig"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line stays quick."""
    if name == "Vocoder":
        from affgen.vocoder.vocoder import Vocoder

        return Vocoder
    if name == "VocoderConfig":
        from affgen.vocoder.config import VocoderConfig

        return VocoderConfig
    raise AttributeError(f"module 'affgen.vocoder' has no attribute {name!r}")
