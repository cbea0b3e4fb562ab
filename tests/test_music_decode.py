"""Decoding: reproducible, independent of neighbours, valid, of the asked length, and steered by what was asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from affgen.errors import AffgenError
from music import decode as decoding
from music.config import MINIATURE, MusicConfig, SamplingConfig, with_model
from music.decode import Request, bars_in, decode, draw
from music.grammar import first_invalid
from music.keys import UNKNOWN, parse_key, scale_pitch_classes
from music.model import MusER
from music.prior import Prior
from music.recurrent import FastModel, prepare
from music.steering import Steering
from music.tokens import (
    BAR,
    BEAT,
    CHORD,
    CONTI,
    EMOTION_ROW,
    FIRST_TEMPO,
    METRICAL,
    TEMPO,
    TYPE,
    grid_from_rows,
    tempo_values,
)
from music.train import build

TOKENS = MINIATURE.tokens
SHORT = with_model(MINIATURE, max_rows=32)  # pieces of more than a few bars outgrow it


def networks(config: MusicConfig, seed: int = 0) -> tuple[MusER, Prior]:
    """Untrained networks that heed what they are told about the emotion."""
    torch.manual_seed(seed)
    model, prior = build(config)
    for part in (model, prior):
        if part.conditions is not None:
            torch.nn.init.normal_(part.conditions.emotion, std=3.0)
    return model.eval(), prior.eval()


def steer(valence: float = 0.5, arousal: float = 0.5, guidance: float = 2.0, key: int = UNKNOWN) -> Steering:
    return lambda bars, bpm: np.tile([valence, arousal, guidance, key], (bars, 1))


def written(config: MusicConfig, *requests: Request) -> list[np.ndarray]:
    """Decoded rows, all of them valid for the bars they have."""
    pieces = decode(*networks(config), config, list(requests))
    for rows in pieces:
        assert first_invalid(rows, config.tokens, bars_of(rows)) is None
    return pieces


def bars_of(rows: np.ndarray) -> int:
    return int(((rows[:, TYPE] == METRICAL) & (rows[:, BEAT] == BAR)).sum())


def same(mine: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(a.shape == b.shape and (a == b).all() for a, b in zip(mine, other, strict=True))


# ------------------------------------------------------------------------------------------- seeds and neighbours


def test_one_seed_is_one_piece() -> None:
    """Whatever the state of the global generators, which are left alone."""
    request, pieces = Request(seed=3, steer=steer(), bars=4), []
    model, prior = networks(MINIATURE)
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        pieces += decode(model, prior, MINIATURE, [request])
        assert torch.equal(torch.get_rng_state(), before)
    assert same(pieces[:1], pieces[1:])
    assert not same(pieces[:1], written(MINIATURE, replace(request, seed=4)))


@pytest.mark.parametrize("fusion", ["concat", "ca"])
def test_a_piece_alone_is_the_piece_in_a_batch(fusion: str) -> None:
    conditioning = "token" if fusion == "ca" else "rows"
    config = replace(
        with_model(MINIATURE, fusion=fusion, max_rows=96, conditioning=conditioning),
        prior=prior_for(fusion, conditioning),
    )
    requests = [
        Request(seed=1, steer=steer(), bars=1),
        Request(seed=2, steer=steer(-0.5, 0.8), bars=3, quadrant=2),
        Request(seed=3, steer=steer(key=4), seconds=6.0),
        Request(seed=1, steer=steer(), bars=2, tempo=20),
    ]
    together = written(config, *requests)
    assert max(map(len, together)) <= 96  # no context is made anew
    for request, rows in zip(requests, together, strict=True):
        assert same(written(config, request), [rows])
    assert same(written(config, *requests[::-1])[::-1], together)


def test_a_long_piece_alone_is_the_piece_in_a_batch() -> None:
    requests = [Request(seed=seed, steer=steer(), bars=bars) for seed, bars in enumerate((12, 9, 7, 10))]
    together = written(SHORT, *requests)
    for request, rows in zip(requests, together, strict=True):
        assert same(written(SHORT, request), [rows])


# ------------------------------------------------------------------------------------------------ what was asked


def test_bars_are_met() -> None:
    pieces = written(MINIATURE, *(Request(seed=bars, steer=steer(), bars=bars) for bars in range(1, 10)))
    assert [bars_of(rows) for rows in pieces] == list(range(1, 10))
    assert [grid_from_rows(rows, TOKENS).bars for rows in pieces] == list(range(1, 10))


@pytest.mark.parametrize("seconds", [2.0, 7.5, 30.0])
def test_seconds_are_met_within_half_a_bar(seconds: float) -> None:
    for rows in written(MINIATURE, *(Request(seed=seed, steer=steer(), seconds=seconds) for seed in range(6))):
        said = rows[:, TEMPO][rows[:, TEMPO] > CONTI]
        assert len(said) == 1
        bar = 240 / tempo_values(TOKENS)[said[0] - FIRST_TEMPO]
        assert bars_of(rows) == 1 or abs(bars_of(rows) * bar - seconds) <= bar / 2 + 1e-9


def test_whole_bars_of_a_length() -> None:
    assert [bars_in(8.0, 120.0), bars_in(8.9, 120.0), bars_in(9.1, 120.0), bars_in(0.1, 60.0)] == [4, 4, 5, 1]


def test_a_forced_tempo_is_kept() -> None:
    for rows in written(MINIATURE, *(Request(seed=seed, steer=steer(), bars=5, tempo=17) for seed in range(4))):
        assert rows[:, TEMPO][rows[:, TEMPO] > CONTI].tolist() == [17]


def test_the_key_of_each_bar_is_mostly_kept() -> None:
    """The odds of a pitch outside the key fall by exp(3), whatever the guidance; here the key changes half-way."""
    config = replace(MINIATURE, sampling=replace(MINIATURE.sampling, out_of_key=3.0))
    keys = np.repeat([parse_key("Db"), parse_key("C")], 4)

    def inside(keys: np.ndarray, guidance: float) -> list[float]:
        table = np.column_stack([np.full((8, 3), [0.1, 0.1, guidance]), keys])
        pieces = written(config, *(Request(seed=s, steer=lambda bars, bpm: table, bars=8) for s in range(8)))
        notes = np.concatenate([grid_from_rows(rows, TOKENS).notes for rows in pieces])
        notes = notes[notes[:, 1] > TOKENS.pitch_low]  # A0 is all that can follow B flat 0, whatever the key
        halves = notes[:, 0] < 64, notes[:, 0] >= 64
        return [
            scale_pitch_classes(parse_key(k))[notes[h, 1] % 12].mean() for h, k in zip(halves, ("Db", "C"), strict=True)
        ]

    assert all(0.4 < share < 0.75 for share in inside(np.zeros(8), 0.0))  # 7 of 12
    assert min(inside(keys, 0.0)) > 0.93
    assert min(inside(keys, 1.5)) > 0.93


def test_guidance_zero_ignores_the_emotion() -> None:
    neutral = written(MINIATURE, *(Request(seed=seed, steer=steer(0.0, 0.0), bars=3) for seed in range(3)))
    unsteered = written(MINIATURE, *(Request(seed=seed, steer=steer(0.9, -0.9, 0.0), bars=3) for seed in range(3)))
    steered = written(MINIATURE, *(Request(seed=seed, steer=steer(0.9, -0.9, 1.0), bars=3) for seed in range(3)))
    stronger = written(MINIATURE, *(Request(seed=seed, steer=steer(0.9, -0.9, 3.0), bars=3) for seed in range(3)))
    assert same(neutral, unsteered)
    assert not same(neutral, steered) and not same(steered, stronger)


def test_a_curve_is_followed_bar_by_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks are told the emotion of the bar that each row is in, for the tempo and the bars that were drawn."""
    asked: list[tuple[int, float]] = []

    def curve(bars: int, bpm: float) -> np.ndarray:
        asked.append((bars, bpm))
        return np.stack(
            [np.linspace(-1, 1, bars), np.linspace(1, -1, bars), np.full(bars, 2.0), np.zeros(bars)], axis=1
        )

    told = []
    step = FastModel.step
    monkeypatch.setattr(
        FastModel,
        "step",
        lambda self, row, latent, va, *rest: told.append(va.copy()) or step(self, row, latent, va, *rest),
    )
    (rows,) = written(MINIATURE, Request(seed=5, steer=curve, seconds=12.0))
    said = rows[:, TEMPO][rows[:, TEMPO] > CONTI][0]
    assert asked == [(16, decoding.TYPICAL_TEMPO), (bars_of(rows), float(tempo_values(TOKENS)[said - FIRST_TEMPO]))]
    heard = np.cumsum((rows[:, TYPE] == METRICAL) & (rows[:, BEAT] == BAR))
    first = int(np.flatnonzero(rows[:, TEMPO] == said)[0])
    wanted = np.linspace(-1, 1, bars_of(rows))
    for index in range(first, len(rows) - 1):
        np.testing.assert_allclose(told[index], [[wanted[heard[index] - 1], -wanted[heard[index] - 1]], [0, 0]])


