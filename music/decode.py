"""Recurrent, batched decoding: prior and decoder advance together, one code and one row at a time, at constant
cost per row.

For each row: the prior scores the next code; its latent enters the decoder; the row type is drawn, then the
position, then the
other fields, each from scores masked by the grammar. With guidance w the scores are neutral + w (steered - neutral)
(Ho & Salimans, 2022), neutral and steered being one batch. With ``fusion="ca"`` (published) the decoder attends to
the latents
of the whole piece, so all codes are drawn first.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from affgen.layers import State
from music.config import MusicConfig, TokenConfig
from music.data import bars_left, places
from music.grammar import Grammar
from music.keys import scale_pitch_classes
from music.model import Conditions, MusER
from music.prior import Prior
from music.recurrent import Fast, Running, join, prepare, prime
from music.steering import AROUSAL, GUIDANCE, KEY, VALENCE, Steering
from music.tokens import (
    BAR,
    BEAT,
    CHORD,
    CONTI,
    DURATION,
    EMOTION,
    EMOTION_ROW,
    EOS,
    FIRST_DURATION,
    FIRST_TEMPO,
    IGN,
    METRICAL,
    NOTE,
    PITCH,
    TEMPO,
    TYPE,
    VELOCITY,
    bars_of_rows,
    tempo_values,
)

TYPICAL_TEMPO = 100.0
"""Beats per minute taken for curves in seconds until the piece has a tempo."""


TURN = 0.3
"""When valence or arousal has moved by more than this, a new phrase begins: only the key goes on. A model that has
learned from clips of one emotion each would otherwise go on as it began, and the change arrive bars late."""


@dataclass
class Request:
    """One piece to decode, and what steers it: ``bars``, or ``seconds`` (bars then follow from the tempo that is drawn;
    not with a beginning).

    ``rows`` (T, 8) and ``codes`` (T - 1,) of a beginning that is kept; ``quadrant`` 0..4 for models conditioned by
    a token.
    """

    seed: int
    steer: Steering
    bars: int = 16
    seconds: float | None = None
    tempo: int = 0
    """Token id of a tempo that is kept throughout; 0: the model chooses."""
    quadrant: int = 0
    rows: np.ndarray | None = None
    codes: np.ndarray | None = None
    latents: np.ndarray | None = None
    """Latents (T, C) of the rows to come, in place of the prior's; the last one holds on."""


@dataclass
class _Piece:
    """A request under way: what was drawn so far and its own source of randomness, independent of its neighbours."""

    request: Request
    random: np.random.Generator
    rows: list[np.ndarray]
    codes: list[int]
    steering: np.ndarray = field(default_factory=lambda: np.zeros((1, 4)))
    tempo: int = 0
    """Id of the first tempo that was drawn; 0 before."""
    offset: int = 0
    """Rows that the running sums no longer hold."""
    latents: np.ndarray | None = None
    anchor: np.ndarray | None = None
    """Valence and arousal (2,) of the bars that the running sums remember."""


@torch.inference_mode()
def decode(
    model: MusER, prior: Prior, config: MusicConfig, requests: list[Request], fast: Fast | None = None
) -> list[np.ndarray]:
    """Rows (T, 8) of each request, from the emotion row to the end row, all valid by
    :func:`music.grammar.first_invalid`. ``fast``: the networks as :func:`music.recurrent.prepare` gives them, to spare
    doing it for each call.
    """
    return _Decoder(model, prior, config, requests, fast or prepare(model, prior)).run()


