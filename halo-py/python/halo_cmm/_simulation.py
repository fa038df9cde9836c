"""Whole measurements with all parties in this process."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from halo_cmm import _halo
from halo_cmm.errors import ColumnTypeError, DataError, MissingDependencyError, ParameterError
from halo_cmm.estimators import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: ε and δ by statistic, and optionally how the noise is made; see `simulate`.
Noise = Mapping[str, Any]


class TraceRow(NamedTuple):
    """One step of one party.

    Attributes
    ----------
    stage : str
        What it did.
    party : str
        A publisher or a Duchy.
    records, bytes : int
        What it sent to others when it had done so.
    seconds : float
        How long it took.
    """

    stage: str
    party: str
    records: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Exact:
    """The answer in the clear, which only a simulation can know.

    Attributes
    ----------
    reach : float
        The number of people reached. Of registers: what the estimator makes of the exact number of active ones.
    frequency : dict of int to float
        Shares by frequency, the last "or more"; empty for reach only, or when nobody was reached.
    histogram : dict of int to int
        The numbers of people (of registers: of usable ones) that the shares come from.
    active_registers : int or None
        Of registers only: how many are active.
    """

    reach: float
    frequency: dict[int, float]
    histogram: dict[int, int]
    active_registers: int | None = None


@dataclass(frozen=True, repr=False)
class Result:
    """What a measurement found, with the exact answer beside it.

    Attributes
    ----------
    protocol : str
        The protocol that computed it.
    reach : float
        The estimated number of people reached; not rounded.
    reach_standard_error : float
        Its standard error: sketch, sampling and noise together.
    frequency : dict of int to float
        Shares of people by frequency, the last "or more". Empty for reach only, or when there is no data.
    frequency_standard_errors : dict of int to float
        The standard error of each share.
    exact : Exact
        The answer in the clear.
    counted : dict
        What the protocol itself found: `active_registers` and `registers`, or `reached` and `cells`; the `histogram` that
        shares are estimated from; the standard deviations `reach_noise` and `frequency_noise`; of the trustee, whether the
        result was `suppressed`.
    trace : list of TraceRow
        What every party did, how much it sent and how long it took, in order.
    """

    protocol: str
    reach: float
    reach_standard_error: float
    frequency: dict[int, float]
    frequency_standard_errors: dict[int, float]
    exact: Exact
    counted: dict[str, Any]
    trace: list[TraceRow] = field(default_factory=list)

    @property
    def histogram(self) -> dict[int, float]:
        """Estimated numbers of people by frequency, the last "or more"."""
        return {frequency: share * self.reach for frequency, share in self.frequency.items()}

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Lower and upper end of the interval of reach with this confidence; not below 0."""
        return interval(self.reach, self.reach_standard_error, confidence)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Plot the frequencies, or reach where there are none, beside the exact answer.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to plot; by default a new figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        MissingDependencyError
            matplotlib is not installed.
        """
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise MissingDependencyError(
                    "plot needs matplotlib, which is not installed: pip install 'halo-cmm[plot]'"
                ) from error
            _, ax = pyplot.subplots()
        if self.frequency:
            last = max(self.frequency)
            places = list(self.frequency)
            errors = [1.96 * self.frequency_standard_errors[place] for place in places]
            ax.bar(
                [place - 0.2 for place in places],
                list(self.frequency.values()),
                width=0.4,
                yerr=errors,
                capsize=2,
                label=self.protocol,
            )
            exact = [self.exact.frequency.get(place, 0.0) for place in places]
            ax.bar([place + 0.2 for place in places], exact, width=0.4, label="exact")
            ax.set_xticks(places, [f"{place}+" if place == last else str(place) for place in places])
            ax.set_xlabel("frequency")
            ax.set_ylabel("share of people reached")
        else:
            ax.bar([0], [self.reach], width=0.4, yerr=[1.96 * self.reach_standard_error], capsize=2)
            ax.bar([1], [self.exact.reach], width=0.4)
            ax.set_xticks([0, 1], [self.protocol, "exact"])
            ax.set_ylabel("people reached")
        ax.set_title(f"reach {self.reach:,.0f} ± {self.reach_standard_error:,.0f}, exactly {self.exact.reach:,.0f}")
        if self.frequency:
            ax.legend()
        return ax

    def __repr__(self) -> str:
        frequency = ", ".join(f"{k}: {share:.4f}" for k, share in self.frequency.items())
        return (
            f"Result(protocol={self.protocol!r}, reach={self.reach:.1f} ± {self.reach_standard_error:.1f} "
            f"(exact {self.exact.reach:.1f}), frequency={{{frequency}}})"
        )

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><th>reach</th><td>{self.reach:,.0f}</td><td>± {self.reach_standard_error:,.0f}</td>"
            f"<td>{self.exact.reach:,.0f}</td></tr>"
        ]
        last = max(self.frequency, default=0)
        for place, share in self.frequency.items():
            label = f"{place}+" if place == last else str(place)
            rows.append(
                f"<tr><th>frequency {label}</th><td>{share:.4f}</td>"
                f"<td>± {self.frequency_standard_errors[place]:.4f}</td>"
                f"<td>{self.exact.frequency.get(place, 0.0):.4f}</td></tr>"
            )
        return (
            f"<table><caption>{escape(self.protocol)}</caption>"
            "<tr><th></th><th>estimate</th><th>standard error</th><th>exact</th></tr>"
            f"{''.join(rows)}</table>"
        )


def _result(protocol: str, found: dict[str, Any]) -> Result:
    histogram = found["exact_histogram"]
    people = sum(histogram.values())
    shares = {frequency: count / people for frequency, count in histogram.items()} if people else {}
    exact = Exact(found["exact_reach"], shares, histogram, found["exact_active_registers"])
    return Result(
        protocol=protocol,
        reach=found["reach"],
        reach_standard_error=found["reach_standard_error"],
        frequency=found["frequency"],
        frequency_standard_errors=found["frequency_standard_errors"],
        exact=exact,
        counted=found["counted"],
        trace=[TraceRow(*row) for row in found["trace"]],
    )


def _arguments(
    protocol: str,
    sketch: tuple[float, int],
    max_frequency: int,
    sampling_width: float,
    noise: Noise | None,
    duchies: int,
    seed: int | bytes | None,
    thresholds: tuple[int, int] | None = None,
) -> SimpleNamespace:
    if noise is not None and not isinstance(noise, Mapping):
        raise ParameterError(
            f"noise is {noise!r}; it must be None, or a mapping such as "
            "{'reach': (epsilon, delta), 'frequency': (epsilon, delta)}"
        )
    if not isinstance(protocol, str):
        raise ParameterError(f"protocol is {protocol!r}; it must be the name of a protocol, such as 'llv2'")
    try:
        decay_rate, size = sketch
    except (TypeError, ValueError):
        raise ParameterError(f"sketch is {sketch!r}; it must be a pair (decay_rate, size)") from None
    if thresholds is not None:
        try:
            users, impressions = (_whole("thresholds", least) for least in thresholds)
        except (TypeError, ValueError):
            users = impressions = -1
        if users < 0 or impressions < 0:
            raise ParameterError(
                f"thresholds are {thresholds!r}; they must be None, or a pair (people, impressions) of whole numbers from 0"
            )
        thresholds = users, impressions
    return SimpleNamespace(
        protocol=protocol,
        sketch=(_real("decay rate of sketch", decay_rate), _whole("size of sketch", size)),
        max_frequency=_whole("max_frequency", max_frequency),
        sampling_width=_real("sampling_width", sampling_width),
        noise=None if noise is None else dict(noise),
        duchies=_whole("duchies", duchies),
        seed=seed,
        thresholds=thresholds,
    )


def _whole(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ParameterError(f"{name} is {value!r}; it must be a whole number") from None
    if not -(2**63) <= number < 2**63:
        raise ParameterError(f"{name} is {number}; no such number is in range")
    return number


def _real(name: str, value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ParameterError(f"{name} is {value!r}; it must be a number") from None


def simulate(
    publishers: Mapping[str, Any],
    vid: str = "vid",
    protocol: str = "llv2",
    sketch: tuple[float, int] = (12.0, 100_000),
    max_frequency: int = 10,
    sampling_width: float = 1.0,
    noise: Noise | None = None,
    duchies: int = 3,
    seed: int | bytes | None = None,
    *,
    population: Any = None,
    thresholds: tuple[int, int] | None = None,
) -> Result:
    """Measure reach and frequency over publishers' VIDs, with all parties in this process.

    Engines, ciphertexts and shares are the real ones; only the network is left out.

    Parameters
    ----------
    publishers : mapping of str to array, table or path
        By publisher, one VID for each impression: a numpy array, an Arrow array or table (pyarrow, polars, and others with
        the PyCapsule protocol), a pandas series or frame, a list, or the path of a Parquet file. 64-bit integers are not
        copied.
    vid : str, default "vid"
        The column of tables.
    protocol : {"llv2", "rollv2", "hmss", "hmss-native", "trustee"}
        Liquid Legions v2, its variant for reach only, the honest-majority share shuffle, bit-compatible with the reference
        or in its native variant, or the trustee with a simulated attestation.
    sketch : tuple of (float, int), default (12.0, 100_000)
        Decay rate and number of registers of sketches.
    max_frequency : int, default 10
        The highest frequency that is told apart; with 1 only reach is measured.
    sampling_width : float, default 1.0
        The share of people that is looked at.
    noise : mapping, optional
        ε and δ of ``"reach"`` and, unless only reach is measured, of ``"frequency"``. Without it the result is not private.
        ``"blinded_histogram"``, ``"noise_for_publisher_noise"`` and ``"publisher"`` can set the noises inside the protocol
        apart, which are those of reach otherwise; ``"mechanism"`` is ``"discrete_gaussian"`` or ``"geometric"``,
        ``"calibration"`` ``"exact"`` or ``"reference"``, and ``"honest_contributors"`` how many Duchies' noise alone is
        enough (1). The trustee adds its noise alone, always with the exact calibration, so that it takes no
        ``"honest_contributors"``, and has the mechanisms ``"discrete_gaussian"``, ``"sticky"`` and
        ``"deterministic_truncated_laplace"`` (the reference's, whose ε and δ are fixed), and needs ``"impressions"`` where
        a threshold asks for impressions.
    duchies : int, default 3
        The number of Duchies; the share shuffle has 3, and the trustee is alone.
    seed : int or bytes, optional
        The same seed gives the same result; without it the operating system's generator gives one.
    population : Population or what one is made of, optional
        Of vector protocols, whom all publishers number alike; by default all VIDs from the least to the greatest in the
        data, which is then public, and at most 10,000,000.
    thresholds : tuple of (int, int), optional
        Of the trustee: results of fewer people, or of fewer impressions, are released as 0.

    Returns
    -------
    Result

    Raises
    ------
    ParameterError
        A parameter is out of range, or parameters do not fit together.
    NoiseError
        The noise cannot be made.
    DataError, ColumnTypeError, MissingColumnError
        A publisher's data cannot be read; the message names it.
    SaturatedError
        The sketch is too small for so many people.

    Examples
    --------
    >>> import numpy as np
    >>> from halo_cmm import simulate
    >>> people = {"news": np.arange(300), "sports": np.arange(200, 400)}
    >>> result = simulate(people, protocol="llv2", sketch=(12.0, 1_000), max_frequency=2, seed=1)
    >>> abs(result.reach - result.exact.reach) < 4 * result.reach_standard_error
    True
    >>> private = {"reach": (1.0, 1e-6), "frequency": (1.0, 1e-6)}
    >>> result = simulate(people, protocol="hmss", max_frequency=2, noise=private, seed=1)
    >>> result.exact.reach, result.exact.histogram
    (400.0, {1: 300, 2: 100})
    >>> abs(result.reach - 400) < 5 * result.reach_standard_error
    True
    """
    if not isinstance(publishers, Mapping):
        raise ParameterError("publishers must be a mapping from names to VIDs, such as {'news': table, 'sports': table}")
    arguments = _arguments(protocol, sketch, max_frequency, sampling_width, noise, duchies, seed, thresholds)
    found = _halo.simulate([(str(name), data) for name, data in publishers.items()], vid, population, arguments)
    return _result(protocol, found)


def simulate_registers(
    publishers: Sequence[Sequence[tuple[int, int | None, int]]],
    protocol: str = "llv2",
    sketch: tuple[float, int] = (12.0, 100_000),
    max_frequency: int = 10,
    sampling_width: float = 1.0,
    noise: Noise | None = None,
    duchies: int = 3,
    seed: int | bytes | None = None,
) -> Result:
    """Run a protocol over registers that are given one by one, for exact cases.

    Parameters
    ----------
    publishers : list of list of tuple
        By publisher, index, key and count of each register. A key of None is a register that two people have destroyed. An
        index that a list repeats is joined by the Duchies, as if another publisher had sent it. No publisher adds noise
        registers.
    protocol : {"llv2", "rollv2"}
        The protocol.
    sketch, max_frequency, sampling_width, noise, duchies, seed
        As for `simulate`.

    Returns
    -------
    Result

    Examples
    --------
    >>> from halo_cmm import simulate_registers
    >>> simulate_registers([[(1, 111, 1)], [(1, 111, 2)], [(1, 111, 3), (2, None, 5)]]).frequency[6]
    1.0
    """
    arguments = _arguments(protocol, sketch, max_frequency, sampling_width, noise, duchies, seed)
    lists = [_registers(publisher) for publisher in _each(publishers)]
    return _result(protocol, _halo.simulate_registers(lists, arguments))


def _each(publishers: Sequence[Any]) -> Sequence[Any]:
    try:
        return list(publishers)
    except TypeError:
        raise ParameterError(f"publishers is {publishers!r}; it must be a list with one list for each publisher") from None


def _integer(value: int) -> int:
    number = operator.index(value)
    if not -(2**63) <= number < 2**63:
        raise DataError(f"{number} is no usable number; all must be below 2**63")
    return number


def _registers(registers: Sequence[tuple[int, int | None, int]]) -> list[tuple[int, int | None, int]]:
    try:
        return [
            (_integer(index), None if key is None else _integer(key), _integer(count))
            for index, key, count in registers
        ]
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        raise ColumnTypeError(
            f"registers are tuples of index, key (or None) and count, all whole numbers: {error}"
        ) from error


def simulate_vectors(
    publishers: Sequence[Sequence[int]],
    protocol: str = "hmss",
    max_frequency: int = 10,
    sampling_width: float = 1.0,
    noise: Noise | None = None,
    duchies: int = 3,
    seed: int | bytes | None = None,
    *,
    thresholds: tuple[int, int] | None = None,
) -> Result:
    """Run a protocol over frequency vectors that are given count by count, for exact cases.

    Parameters
    ----------
    publishers : list of list of int
        By publisher, how often it has reached each person. Publishers number people alike; what is above `max_frequency`
        they send as that; for reach with thresholds, what is above 126.
    protocol : {"hmss", "hmss-native", "trustee"}
        The protocol.
    max_frequency, sampling_width, noise, duchies, seed, thresholds
        As for `simulate`.

    Returns
    -------
    Result

    Examples
    --------
    >>> from halo_cmm import simulate_vectors
    >>> result = simulate_vectors([[1, 0, 1, 0], [0, 1, 1, 0]], max_frequency=3)
    >>> result.reach, result.frequency
    (3.0, {1: 0.666..., 2: 0.333..., 3: 0.0})
    """
    arguments = _arguments(protocol, (12.0, 100_000), max_frequency, sampling_width, noise, duchies, seed, thresholds)
    vectors = [_counts(publisher) for publisher in _each(publishers)]
    return _result(protocol, _halo.simulate_vectors(vectors, arguments))


def _counts(counts: Sequence[int]) -> list[int]:
    try:
        return [_integer(count) for count in counts]
    except TypeError as error:
        raise ColumnTypeError(f"a frequency vector is a sequence of whole numbers: {error}") from error
