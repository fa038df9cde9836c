"""Hashes, samplers and privacy accounting of the `halo-sketch` crate against libraries from PyPI.

The example `oracle` answers for the crate, one line for each question. Its draws have fixed seeds; what OpenDP draws
comes from the operating system, so statistics that involve it use α = 10⁻⁹, all others α = 10⁻⁵.
"""

import math
import os
import pathlib
import random
import subprocess

import dp_accounting
import farmhash
import opendp.prelude as dp
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy import stats

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("HALO_TARGET_DIR", HERE.parents[2] / "target" / "debug"))
ALPHA, ALPHA_RANDOM = 1e-5, 1e-9
DRAWS = 100_000

dp.enable_features("contrib")


def ask(questions: list[str]) -> list[list[str]]:
    """The words of each answer."""
    run = subprocess.run(
        [TARGET / "examples" / "oracle"], input="\n".join(questions), check=True, capture_output=True, text=True
    )
    answers = [line.split() for line in run.stdout.splitlines()]
    assert len(answers) == len(questions)
    return answers


def numbers(questions: list[str]) -> list[list[float]]:
    return [[float(word) for word in answer] for answer in ask(questions)]


def draws(question: str) -> dict[int, int]:
    (answer,) = ask([question])
    return {int(value): int(count) for value, count in (entry.split(":") for entry in answer)}


# Hashes


def test_farmhash_of_every_length_to_700() -> None:
    generator = random.Random(1)
    messages = [generator.randbytes(length) for length in range(701)]
    messages += [generator.randbytes(generator.randrange(2_000)) for _ in range(300)]
    answers = ask([f"farmhash {message.hex()}" for message in messages])
    assert [int(answer, 16) for (answer,) in answers] == [farmhash.fingerprint64(message) for message in messages]


# Samplers


def chi_squared(counts: dict[int, int], pmf: dict[int, float]) -> float:
    """p-value of Pearson's test; cells with less than 20 expected draws go into one."""
    total = sum(counts.values())
    cells = {value: p for value, p in pmf.items() if total * p >= 20}
    observed = [counts.get(value, 0) for value in cells]
    expected = [total * p for p in cells.values()]
    observed.append(total - sum(observed))
    expected.append(total - sum(expected))
    if expected[-1] < 5:
        observed[-2:], expected[-2:] = [sum(observed[-2:])], [sum(expected[-2:])]
    return stats.chisquare(observed, expected, sum_check=False).pvalue


def two_samples(one: dict[int, int], other: dict[int, int]) -> float:
    """p-value of the test that both come from one distribution."""
    values = sorted(value for value in one.keys() | other.keys() if one.get(value, 0) + other.get(value, 0) >= 40)
    rows = [[sample.get(value, 0) for value in values] for sample in (one, other)]
    for row, sample in zip(rows, (one, other)):
        row.append(sum(sample.values()) - sum(row))
    columns = [column for column in zip(*rows) if sum(column) > 0]
    return stats.chi2_contingency(list(zip(*columns))).pvalue


def normalized(weight, reach: int) -> dict[int, float]:
    weights = {value: weight(value) for value in range(-reach, reach + 1)}
    total = math.fsum(weights.values())
    return {value: w / total for value, w in weights.items()}


def from_opendp(make, metric, scale: float) -> dict[int, int]:
    measurement = make(dp.vector_domain(dp.atom_domain(T=int)), metric, scale=scale)
    counts: dict[int, int] = {}
    for value in measurement([0] * DRAWS):
        counts[value] = counts.get(value, 0) + 1
    return counts


@pytest.mark.parametrize("seed, sigma", [(1, 0.5), (2, 1.0), (3, 2.5), (4, 10.0), (5, 48.25)])
def test_discrete_gaussian(seed: int, sigma: float) -> None:
    ours = draws(f"gaussian {sigma * sigma!r} {DRAWS} {seed}")
    exact = normalized(lambda x: math.exp(-x * x / (2 * sigma * sigma)), math.ceil(12 * sigma))
    assert chi_squared(ours, exact) > ALPHA
    assert two_samples(ours, from_opendp(dp.m.make_gaussian, dp.l2_distance(T=int), sigma)) > ALPHA_RANDOM


