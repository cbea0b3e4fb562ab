"""The emotion names every part of affgen understands, and where they lie in the valence-arousal plane.

Sources of the coordinates (valence, arousal), both in [-1, 1]:

* happy, sad, angry, fearful, disgust, surprised: pleasure and arousal means of the terms *joyful, sad, angry, fearful,
  disgusted, surprised* in J. A. Russell and A. Mehrabian, "Evidence for a three-factor theory of emotions", Journal of
  Research in Personality 11 (1977) 273-294. That scale already runs from -1 to 1; nothing is rescaled, dominance is
  left out.
* calm: not used from that list. Its direction, 316.2 degrees, is that of *calm* in the circular scaling of 28 words in
  J. A. Russell, "A circumplex model of affect", Journal of Personality and Social Psychology 39 (1980) 1161-1178; its
  length, 0.79, is set to the mean length of the six above, so that no label is stronger by choice of source.
* neutral: the origin, by definition.

The quadrants are those of EMOPIA (Hung et al., ISMIR 2021). Their centres (+-0.7, +-0.7) are this project's choice:
the diagonal point of the unit circle, rounded down.
"""

from __future__ import annotations

from affgen.errors import AffgenError

LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
QUADRANTS = ("Q1", "Q2", "Q3", "Q4")

_COORDINATES = {
    "neutral": (0.0, 0.0),
    "calm": (0.57, -0.54),
    "happy": (0.76, 0.48),
    "sad": (-0.63, -0.27),
    "angry": (-0.51, 0.59),
    "fearful": (-0.64, 0.60),
    "disgust": (-0.60, 0.35),
    "surprised": (0.40, 0.67),
    "Q1": (0.7, 0.7),
    "Q2": (-0.7, 0.7),
    "Q3": (-0.7, -0.7),
    "Q4": (0.7, -0.7),
}

# Words for the labels in the corpora this project reads and in common use. "boredom" (EmoDB) has no label of its own:
# it goes to calm, which shares its low arousal (not its valence), so that EmoDB's seven emotions stay seven.
_ALIASES = {
    "none": "neutral",
    "neutrality": "neutral",
    "calmness": "calm",
    "relaxed": "calm",
    "peaceful": "calm",
    "tender": "calm",
    "boredom": "calm",
    "bored": "calm",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "anxiety": "fearful",
    "afraid": "fearful",
    "scared": "fearful",
    "disgusted": "disgust",
    "surprise": "surprised",
}


def accepted() -> str:
    """Return the list of accepted names as one line, for error messages."""
    return f"{', '.join(LABELS)}, {', '.join(QUADRANTS)}"


def resolve(name: str) -> str:
    """Return the canonical label or quadrant of ``name`` (any case, aliases such as ``anger``, ``joy``, ``boredom``).

    Raises :class:`AffgenError`, with the list of what is accepted, for any other name.
    """
    key = name.strip().lower()
    key = _ALIASES.get(key, key)
    key = key.upper() if key.upper() in QUADRANTS else key
    if key not in _COORDINATES:
        raise AffgenError(f"unknown emotion {name.strip()[:40]!r}; accepted: {accepted()} or va:VALENCE/AROUSAL")
    return key


def coordinates(name: str) -> tuple[float, float]:
    """Return (valence, arousal) in [-1, 1] of a label, alias or quadrant; sources in the module docstring.

    Raises :class:`AffgenError` for an unknown name.
    """
    return _COORDINATES[resolve(name)]


def quadrant(valence: float, arousal: float) -> str:
    """Return ``Q1`` (+V +A), ``Q2`` (-V +A), ``Q3`` (-V -A) or ``Q4`` (+V -A); zero counts as positive."""
    if arousal >= 0:
        return "Q1" if valence >= 0 else "Q2"
    return "Q4" if valence >= 0 else "Q3"
