"""Noise, accounting and estimators against published values, exact distributions and each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from halo_cmm import HaloError, NoiseError, ParameterError, SaturatedError, accounting, estimators, noise
from halo_cmm.accounting import Acdp, Gdp, PrivacyLoss, Zcdp
from halo_cmm.estimators import Methodology, ReachMeasurement


@pytest.mark.parametrize(
    ("sketch", "people", "active", "deviation", "usable"),
    [
        ((12.0, 100_000), 1e4, 7649.5214924299, 36.0830, 5823.338631),
        ((12.0, 100_000), 1e6, 44699.803148221, 75.5033, 8327.191348),
        ((12.0, 100_000), 1e9, 97096.223793375, 45.1456, 3986.658948),
        ((5.6, 1_000_000), 1e7, 787275.60136293, 299.6117, 145058.878),
        ((12.0, 1_000), 1e5, 638.3282594331, 7.5553, 82.7212),
    ],
)
def test_registers_of_so_many_people(sketch, people, active, deviation, usable) -> None:
    assert estimators.expected_active(people, sketch=sketch) == pytest.approx(active, rel=1e-9)
    assert math.sqrt(estimators.active_variance(people, sketch=sketch)) == pytest.approx(deviation, rel=1e-5)
    assert estimators.expected_usable(people, sketch=sketch) == pytest.approx(usable, rel=1e-6)
    assert estimators.reach(active, sketch=sketch).value == pytest.approx(people, rel=1e-6)


@pytest.mark.parametrize(
    ("epsilon", "delta", "sigma"),
    [(0.1, 1e-9, 50.209818263015), (1.0, 1e-5, 3.7306316348159), (5.0, 1e-5, 0.89186826495152)],
)
def test_conversions_of_gaussian_noise(epsilon, delta, sigma) -> None:
    assert accounting.gaussian_sigma(epsilon, delta) == pytest.approx(sigma, rel=1e-9)
    assert accounting.gaussian_sigma(epsilon, delta, sensitivity="histogram") == pytest.approx(sigma * math.sqrt(2))
    cost = Gdp.of_gaussian(sigma**2)
    assert cost.delta(epsilon) == pytest.approx(delta, rel=1e-6)
    assert cost.epsilon(delta) == pytest.approx(epsilon, rel=1e-6)
    assert cost.to_zcdp().rho == pytest.approx(Zcdp.of_gaussian(sigma**2).rho)
    assert Zcdp.of_gaussian(sigma**2).as_gaussian().mu == pytest.approx(cost.mu)
    # The general conversion is never below the exact one, and the loose one never below the general one.
    assert cost.to_zcdp().epsilon(delta) >= epsilon
    assert cost.to_zcdp().loose_epsilon(delta) >= cost.to_zcdp().epsilon(delta)
    assert PrivacyLoss.gaussian(cost, interval=1e-3).delta(epsilon) == pytest.approx(delta, rel=0.05)


def test_costs_add_up() -> None:
    zcdp, gdp, acdp = Zcdp(0.25), Gdp(0.5), Acdp(0.25, 1e-9)
    assert zcdp + zcdp == 2 * zcdp == zcdp * 2 == Zcdp(0.5)
    assert (gdp + gdp).mu == pytest.approx((2 * gdp).mu) == pytest.approx(math.sqrt(0.5))
    assert acdp + acdp == 2 * acdp
    assert acdp.delta(1.0) == pytest.approx(zcdp.delta(1.0) + (math.e + 1) * 1e-9)
    one = PrivacyLoss.discrete_laplace(0.5)
    assert one.epsilon(0.0) == pytest.approx(0.5, abs=1e-3)
    assert (one + one).delta(0.7) == pytest.approx((one * 2).delta(0.7))
    coin = PrivacyLoss.of_outcomes([0.75, 0.25], [0.25, 0.75])
    assert coin.epsilon(0.0) == pytest.approx(math.log(3), abs=1e-3)


def chi_squared(draws, weight, reach: int) -> tuple[float, int]:
    """χ² of draws against a law on the integers, with its degrees of freedom; the tails beyond reach are one cell each."""
    values = np.arange(-10 * reach, 10 * reach + 1)
    weights = weight(np.abs(values).astype(float))
    law = weights / weights.sum()
    inner = np.abs(values) < reach
    cells = [(law[values <= -reach].sum(), (draws <= -reach).sum()), (law[values >= reach].sum(), (draws >= reach).sum())]
    cells += [(p, (draws == value).sum()) for p, value in zip(law[inner], values[inner], strict=True)]
    n = len(draws)
    return sum((seen - n * p) ** 2 / (n * p) for p, seen in cells), len(cells) - 1


@pytest.mark.parametrize(
    ("draw", "weight", "reach"),
    [
        (lambda n: noise.discrete_gaussian(4.0, n, seed=1), lambda x: np.exp(-(x**2) / 8), 6),
        (lambda n: noise.discrete_gaussian(0.25, n, seed=2), lambda x: np.exp(-(x**2) * 2), 2),
        (lambda n: noise.geometric(1.0, n, seed=3), lambda x: np.exp(-x), 7),
        (
            lambda n: sum(noise.geometric(1.0, n, contributors=3, seed=10 + party) for party in range(3)),
            lambda x: np.exp(-x),
            7,
        ),
        (
            lambda n: noise.calibrate(1.0, 1e-6, mechanism="geometric").sample(n, seed=4),
            lambda x: np.exp(-x),
            7,
        ),
    ],
)
def test_draws_have_their_law(draw, weight, reach) -> None:
    # n = 100,000, α = 0.0001 by the normal approximation of χ² (Wilson and Hilferty).
    found, freedom = chi_squared(draw(100_000), weight, reach)
    spread = 2 / (9 * freedom)
    assert found < freedom * (1 - spread + 3.72 * math.sqrt(spread)) ** 3


def test_seeds_repeat_and_bounds_hold() -> None:
    same = [noise.discrete_gaussian(100.0, 1000, seed=5) for _ in range(2)]
    assert (same[0] == same[1]).all() and same[0].dtype == np.int64
    assert (noise.discrete_gaussian(100.0, 1000, seed=bytes(32)) != same[0]).any()
    assert (noise.discrete_gaussian(100.0, 1000) != noise.discrete_gaussian(100.0, 1000)).any()
    assert abs(noise.discrete_gaussian(100.0, 1000, bound=3, seed=1)).max() <= 3
    assert not noise.discrete_gaussian(1e-9, 100_000, seed=1).any()
    reach = noise.calibrate(1.0, 1e-9, contributors=3, honest_contributors=1)
    assert abs(reach.sample(1000, seed=1)).max() <= reach.shift
    # One honest contributor is enough: three of them have three times the variance.
    alone = noise.calibrate(1.0, 1e-9)
    assert reach.standard_deviation == pytest.approx(alone.standard_deviation * math.sqrt(3))
    assert alone.standard_deviation >= accounting.gaussian_sigma(1.0, 1e-9)


def test_variances_agree_with_the_spread_of_simulations() -> None:
    sketch, people = (12.0, 1_000), 3_000
    rng = np.random.default_rng(8)
    from halo_cmm import LiquidLegions

    found = [
        LiquidLegions.from_vids(rng.integers(0, 2**40, people), sketch=sketch).reach().value for _ in range(300)
    ]
    variance = estimators.reach_variance(ReachMeasurement(Methodology.liquid_legions_v2(sketch), people))
    # Five standard errors of a standard deviation over 300 draws.
    assert np.std(found) == pytest.approx(math.sqrt(variance), rel=5 / math.sqrt(600))
    assert np.mean(found) == pytest.approx(people, abs=5 * math.sqrt(variance / 300))


def test_variances_by_methodology() -> None:
    def measured(methodology, reach=1000.0, **settings):
        return ReachMeasurement(methodology, reach, **settings)

    deterministic = measured(Methodology.deterministic(), sampling_width=0.5, noise_variance=25)
    assert estimators.reach_variance(deterministic) == 1100.0
    whole = measured(Methodology.frequency_vector(5_000), noise_variance=25)
    assert estimators.reach_variance(whole) == 25.0
    found = estimators.frequency_variances(whole, [0.5, 0.3, 0.2], noise_variance=9)
    assert set(found) == {"relative", "relative_k_plus", "count", "count_k_plus"}
    assert all(variance >= 0 for variances in found.values() for variance in variances.values())
    assert found["relative_k_plus"][1] == 0.0
    one = measured(Methodology.deterministic(), sampling_width=0.5)
    assert estimators.reach_covariance(one, one, union_reach=1000) == estimators.reach_variance(one)
    assert estimators.combination_variance([1, -1], [4.0, 9.0], [[0, 3.0], [0, 0]]) == 7.0
    assert Methodology.sketch((12.0, 10)) == Methodology.sketch((12.0, 10)) != Methodology.deterministic()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: noise.calibrate(0.0, 1e-6), ParameterError, "epsilon"),
        (lambda: noise.calibrate(1.0, 0.0), ParameterError, "delta"),
        (lambda: noise.calibrate(1e-9, 1e-9), (NoiseError, ParameterError), "epsilon"),
        (lambda: noise.calibrate(1.0, 1e-6, sensitivity=0), ParameterError, "sensitivity is 0"),
        (lambda: noise.calibrate(1.0, 1e-6, sensitivity="sum"), ParameterError, "'histogram' for a person"),
        (lambda: noise.calibrate(1.0, 1e-6, honest_contributors=2), ParameterError, "contributors"),
        (lambda: noise.calibrate(1.0, 1e-6, mechanism="laplace"), ParameterError, "'discrete_gaussian' or 'geometric'"),
        (lambda: noise.calibrate(1.0, 1e-6, calibration="best"), ParameterError, "'exact' or 'reference'"),
        (lambda: noise.discrete_gaussian(0.0), ParameterError, "variance is 0"),
        (lambda: noise.discrete_gaussian(math.nan), ParameterError, "variance is NaN"),
        (lambda: noise.discrete_gaussian(1e15, bound=0), ParameterError, "from 1e-9 to 1e12"),
        (lambda: noise.geometric(1e-9, contributors=1000), ParameterError, "from 1e-6 to 1e15"),
        (lambda: noise.geometric(1.0, contributors=0), ParameterError, "contributors is 0"),
        (lambda: noise.geometric(-1.0), ParameterError, "rate is -1"),
        (lambda: Gdp(-1.0), ParameterError, "mu"),
        (lambda: Gdp(1.0).delta(0.0), ParameterError, "epsilon"),
        (lambda: Gdp(1.0).epsilon(2.0), ParameterError, "delta"),
        (lambda: Zcdp(math.inf), ParameterError, "rho"),
        (lambda: Acdp(0.1, -1.0), ParameterError, "theta"),
        (lambda: PrivacyLoss.discrete_gaussian(100.0, interval=2.0), ParameterError, "interval"),
        (lambda: PrivacyLoss.of_outcomes([1.0], [0.5, 0.5]), ParameterError, "probabilities"),
        (lambda: estimators.reach(100, sketch=(12.0, 100)), SaturatedError, "saturated"),
        (lambda: estimators.reach(1, sampling_width=0), ParameterError, "sampling width"),
        (lambda: estimators.expected_active(-1), ParameterError, "people is -1"),
        (lambda: estimators.frequency([], reach=1), ParameterError, "at least one count"),
        (lambda: estimators.frequency([math.nan], reach=1), ParameterError, "finite"),
        (lambda: estimators.impression_variance(-1), ParameterError, "measured value"),
        (lambda: estimators.combination_variance([1], [1, 2]), ParameterError, "weights"),
        (lambda: estimators.combination_variance([1, 2], [1, 2], [[0]]), ParameterError, "a matrix of 2 by 2"),
        (
            lambda: estimators.reach_variance(ReachMeasurement(Methodology.deterministic(), math.nan)),
            ParameterError,
            "reach",
        ),
    ],
)
def test_bad_input_is_refused_and_told_what_to_do(make, error, message) -> None:
    with pytest.raises(error, match=message) as raised:
        make()
    assert isinstance(raised.value, HaloError)