@pytest.mark.parametrize("seed, scale", [(11, 0.5), (12, 1.0), (13, 2.5), (14, 10.0), (15, 30.0)])
def test_discrete_laplace(seed: int, scale: float) -> None:
    ours = draws(f"laplace {1 / scale!r} {DRAWS} {seed}")
    exact = normalized(lambda x: math.exp(-abs(x) / scale), math.ceil(40 * scale))
    assert chi_squared(ours, exact) > ALPHA
    assert two_samples(ours, from_opendp(dp.m.make_laplace, dp.l1_distance(T=int), scale)) > ALPHA_RANDOM


@pytest.mark.parametrize("seed, rate, shares", [(21, 1.0, 1), (22, 0.7, 2), (23, 0.1098612, 3), (24, 0.02, 5)])
def test_polya(seed: int, rate: float, shares: int) -> None:
    ours = draws(f"polya {rate!r} {shares} {DRAWS} {seed}")
    law = stats.nbinom(1 / shares, -math.expm1(-rate))
    assert chi_squared(ours, {x: law.pmf(x) for x in range(math.ceil(40 / rate))}) > ALPHA


def test_a_wrong_sampler_would_be_noticed() -> None:
    ours = draws(f"gaussian 25 {DRAWS} 31")
    exact = normalized(lambda x: math.exp(-x * x / (2 * 5.1 * 5.1)), 60)
    assert chi_squared(ours, exact) < ALPHA
    assert two_samples(ours, from_opendp(dp.m.make_gaussian, dp.l2_distance(T=int), 5.2)) < ALPHA_RANDOM


# Accounting


def grid(seed: int, count: int) -> list[tuple[float, float]]:
    """Promises: ε from 0.01 to 10, δ from 10⁻¹² to 10⁻²."""
    generator = random.Random(seed)
    return [(10 ** generator.uniform(-2, 1), 10 ** generator.uniform(-12, -2)) for _ in range(count)]


def test_gaussian_noise_is_calibrated_as_by_dp_accounting() -> None:
    promises = grid(1, 40)
    for (epsilon, delta), (sigma,) in zip(promises, numbers([f"sigma {e!r} {d!r}" for e, d in promises])):
        assert sigma == pytest.approx(dp_accounting.get_sigma_gaussian(epsilon, delta), rel=1e-6)
        assert dp_accounting.get_epsilon_gaussian(sigma, delta) == pytest.approx(epsilon, rel=1e-6)


def test_gaussian_privacy_converts_as_in_dp_accounting() -> None:
    promises = grid(2, 40)
    mus = [1 / dp_accounting.get_sigma_gaussian(*promise) for promise in promises]
    answers = numbers([f"gdp {mu!r} {e!r} {d!r}" for mu, (e, d) in zip(mus, promises)])
    for (epsilon, delta), answer in zip(promises, answers):
        assert answer == pytest.approx([delta, epsilon], rel=1e-6)


def test_concentrated_privacy_converts_as_in_opendp() -> None:
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=int)
    sigmas = [1.25, 2.0, 5.0, 25.0, 100.0]
    promises = [(0.05, 1e-9), (0.5, 1e-6), (2.0, 1e-3)]
    questions = [f"zcdp {0.5 / sigma**2!r} {e!r} {d!r}" for sigma in sigmas for e, d in promises]
    answers = iter(numbers(questions))
    for sigma in sigmas:
        curve = dp.c.make_zCDP_to_approxDP(dp.m.make_gaussian(*space, scale=sigma)).map(1)
        for epsilon, delta in promises:
            ours_delta, ours_epsilon = next(answers)
            assert ours_epsilon == pytest.approx(curve.epsilon(delta), rel=1e-6)
            assert ours_delta == pytest.approx(curve.delta(epsilon), rel=1e-6, abs=1e-300)


