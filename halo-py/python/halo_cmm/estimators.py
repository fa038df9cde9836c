"""From counts to people: estimates, their variances and covariances by methodology.

Examples
--------
>>> from halo_cmm import estimators
>>> found = estimators.reach(40_254, sketch=(12.0, 100_000))
>>> low, high = found.interval()
>>> low < 585_389 < high
True
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

from halo_cmm._halo import (
    Methodology,
    ReachMeasurement,
    active_variance,
    combination_variance,
    duration_variance,
    expected_active,
    expected_usable,
    frequency,
    frequency_variances,
    impression_variance,
    population_variance,
    reach,
    reach_covariance,
    reach_variance,
)
from halo_cmm.errors import ParameterError

__all__ = [
    "Estimate",
    "FrequencyEstimate",
    "Methodology",
    "ReachMeasurement",
    "active_variance",
    "combination_variance",
    "duration_variance",
    "expected_active",
    "expected_usable",
    "frequency",
    "frequency_variances",
    "impression_variance",
    "population_variance",
    "reach",
    "reach_covariance",
    "reach_variance",
]


def interval(value: float, standard_error: float, confidence: float) -> tuple[float, float]:
    """Lower and upper end of a two-sided interval for a number that is not negative."""
    if not 0.0 < confidence < 1.0:
        raise ParameterError(f"confidence is {confidence}; it must be above 0 and below 1")
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * standard_error
    return max(0.0, value - half), value + half


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error, both in the same unit.

    Attributes
    ----------
    value : float
        The estimate; not rounded.
    standard_error : float
        Its standard error.

    Examples
    --------
    >>> from halo_cmm import Estimate
    >>> low, high = Estimate(100.0, 5.0).interval()
    >>> round(low, 6), round(high, 6)
    (90.20018, 109.79982)
    """

    value: float
    standard_error: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Lower and upper end of the interval with this confidence; not below 0."""
        return interval(self.value, self.standard_error, confidence)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"Estimate(value={self.value:.1f}, standard_error={self.standard_error:.1f})"


@dataclass(frozen=True, slots=True)
class FrequencyEstimate:
    """Shares of people by frequency, with their standard errors.

    Attributes
    ----------
    shares : dict of int to float
        The share of people reached 1, 2, … times, the last "or more". Empty where there is no data.
    standard_errors : dict of int to float
        The standard error of each.

    Examples
    --------
    >>> from halo_cmm import estimators
    >>> estimators.frequency([75, 25], reach=1000).standard_errors
    {1: 0.0410..., 2: 0.0410...}
    """

    shares: dict[int, float] = field(default_factory=dict)
    standard_errors: dict[int, float] = field(default_factory=dict)
