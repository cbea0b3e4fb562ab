"""Training of the judge: statistics of clips and of copies of them, the ensemble, the directions, the card."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affgen import config as configs
from affgen.audio import Audio, normalise, resample
from affgen.checkpoint import load_into
from affgen.datadir import read
from affgen.emotion.labels import LABELS
from affgen.errors import AffgenError, DataError
from affgen.featuredir import FeatureDir
from affgen.features import SAMPLE_RATE, extract
from affgen.training import derived_seed, fit
from affgen.vocoder.vocoder import Vocoder
from vc import baselines
from vc.acoustics import names, statistics
from vc.judge import Judge, JudgeConfig, Network