LAWS = {
    "gaussian": lambda parameter, change: pld.from_discrete_gaussian_mechanism(
        parameter, sensitivity=change, value_discretization_interval=1e-4, use_connect_dots=True
    ),
    "laplace": lambda parameter, change: pld.from_discrete_laplace_mechanism(
        parameter, sensitivity=change, value_discretization_interval=1e-4, use_connect_dots=True
    ),
}


@pytest.mark.parametrize(
    "epsilon, delta, mechanisms",
    [
        (1.0, 1e-6, [("gaussian", 5.0, 1, 1)]),
        (3.0, 1e-6, [("gaussian", 5.0, 1, 20)]),
        (2.0, 1e-5, [("gaussian", 1.5, 3, 1)]),
        (3.0, 1e-6, [("laplace", 0.1, 1, 100)]),
        (1.5, 1e-4, [("laplace", 0.3, 2, 4)]),
        (3.0, 1e-6, [("gaussian", 5.0, 1, 10), ("laplace", 0.1, 1, 30)]),
        (2.0, 1e-7, [("gaussian", 12.0, 1, 7), ("gaussian", 40.0, 2, 50), ("laplace", 0.05, 1, 9)]),
    ],
)
def test_compositions_agree_with_dp_accounting(
    epsilon: float, delta: float, mechanisms: list[tuple[str, float, int, int]]
) -> None:
    parts = " ".join(f"{kind} {parameter!r} {change} {count}" for kind, parameter, change, count in mechanisms)
    ((ours_delta, ours_epsilon),) = numbers([f"pld {epsilon!r} {delta!r} {parts}"])
    total = None
    for kind, parameter, change, count in mechanisms:
        several = LAWS[kind](parameter, change).self_compose(count)
        total = several if total is None else total.compose(several)
    assert ours_delta == pytest.approx(total.get_delta_for_epsilon(epsilon), rel=1e-4)
    assert ours_epsilon == pytest.approx(total.get_epsilon_for_delta(delta), rel=1e-4)


def test_exact_noise_keeps_its_promise_and_wastes_little_by_dp_accounting() -> None:
    """Half of δ is for the noise before its cut. The calibration starts at the continuous solution, where noise below a
    deviation of about 3 may lose less already."""
    promises = [(0.1, 1e-9), (0.5, 1e-6), (1.0, 1e-5), (1.0, 1e-12), (2.0, 1e-4), (5.0, 1e-5)]
    answers = numbers([f"calibrate gaussian {e!r} {d!r} 1 1 1" for e, d in promises])
    for (epsilon, delta), (_, sigma) in zip(promises, answers):
        # Above a standard deviation of 2 it equals the parameter; below, the variance tells the parameter by bisection.
        lost = pld.from_discrete_gaussian_mechanism(
            parameter_of(sigma), value_discretization_interval=1e-5, use_connect_dots=True
        ).get_delta_for_epsilon(epsilon)
        assert (0.9 if sigma > 3 else 0.5) * delta / 2 < lost <= delta / 2 * (1 + 1e-6)


def parameter_of(sigma: float) -> float:
    """The parameter of the discrete Gaussian with this standard deviation."""

    def deviation(parameter: float) -> float:
        law = normalized(lambda x: math.exp(-x * x / (2 * parameter * parameter)), 60)
        return math.sqrt(math.fsum(p * x * x for x, p in law.items()))

    if sigma > 2:
        return sigma
    low, high = 0.1, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if deviation(middle) < sigma else (low, middle)
    return high


def test_geometric_noise_of_all_has_its_deviation() -> None:
    """Two-sided geometric noise of rate ε from three contributors, of which one, two or all are honest."""
    epsilon = 0.25
    answers = numbers([f"calibrate geometric {epsilon!r} 1e-9 1 3 {honest}" for honest in (1, 2, 3)])
    variance = 2 * math.exp(-epsilon) / math.expm1(-epsilon) ** 2
    for honest, (_, sigma) in zip((1, 2, 3), answers):
        assert sigma == pytest.approx(math.sqrt(variance * 3 / honest), rel=1e-9)