class _Decoder:
    """The loop state of :func:`decode`; finished pieces leave the batch."""

    def __init__(self, model: MusER, prior: Prior, config: MusicConfig, requests: list[Request], fast: Fast):
        config.require_decodable()
        self.model, self.prior, self.config = model, prior, config
        self.copies = 2 if config.model.conditioning == "rows" else 1
        self.pieces = [_begin(request, config.tokens, by_token=self.copies == 1) for request in requests]
        self.now = list(self.pieces)  # those that are still written
        bars = np.array([request.bars for request in requests])
        self.grammar = Grammar(config.tokens, bars, np.array([request.tempo for request in requests]))
        self.out_of_key = _out_of_key(config)
        lengths = np.arange(config.tokens.sizes()[DURATION]) - FIRST_DURATION
        self.sustain = config.sampling.sustain * np.log2(np.maximum(lengths, 1))
        self.fast, self.fast_prior = fast
        self.codebook = model.quantise.codebook.numpy()
        self.grammar.hear([piece.rows[1:] for piece in self.pieces])
        primed = [self._prime(index, piece) for index, piece in enumerate(self.pieces)]
        self.state, self.prior_state = join([state for state, _ in primed]), join([state for _, state in primed])

    def run(self) -> list[np.ndarray]:
        """Decode to the end of every piece."""
        while self.now:
            self._restart_full()
            self._step()
        return [np.stack(piece.rows) for piece in self.pieces]

    # --- one row ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        uniform = np.stack([piece.random.random(8) for piece in self.now])
        steering = self._steering()
        va, told = self._told(steering)
        guidance = steering[:, GUIDANCE]
        last = np.tile(np.stack([piece.rows[-1] for piece in self.now]), (self.copies, 1))
        latent, codes = self._latent(last, va, told, guidance, uniform[:, 7])
        features = self.fast.step(last, np.tile(latent, (self.copies, 1)), va, told, self.state)
        rows = self._row(features, guidance, uniform, told[0])
        self.grammar.advance(rows)
        for piece, row, number in zip(self.now, rows, codes.tolist(), strict=True):
            piece.rows.append(row)
            piece.codes.append(number)
        self._hear_tempi(rows)
        self._drop_finished(rows)

    def _latent(
        self, last: np.ndarray, va: np.ndarray, told: tuple[np.ndarray, ...], guidance: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Latent (B, C) and code (B,) of the next row: drawn from the prior, or given from the start."""
        if self.now[0].latents is not None:
            given = [piece.latents[min(len(piece.codes), len(piece.latents) - 1)] for piece in self.now]  # type: ignore[index,arg-type]
            return np.stack(given), np.zeros(len(given), np.int64)
        heard = np.array(
            [piece.codes[-1] if piece.codes else self.prior.codes + piece.rows[0][EMOTION] for piece in self.now]
        )
        scores = self.fast_prior.step(np.tile(heard, self.copies), last, va, told, self.prior_state)
        codes = self._draw_code(_guide(scores, guidance), uniform)
        return self.codebook[codes], codes

    def _draw_code(self, scores: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        return draw(scores, uniform, self.config.sampling.prior_temperature, self.config.sampling.prior_top_p)

    def _row(self, features: np.ndarray, guidance: np.ndarray, uniform: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Draw rows (B, 8): the type, then the position, then the rest, each within the grammar."""
        sampling, grammar = self.config.sampling, self.grammar
        rows = np.zeros((len(uniform), 8), dtype=np.int64)

        kinds = np.zeros(len(features[0]), dtype=np.int64)

        def pick(column: int, allowed: np.ndarray) -> None:
            if (allowed.sum(axis=1) == 1).all():  # nothing to choose
                rows[:, column] = allowed.argmax(axis=1)
                return
            scores = self.fast.type_scores(features) if column == TYPE else self.fast.scores(column, features, kinds)
            if column == PITCH:
                scores = scores - self.out_of_key[key]
            elif column == DURATION:
                scores = scores + self.sustain
            chances = sampling.temperature[column], sampling.top_p[column]
            rows[:, column] = draw(_guide(scores, guidance), uniform[:, column], *chances, allowed)

        pick(TYPE, grammar.types())
        kinds = np.tile(rows[:, TYPE], self.copies)
        metrical = rows[:, TYPE] == METRICAL
        if metrical.any():
            pick(BEAT, np.where(metrical[:, None], grammar.beats(), np.arange(grammar.sizes[BEAT]) == IGN))
        masks = grammar.fields(rows[:, TYPE], rows[:, BEAT])
        at_beat, notes = (rows[:, BEAT] > BAR).any(), (rows[:, TYPE] == NOTE).any()
        for column in (TEMPO, CHORD) * bool(at_beat) + (PITCH, DURATION, VELOCITY) * bool(notes):
            pick(column, masks[column])
        return rows

    # --- steering ---------------------------------------------------------------------------------------------------

    def _steering(self) -> np.ndarray:
        """Valence, arousal and guidance (B, 3) of the bar that each piece is in."""
        bars = np.maximum(self.grammar.heard - 1, 0)
        return np.stack([p.steering[min(bar, len(p.steering) - 1)] for p, bar in zip(self.now, bars, strict=True)])

    def _told(self, steering: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Valence and arousal (n, 2) and the hints key, bars left and place (n,) of this row, for both copies of
        each piece.
        """
        unknown = np.array([piece.request.seconds is not None and not piece.tempo for piece in self.now])
        left = np.where(unknown, 0, bars_left(self.grammar.bars, self.grammar.heard))
        key = steering[:, KEY].astype(np.int64)
        told = tuple(np.tile(array, self.copies) for array in (key, left, self.grammar.place))
        return _with_neutral(steering[:, [VALENCE, AROUSAL]], self.copies), told

    def _hear_tempi(self, rows: np.ndarray) -> None:
        """The first tempo fixes how many bars the asked seconds are, and where in bars the curves are."""
        for index in np.flatnonzero(rows[:, TEMPO] >= FIRST_TEMPO):
            piece = self.now[index]
            if piece.tempo:
                continue
            piece.tempo = int(rows[index, TEMPO])
            bpm = float(tempo_values(self.config.tokens)[piece.tempo - FIRST_TEMPO])
            if piece.request.seconds is not None:
                self.grammar.bars[index] = bars_in(piece.request.seconds, bpm)
                self.grammar.tempo[index] = piece.tempo
            piece.steering = piece.request.steer(int(self.grammar.bars[index]), bpm)

    # --- beginnings, long pieces, ends --------------------------------------------------------------------------------

    def _restart_full(self) -> None:
        """Where the context has outgrown the training length, make the running sums anew from the last bars."""
        if self.config.model.fusion == "ca":
            return  # its latents belong to the whole piece
        full = np.array([len(piece.rows) - piece.offset > self.config.model.max_rows for piece in self.now])
        turned = self._turned()
        if not (full | turned).any():
            return
        both = []
        for index, piece in enumerate(self.now):
            own = np.arange(self.copies) * len(self.now) + index
            going_on = (self.state.select(own), self.prior_state.select(own))
            again = full[index] or turned[index]
            both.append(self._prime(index, piece, fresh=bool(turned[index])) if again else going_on)
        self.state, self.prior_state = join([state for state, _ in both]), join([state for _, state in both])

    def _turned(self) -> np.ndarray:
        """Which pieces (B,) begin a bar that is steered elsewhere than the bars they remember."""
        turned = (self.grammar.kind == METRICAL) & (self.grammar.place == BAR)
        for index in np.flatnonzero(turned):
            piece = self.now[index]
            bar = piece.steering[min(int(self.grammar.heard[index]) - 1, len(piece.steering) - 1)]
            aim = bar[[VALENCE, AROUSAL]] * min(1.0, bar[GUIDANCE])  # what is not steered does not turn
            turned[index] = piece.anchor is not None and np.abs(aim - piece.anchor).max() > TURN
            if piece.anchor is None or turned[index]:
                piece.anchor = aim
        return turned

    def _prime(self, index: int, piece: _Piece, *, fresh: bool = False) -> tuple[Running, Running]:
        """Memories after all rows of a piece but the last (``fresh``: of its last bar alone), for its steered and its
        neutral copy.
        """
        context = _context(piece.rows, 1 if fresh else self.config.model.max_rows)
        piece.offset = len(piece.rows) - len(context)
        rows, copies = context[:-1], self.copies
        if not len(rows):
            return self.fast.start(copies, self._contexts(piece)), self.fast_prior.start(copies)
        bars = bars_of_rows(np.stack(piece.rows))[piece.offset :]
        heard = np.maximum(bars[:-1], 1)
        heard[0] = max(1, bars[1])  # the emotion row belongs to the bar that follows it
        steering = piece.steering[np.minimum(heard - 1, len(piece.steering) - 1)]
        va, key = steering[:, [VALENCE, AROUSAL]], steering[:, KEY].astype(np.int64)
        told = (key, bars_left(int(self.grammar.bars[index]), heard), places(rows))
        conditions = Conditions(
            torch.from_numpy(_with_neutral(va[None], copies).astype(np.float32)),
            *(torch.from_numpy(np.stack([array] * copies)) for array in told),
        )
        codes = np.array(piece.codes[piece.offset :], dtype=np.int64)
        latents = self.codebook[codes]
        if piece.latents is not None:
            latents = piece.latents[np.minimum(np.arange(len(codes)) + piece.offset, len(piece.latents) - 1)]
        x, ids, z = (np.stack([array] * copies) for array in (rows, codes, latents))
        return prime(self.model, self.prior, x, ids, z, conditions)

    def _contexts(self, piece: _Piece) -> list[State] | None:
        """With ``fusion="ca"`` all codes are drawn before the first row: the sums over them that the decoder
        attends to.
        """
        if self.config.model.fusion != "ca" or self.model.global_decoder is None:
            return None
        if piece.latents is None:
            piece.latents = self.codebook[self._codes_of_a_piece(piece)]
        return self.model.contexts(torch.from_numpy(np.stack([piece.latents] * self.copies)))

    def _codes_of_a_piece(self, piece: _Piece) -> np.ndarray:
        """Codes (max_rows,) by the prior alone, steered as in the first bar."""
        state, row = self.fast_prior.start(self.copies), np.tile(piece.rows[0], (self.copies, 1))
        va = _with_neutral(piece.steering[:1, [VALENCE, AROUSAL]], self.copies)
        told = (np.full(self.copies, int(piece.steering[0, KEY])), *(np.zeros(self.copies, np.int64),) * 2)
        code, codes = self.prior.codes + row[:1, EMOTION], []
        for _ in range(self.config.model.max_rows):
            scores = self.fast_prior.step(np.tile(code, self.copies), row, va, told, state)
            code = self._draw_code(_guide(scores, piece.steering[:1, GUIDANCE]), piece.random.random(1))
            codes.append(int(code[0]))
        return np.array(codes)

    def _drop_finished(self, rows: np.ndarray) -> None:
        going = np.flatnonzero(rows[:, TYPE] != EOS)
        if len(going) == len(rows):
            return
        self.now = [self.now[index] for index in going]
        self.grammar.keep(going)
        kept = np.concatenate([going + copy * len(rows) for copy in range(self.copies)])
        self.state, self.prior_state = self.state.select(kept), self.prior_state.select(kept)


def bars_in(seconds: float, bpm: float) -> int:
    """Whole bars of four beats nearest to a length, at least one."""
    return max(1, round(seconds * bpm / 240))


def draw(
    scores: np.ndarray, uniform: np.ndarray, temperature: float, top_p: float, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Draw one id per row from scores (B, K), each with its own number uniform (B,) in [0, 1).

    Scores are divided by ``temperature``; ids outside ``allowed`` (B, K) are never drawn; of the rest the most
    likely that
    together hold ``top_p`` of the probability are kept (Holtzman et al., 2020).
    """
    scores = scores.astype(np.float64) / temperature
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    if top_p < 1:
        ranked = -np.sort(-weights, axis=1)
        before = np.cumsum(ranked, axis=1) - ranked
        kept = (before < top_p * weights.sum(axis=1, keepdims=True)).sum(axis=1)
        weights = np.where(weights >= ranked[np.arange(len(ranked)), kept - 1][:, None], weights, 0.0)
    total = np.cumsum(weights, axis=1)
    return (total <= uniform[:, None] * total[:, -1:]).sum(axis=1)


def _guide(scores: np.ndarray, guidance: np.ndarray) -> np.ndarray:
    """Scores (2 B, K) of steered and neutral copies -> (B, K); scores (B, K) of models without guidance stay."""
    count = len(guidance)
    if len(scores) == count:
        return scores
    steered, neutral = scores[:count], scores[count:]
    return neutral + guidance[:, None] * (steered - neutral)


def _with_neutral(va: np.ndarray, copies: int) -> np.ndarray:
    """Valence and arousal (B, ...) and, with two copies, as many without emotion behind them."""
    return np.concatenate([va, np.zeros_like(va)][:copies])


def _context(rows: list[np.ndarray], longest: int) -> np.ndarray:
    """The rows to hear again: all of them if they are fewer than ``longest``, else the emotion row and the last bars
    that fill about half as many, at least the last bar.
    """
    table = np.stack(rows)
    if len(table) < longest:
        return table
    bar_lines = np.flatnonzero((table[:, TYPE] == METRICAL) & (table[:, BEAT] == BAR))
    start = bar_lines[min(int(np.searchsorted(bar_lines, len(table) - longest // 2)), len(bar_lines) - 1)]
    if longest > 1:
        start = max(int(start), len(table) - longest + 2)
    context = np.concatenate([table[:1], table[start:]])
    beats = np.flatnonzero((context[:, TYPE] == METRICAL) & (context[:, BEAT] != BAR))
    for column in (TEMPO, CHORD):
        said = table[:start, column][table[:start, column] > CONTI]
        if len(beats) and len(said) and context[beats[0], column] <= CONTI:
            context[beats[0], column] = said[-1]
    return context


def _out_of_key(config: MusicConfig) -> np.ndarray:
    """What is taken from the scores of each pitch id (25, P) for each key: nothing inside it."""
    pitches = config.tokens.pitch_low + np.arange(config.tokens.sizes()[PITCH]) - 1
    return np.stack(
        [np.where(scale_pitch_classes(key)[pitches % 12], 0.0, config.sampling.out_of_key) for key in range(25)]
    )


def _begin(request: Request, tokens: TokenConfig, *, by_token: bool) -> _Piece:
    random = np.random.Generator(np.random.Philox(key=request.seed))
    rows, codes = request.rows, request.codes
    if rows is None or codes is None:
        first = np.zeros(8, dtype=np.int64)
        first[TYPE], first[EMOTION] = EMOTION_ROW, request.quadrant if by_token else 0
        rows, codes = first[None], np.zeros(0, np.int64)
    said = rows[rows[:, TEMPO] >= FIRST_TEMPO, TEMPO]
    tempo = int(said[-1]) if len(said) else 0
    bpm = float(tempo_values(tokens)[tempo - FIRST_TEMPO]) if tempo else TYPICAL_TEMPO
    steering = request.steer(request.bars, bpm)
    return _Piece(
        request, random, list(rows.astype(np.int64)), codes.tolist(), steering, tempo, latents=request.latents
    )
