"""What prosody is made of, and how far an emotion may move it."""

from __future__ import annotations

CONTROLS = {
    "pitch": 0.8,
    "range": 0.9,
    "motion": 0.9,
    "slope": 1.0,
    "dynamics": 0.4,
    "tilt": 1.5,
    "voiced": 0.6,
    "unvoiced": 0.6,
    "pause": 0.4,
    "gain": 4.0,
}
"""Each control and the most it may move either way.

``pitch`` median log2 F0 (octaves), ``range`` log ratio of the spreads of log F0, ``motion`` log ratio of how far F0
moves about its own running mean, ``slope`` of log2 F0 over a phrase
(octaves from beginning to end), ``dynamics`` log ratio of the spreads of the log energy, ``tilt`` slope of the log
energy over a phrase (nepers), ``voiced``, ``unvoiced``, ``pause`` log ratios of duration of voiced and unvoiced speech
and of pauses within, ``gain`` mean level (nepers). Pauses are held closest: the sentences of the twins hardly have any,
and on speakers left out what is learned of them is no better than no change.
"""
GAIN_DB = 12.0
"""The gain asked for comes ever closer to this, but not over it; actors are up to 23 dB louder when angry."""
CEILING = 8.45
"""log2 Hz, 350 Hz: up to here the median of a voice may be raised. High voices lose their words first."""
ROOM = 0.3
"""Octaves that any voice may be raised by."""
LOWEST_HZ, HIGHEST_HZ = 60.0, 1000.0
"""Where F0 is held."""
SURE = 3.0
"""Nepers under the loudest speech from where up there is certainly speech; :data:`vc.content.ACTIVE` may be speech."""
LOUDEST = 0.95
"""Share of the active frames that are not as loud as the loudest speech; clicks are few."""
LEAST_VOICED = 8
"""Fewest voiced frames that F0 is measured from."""
NARROWEST = 0.02
"""Octaves: smallest spread of F0."""
WIDEST = 0.6
"""Octaves from the median from where on F0 may be a wrong octave: it is moved no further than what lies there."""
MOTION_REACH = 4
"""Frames to either side (46 ms) of the running mean of F0."""
MOTION_MOST = 0.06
"""Octaves from the running mean beyond which it is a jump of the tracker rather than of the voice."""
PHRASE_GAP = 34
"""Frames of pause (0.4 s) that end a phrase."""
PHRASE_LEAST = 86
"""Frames (1 s) from which a phrase has its full slope."""
SMOOTH = 3
"""Frames to either side over which tempo changes between voiced, unvoiced and pause."""
HALF = (0.1, 0.9)
"""Bounds of the response at half strength: the knob moves something everywhere."""
PIECE = 4096
"""Frames whose controls are found at a time, which bounds the memory that a long file takes."""
STRONGEST = 1.5
"""Strength from which nothing grows any more."""
