"""Noise that the same data always get."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from halo_cmm import NoiseError, ParameterError
from halo_cmm.noise import StickyNoise

KEY, DATA = bytes([1] * 32), bytes([2] * 32)


def test_draws_follow_the_stated_law() -> None:
    sticky = StickyNoise(1.0, 1e-3)
    assert sticky.bound == 34
    fingerprints = (hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(20_000))
    draws = np.array([sticky.draw(KEY, fingerprint, "reach") for fingerprint in fingerprints])
    assert abs(draws).max() <= sticky.bound
    values = np.arange(-sticky.bound, sticky.bound + 1)
    weights = np.exp(-abs(values)) / np.exp(-abs(values)).sum()
    # What is beyond 7 counts as 7.
    law = np.array([weights[values.clip(-7, 7) == value].sum() for value in range(-7, 8)])
    counts = np.array([(draws.clip(-7, 7) == value).sum() for value in range(-7, 8)])
    # χ² with 14 degrees of freedom, α = 10⁻⁴; 20,000 draws.
    assert ((counts - 20_000 * law) ** 2 / (20_000 * law)).sum() < 43.0
    assert draws.std() == pytest.approx(sticky.standard_deviation, rel=0.03)


def test_only_the_same_question_gets_the_same_noise() -> None:
    wide = StickyNoise(1e-3, 1e-9)
    asked = [
        (wide, KEY, DATA, "reach"),
        (wide, DATA, DATA, "reach"),
        (wide, KEY, KEY, "reach"),
        (wide, KEY, DATA, "impressions"),
        (wide, KEY, DATA, 1),
        (wide, KEY, DATA, 2),
        (StickyNoise(2e-3, 1e-9), KEY, DATA, "reach"),
    ]
    draws = [noise.draw(*question) for noise, *question in asked]
    assert draws == [noise.draw(*question) for noise, *question in asked]
    assert len(set(draws)) == len(draws)


def test_slightly_other_parameters_give_no_other_noise() -> None:
    asked = [StickyNoise(1e-3 * (1 + step / 1000), 1e-9 * (1 + step)) for step in range(100)]
    assert len({noise.draw(KEY, DATA, "reach") for noise in asked}) == 1


def test_a_histogram_needs_more() -> None:
    one, two = StickyNoise(1.0, 1e-6), StickyNoise(1.0, 1e-6, sensitivity="histogram")
    assert two.standard_deviation > 1.9 * one.standard_deviation
    assert two.bound > one.bound


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: StickyNoise(1.0, 1e-16), ParameterError, "delta"),
        (lambda: StickyNoise(50.0, 1e-9), ParameterError, "epsilon"),
        (lambda: StickyNoise(float("nan"), 1e-9), ParameterError, "epsilon"),
        (lambda: StickyNoise(1e-8, 1e-9), NoiseError, "noise"),
        (lambda: StickyNoise(1.0, 1e-9, sensitivity=0), ParameterError, "sensitivity"),
        (lambda: StickyNoise(1.0, 1e-9).draw(b"short", DATA, "reach"), ParameterError, "key has 5 bytes"),
        (lambda: StickyNoise(1.0, 1e-9).draw(KEY, DATA[1:], "reach"), ParameterError, "fingerprint has 31 bytes"),
        (lambda: StickyNoise(1.0, 1e-9).draw(KEY, DATA, "duration"), ParameterError, "statistic is duration"),
        (lambda: StickyNoise(1.0, 1e-9).draw(KEY, DATA, 0), ParameterError, "statistic is 0"),
    ],
)
def test_what_cannot_be_made_is_refused(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()