def test_a_tiny_nucleus_leaves_nothing_to_chance() -> None:
    greedy = SamplingConfig(guidance=1.0, prior_top_p=1e-9, top_p=(1e-9,) * 7)
    config = replace(MINIATURE, sampling=greedy)
    one, two = written(config, *(Request(seed=seed, steer=steer(), bars=2) for seed in (1, 2)))
    assert same([one], [two])


# ---------------------------------------------------------------------------------- beginnings and long pieces


def test_a_beginning_is_kept() -> None:
    (rows,) = written(MINIATURE, Request(seed=1, steer=steer(), bars=2))
    cut = int(np.flatnonzero((rows[:, TYPE] == METRICAL) & (rows[:, BEAT] == BAR))[1]) + 1
    codes = np.arange(cut - 1) % MINIATURE.model.codes
    begun = Request(seed=2, steer=steer(), bars=4, rows=rows[:cut], codes=codes)
    one, other, two = written(MINIATURE, begun, Request(seed=3, steer=steer(), bars=2), replace(begun, seed=4))
    for piece in (one, two):
        assert (piece[:cut] == rows[:cut]).all() and bars_of(piece) == 4
    assert not same([one], [two]) and bars_of(other) == 2
    begun_so = [replace(begun, seed=seed) for seed in range(4, 12)]
    begun_otherwise = [replace(request, codes=(codes + 5) % MINIATURE.model.codes) for request in begun_so]
    assert not same(written(MINIATURE, *begun_so), written(MINIATURE, *begun_otherwise))


