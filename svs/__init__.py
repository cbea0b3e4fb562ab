"""Singing synthesis of several singers with emotion and its intensity (after Muse-SVS)."""