@pytest.mark.parametrize("conditioning", ["rows", "token"])
@pytest.mark.parametrize("decoder", ["GE", "G", "E"])
def test_long_pieces_keep_the_grammar_and_the_length_of_training(
    decoder: str, conditioning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums never hold more rows than the model was trained with, however long the piece."""
    config = replace(
        with_model(SHORT, decoder=decoder, conditioning=conditioning), prior=prior_for("concat", conditioning)
    )
    longest = [0]
    step = FastModel.step

    def watched(
        self: FastModel, row: np.ndarray, latent: np.ndarray, va: np.ndarray, told: Any, state: Any
    ) -> np.ndarray:
        longest[0] = max(longest[0], int(state.row.max()) + 1)
        return step(self, row, latent, va, told, state)

    monkeypatch.setattr(FastModel, "step", watched)
    pieces = written(config, *(Request(seed=seed, steer=steer(), bars=20) for seed in range(2)))
    assert [bars_of(rows) for rows in pieces] == [20, 20]
    assert min(map(len, pieces)) > 2 * config.model.max_rows
    assert config.model.max_rows // 2 < longest[0] <= config.model.max_rows


def test_the_context_is_the_last_bars_with_tempo_and_chord() -> None:
    (rows,) = written(SHORT, Request(seed=7, steer=steer(), bars=20))
    for stop in range(20, len(rows)):
        context = decoding._context(list(rows[:stop]), 32)
        assert len(context) < 32
        if stop < 32:
            assert same([context], [rows[:stop]])
            continue
        assert context[0, TYPE] == EMOTION_ROW
        kept = rows[stop - len(context) + 1 : stop]
        beats = np.flatnonzero((context[:, TYPE] == METRICAL) & (context[:, BEAT] > BAR))
        different = (context[1:] != kept).any(axis=1)
        assert np.flatnonzero(different).tolist() in ([], [beats[0] - 1] if len(beats) else [])
        if not len(beats):
            continue
        place = stop - len(context) + int(beats[0])
        for column in (TEMPO, CHORD):  # as a piece of training would spell them
            assert context[beats[0], column] == rows[: place + 1, column][rows[: place + 1, column] > CONTI][-1]


def test_given_latents_take_the_place_of_the_prior() -> None:
    model, prior = networks(MINIATURE)
    latents = np.random.default_rng(0).normal(size=(9, MINIATURE.model.latent)).astype(np.float32)
    request = Request(seed=1, steer=steer(), bars=2, latents=latents)
    (one,) = decode(model, prior, MINIATURE, [request])
    (two,) = decode(model, networks(MINIATURE, seed=1)[1], MINIATURE, [request])
    assert same([one], [two]) and first_invalid(one, TOKENS, 2) is None
    (other,) = decode(model, prior, MINIATURE, [replace(request, latents=-latents)])
    assert not same([one], [other])


def test_given_latents_are_heard_again_in_long_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prior = networks(SHORT)
    given = np.full((1, SHORT.model.latent), 0.25, dtype=np.float32)
    heard = []
    whole = MusER.prime
    monkeypatch.setattr(
        MusER, "prime", lambda self, x, latent, told: heard.append(latent) or whole(self, x, latent, told)
    )
    decode(model, prior, SHORT, [Request(seed=1, steer=steer(), bars=12, latents=given)])
    assert heard and all((latent == 0.25).all() for latent in heard)


# ----------------------------------------------------------------------------------------------------- ablations


def prior_for(fusion: str, conditioning: str) -> Any:
    return replace(MINIATURE.prior, context="codes" if fusion == "ca" else "rows", conditioning=conditioning)


@pytest.mark.parametrize("conditioning", ["rows", "token"])
@pytest.mark.parametrize("decoder", ["GE", "G", "E"])
@pytest.mark.parametrize("fusion", ["concat", "ca"])
def test_every_ablation_decodes(fusion: str, decoder: str, conditioning: str) -> None:
    config = with_model(MINIATURE, fusion=fusion, decoder=decoder, conditioning=conditioning)
    config = replace(config, prior=prior_for(fusion, conditioning))
    pieces = written(config, *(Request(seed=seed, steer=steer(), bars=2, quadrant=1 + seed) for seed in range(3)))
    assert [bars_of(rows) for rows in pieces] == [2, 2, 2]


def test_other_ablations_decode() -> None:
    configs = [
        with_model(MINIATURE, **{k: v}) for k, v in (("reduction", "trans"), ("positions", False), ("element_dim", 16))
    ]
    for config in (*configs, replace(MINIATURE, prior=replace(MINIATURE.prior, context="codes"))):
        written(config, Request(seed=1, steer=steer(), bars=2), Request(seed=2, steer=steer(), bars=3))


def test_the_emotion_token_steers_models_conditioned_by_it() -> None:
    for fusion in ("concat", "ca"):
        config = replace(with_model(MINIATURE, conditioning="token", fusion=fusion), prior=prior_for(fusion, "token"))
        pieces = written(config, *(Request(seed=1, steer=steer(), bars=3, quadrant=quadrant) for quadrant in (1, 2, 3)))
        assert [rows[0, 7] for rows in pieces] == [1, 2, 3]
        assert not same(pieces[:1], [np.concatenate([pieces[0][:1], pieces[1][1:]])])


def test_cross_attention_with_a_prior_that_hears_rows_is_refused() -> None:
    with pytest.raises(AffgenError, match=r'set prior\.context to "codes"') as caught:
        written(with_model(MINIATURE, fusion="ca", conditioning="token"), Request(seed=1, steer=steer(), bars=2))
    assert "\n" not in str(caught.value)


def test_cross_attention_lasts_through_long_pieces() -> None:
    """With a global decoder alone, the latents are heard through the memory only: of each row that is written."""
    config = replace(with_model(SHORT, fusion="ca", decoder="G", conditioning="token"), prior=prior_for("ca", "token"))
    model, prior = networks(config)
    request = Request(seed=1, steer=steer(), bars=20)
    decoder = decoding._Decoder(model, prior, config, [request], prepare(model, prior))
    with torch.inference_mode():
        decoder.run()
    assert len(decoder.pieces[0].rows) > 2 * config.model.max_rows
    assert len(decoder.state.memory) == config.model.layers


# ---------------------------------------------------------------------------------------------------------- draw


def nucleus(scores: np.ndarray, temperature: float, top_p: float, allowed: np.ndarray) -> np.ndarray:
    """Probabilities (K,) by the definition of Holtzman et al.: the smallest set that holds top_p, renormalised."""
    weights = np.where(allowed, np.exp(scores / temperature), 0.0)
    weights /= weights.sum()
    kept, held = np.zeros(len(scores)), 0.0
    for index in sorted(range(len(scores)), key=lambda k: -weights[k]):
        if held >= top_p:
            break
        kept[index], held = weights[index], held + weights[index]
    return kept / kept.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.8), (2.0, 0.9), (1.0, 0.3)])
def test_draws_follow_the_nucleus(temperature: float, top_p: float) -> None:
    """Chi-square over 20,000 draws; 99.9th percentile for up to 9 degrees of freedom is 27.9."""
    rng, count = np.random.default_rng(0), 20_000
    scores = rng.normal(size=10) * 1.5
    allowed = np.arange(10) != int(scores.argmax())  # the likeliest is forbidden
    wanted = nucleus(scores, temperature, top_p, allowed)
    drawn = draw(np.tile(scores, (count, 1)), rng.random(count), temperature, top_p, np.tile(allowed, (count, 1)))
    counts = np.bincount(drawn, minlength=10)
    assert (counts[wanted == 0] == 0).all()
    some = wanted > 0
    assert ((counts[some] - count * wanted[some]) ** 2 / (count * wanted[some])).sum() < 27.9


def test_draws_are_the_inverse_of_the_distribution() -> None:
    """Every number in [0, 1) falls into the share of its id, in the order of ids; the ends of the interval too."""
    shares, end = np.array([[0.2, 0.5, 0.3]]), np.nextafter(1.0, 0.0)
    for top_p, draws in (
        (1.0, ((0.0, 0), (0.199, 0), (0.201, 1), (0.699, 1), (0.701, 2), (end, 2))),
        (0.6, ((0.0, 1), (0.624, 1), (0.626, 2), (end, 2))),  # the nucleus is 1 and 2: five parts and three
        (0.4, ((0.0, 1), (end, 1))),
    ):
        for uniform, wanted in draws:
            assert draw(np.log(shares), np.array([uniform]), 1.0, top_p)[0] == wanted, (top_p, uniform)


def test_a_little_noise_in_the_scores_changes_no_draw_but_those_at_the_edge() -> None:
    """Ids that trade their ranks leave the draw alone: what makes pieces the same in batches of any size."""
    rng = np.random.default_rng(2)
    scores, uniform = rng.normal(size=(1, 40)).repeat(2000, axis=0), rng.random(2000)
    scores[:, 1::2] = scores[:, ::2]  # every rank is shared by two
    near = scores + rng.normal(scale=1e-6, size=scores.shape)
    changed = draw(scores, uniform, 1.0, 1.0) != draw(near, uniform, 1.0, 1.0)
    assert changed.mean() < 0.002


def test_nothing_outside_the_allowed_is_drawn() -> None:
    rng = np.random.default_rng(1)
    for scale in (0.1, 10.0, 1000.0):
        scores, allowed = rng.normal(size=(400, 30)) * scale, rng.random((400, 30)) < 0.1
        allowed[np.arange(400), rng.integers(0, 30, 400)] = True
        uniform = rng.choice([0.0, 0.3, 0.9999999, np.nextafter(1.0, 0.0)], size=400)
        for top_p in (1e-9, 0.5, 1.0):
            drawn = draw(scores.astype(np.float32), uniform, 0.7, top_p, allowed)
            assert allowed[np.arange(400), drawn].all()
            if top_p == 1e-9:
                np.testing.assert_array_equal(
                    drawn, np.where(allowed, scores.astype(np.float32), -np.inf).argmax(axis=1)
                )
