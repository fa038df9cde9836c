"""Simulations without noise find what is computed in the clear; with noise they lie within their errors."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import halo_cmm
from halo_cmm import (
    ColumnTypeError,
    DataError,
    NoiseError,
    ParameterError,
    Population,
    SaturatedError,
    simulate,
    simulate_registers,
    simulate_vectors,
)
from places import MSNBC

VECTOR_PROTOCOLS = ["hmss", "hmss-native", "trustee"]
PRIVATE = {"reach": (1.0, 1e-6), "frequency": (1.0, 1e-6)}


def clear(publishers: list[list[int]], most: int) -> tuple[int, dict[int, int]]:
    """Reach, and people by frequency."""
    counts = Counter(vid for vids in publishers for vid in vids)
    frequencies = Counter(min(count, most) for count in counts.values())
    return len(counts), {frequency: frequencies[frequency] for frequency in range(1, most + 1)}


VIDS = st.lists(st.lists(st.integers(1, 60), max_size=80), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(VIDS, st.sampled_from(VECTOR_PROTOCOLS), st.integers(2, 10), st.integers(0, 2**64 - 1))
def test_vector_protocols_are_exact(publishers, protocol, most, seed) -> None:
    named = {f"p{number}": np.array(vids, dtype=np.int64) for number, vids in enumerate(publishers)}
    result = simulate(named, protocol=protocol, max_frequency=most, seed=seed, population=(1, 60))
    reach, histogram = clear(publishers, most)
    assert result.reach == result.exact.reach == result.counted["reached"] == reach
    assert result.exact.histogram == result.counted["histogram"] == histogram
    assert result.reach_standard_error == 0.0
    if reach:
        assert result.frequency == pytest.approx({k: count / reach for k, count in histogram.items()})
        assert result.frequency == pytest.approx(result.exact.frequency)
        assert result.histogram == pytest.approx(histogram)
    else:
        assert result.frequency == result.exact.frequency == {}


@settings(max_examples=10, deadline=None)
@given(VIDS, st.sampled_from(VECTOR_PROTOCOLS))
def test_reach_only_is_exact(publishers, protocol) -> None:
    named = {f"p{number}": vids for number, vids in enumerate(publishers)}
    result = simulate(named, protocol=protocol, max_frequency=1, population=(1, 60))
    assert result.reach == clear(publishers, 1)[0]
    assert result.frequency == {}


KEYS = st.one_of(st.none(), st.integers(0, 3))
REGISTERS = st.lists(
    st.lists(st.tuples(st.integers(0, 30), KEYS, st.integers(1, 6)), max_size=12, unique_by=lambda register: register[0]),
    min_size=1,
    max_size=12,
)


def join(publishers) -> tuple[int, dict[int, int]]:
    """Active registers, and usable ones by frequency up to 4."""
    joined: dict[int, list] = {}
    for index, key, count in (register for registers in publishers for register in registers):
        found = joined.setdefault(index, [key, 0])
        found[0] = key if found[0] == key else None
        found[1] += count
    usable = Counter(min(count, 4) for key, count in joined.values() if key is not None)
    return len(joined), {frequency: usable[frequency] for frequency in range(1, 5)}


@settings(max_examples=15, deadline=None)
@given(REGISTERS, st.integers(2, 5), st.integers(0, 2**32))
def test_llv2_finds_the_registers_of_the_clear_join(publishers, duchies, seed) -> None:
    result = simulate_registers(publishers, sketch=(12.0, 1_000), max_frequency=4, duchies=duchies, seed=seed)
    active, usable = join(publishers)
    assert result.counted["active_registers"] == result.exact.active_registers == active
    assert result.counted["histogram"] == result.exact.histogram == usable
    assert result.reach == pytest.approx(result.exact.reach)
    assert result.frequency == pytest.approx(result.exact.frequency)


@settings(max_examples=15, deadline=None)
@given(REGISTERS, st.integers(2, 5))
def test_rollv2_finds_the_active_registers(publishers, duchies) -> None:
    result = simulate_registers(publishers, "rollv2", sketch=(12.0, 1_000), duchies=duchies)
    assert result.counted["active_registers"] == join(publishers)[0]
    assert result.frequency == {}


def test_cases_of_the_reference() -> None:
    width = {"sampling_width": 0.5}
    together = [(1, 111, 1), (1, 111, 2), (1, 111, 3)]
    for publishers in ([together], [[register] for register in together]):
        assert simulate_registers(publishers, **width).frequency[6] == 1.0
    destroyed = simulate_registers([[(1, 111, 3), (2, None, 2)]], **width)
    assert (destroyed.frequency[3], destroyed.counted["active_registers"]) == (1.0, 2)
    capped = simulate_registers([[(1, 111, 3)], [(2, 222, 5)], [(2, 222, 7)]], **width)
    assert (capped.frequency[3], capped.frequency[10]) == (0.5, 0.5)
    certain = (40.0, math.exp(-80.0))
    for mechanism in ("geometric", "discrete_gaussian"):
        noise = {"reach": certain, "frequency": certain, "blinded_histogram": (1.0, 1.0)}
        noise |= {"noise_for_publisher_noise": (1.0, 1.0), "mechanism": mechanism, "calibration": "reference"}
        thirty = [[(number, number, 1) for number in range(30)]]
        found = simulate_registers(thirty, max_frequency=10, noise=noise, seed=7, **width)
        assert found.counted["active_registers"] == 30
    halves = simulate_vectors([[1, 0, 1, 0, 1, 0]], "trustee", max_frequency=1, sampling_width=0.5)
    assert halves.reach == 6
    thirds = simulate_vectors([[2, 1, 0, 3]], "trustee", max_frequency=3)
    assert thirds.frequency == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 1 / 3})
    both = simulate_vectors([[1, 0, 1, 0], [0, 1, 1, 0]], "trustee", max_frequency=3)
    assert (both.reach, both.frequency) == (3, pytest.approx({1: 2 / 3, 2: 1 / 3, 3: 0}))
    assert simulate_vectors([[1] * 10], "trustee", max_frequency=2, thresholds=(1000, 1000)).counted["suppressed"]
    assert simulate_vectors([[1] * 10], "trustee", max_frequency=2, thresholds=(1, 1)).reach == 10
    # Reach only: a person's impressions count up to 126.
    assert simulate_vectors([[3] * 10 + [0]], "trustee", max_frequency=1, thresholds=(10, 30)).reach == 10
    assert simulate_vectors([[3] * 10 + [0]], "trustee", max_frequency=1, thresholds=(10, 31)).counted["suppressed"]
    people = {"news": np.repeat(np.arange(10), 3)}
    assert simulate(people, protocol="trustee", max_frequency=1, thresholds=(10, 30)).reach == 10
    assert simulate_vectors([[1, 2, 3, 4, 5, 6]], max_frequency=4).counted["histogram"] == {1: 1, 2: 1, 3: 1, 4: 3}


@pytest.mark.parametrize("protocol", ["llv2", "rollv2", *VECTOR_PROTOCOLS])
def test_noised_results_lie_within_their_errors(protocol) -> None:
    rng = np.random.default_rng(5)
    publishers = {name: rng.integers(1, 3_001, 3_000) for name in ("news", "sports", "tech")}
    most = 1 if protocol == "rollv2" else 3
    noise = {**PRIVATE, "blinded_histogram": (10.0, 1e-3), "noise_for_publisher_noise": (10.0, 1e-3)}
    settings = {"sketch": (12.0, 500), "max_frequency": most, "noise": noise, "seed": 3, "population": (1, 3_000)}
    result = simulate(publishers, protocol=protocol, **settings)
    assert result.exact.reach == len(np.unique(np.concatenate(list(publishers.values()))))
    assert result.reach_standard_error > 0
    assert abs(result.reach - result.exact.reach) < 5 * result.reach_standard_error
    low, high = result.interval(0.9999999)
    assert low < result.exact.reach < high
    for frequency, share in result.frequency.items():
        assert abs(share - result.exact.frequency[frequency]) < 5 * result.frequency_standard_errors[frequency]
    assert simulate(publishers, protocol=protocol, **settings).reach == result.reach
    other = simulate(publishers, protocol=protocol, **{**settings, "seed": 4})
    assert other.reach != result.reach


def test_llv2_estimates_people_within_their_errors() -> None:
    publishers = {"a": np.arange(1, 3_001), "b": np.repeat(np.arange(2_001, 5_001), 2)}
    result = simulate(publishers, sketch=(12.0, 2_000), max_frequency=3, seed=1)
    assert result.exact.reach == 5_000
    assert result.exact.histogram == {1: 2_000, 2: 2_000, 3: 1_000}
    assert abs(result.reach - 5_000) < 4 * result.reach_standard_error
    for frequency, share in result.frequency.items():
        assert abs(share - result.exact.frequency[frequency]) < 5 * result.frequency_standard_errors[frequency]
    sampled = simulate(publishers, protocol="rollv2", sketch=(12.0, 2_000), sampling_width=0.5, seed=1)
    assert abs(sampled.reach - 5_000) < 4 * sampled.reach_standard_error


def test_sampled_vectors_estimate_everybody() -> None:
    people = Population((1, 20_000))
    for protocol in VECTOR_PROTOCOLS:
        found = simulate({"a": range(1, 9_001)}, protocol=protocol, sampling_width=0.25, population=people, max_frequency=2)
        assert abs(found.reach - 9_000) < 5 * found.reach_standard_error
        assert found.counted["cells"] == 5_000


def test_the_trace_says_who_did_what() -> None:
    result = simulate_registers([[(1, 1, 1)], [(2, 2, 1)]], max_frequency=2, seed=1)
    rows = result.trace
    assert [row.party for row in rows if row.stage == "encrypt"] == ["publisher1", "publisher2"]
    assert {row.party for row in rows} == {"publisher1", "publisher2", "worker1", "worker2", "aggregator"}
    assert {row.stage for row in rows} >= {"encrypt", "start", "setup phase", "execution phase one", "execution phase two"}
    assert all(row.seconds >= 0 for row in rows)
    upload = rows[0]
    assert (upload.records, upload.bytes) == (1, 192)
    for row in rows:
        assert (row.records == 0) == (row.bytes == 0)
    assert rows[0]._fields == ("stage", "party", "records", "bytes", "seconds")


def test_no_data_is_no_data() -> None:
    empty = np.array([], dtype=np.int64)
    for protocol in ("llv2", "rollv2", *VECTOR_PROTOCOLS):
        result = simulate({"a": empty, "b": empty}, protocol=protocol, population=(1, 10))
        assert (result.reach, result.frequency, result.exact.reach) == (0.0, {}, 0.0)
        assert result.histogram == {}
        assert "nan" not in repr(result).lower() and "nan" not in result._repr_html_().lower()
    assert simulate_registers([[]]).reach == 0.0
    assert simulate_vectors([[0, 0, 0]]).frequency == {}


def test_results_show_themselves() -> None:
    result = simulate_vectors([[1, 2, 0, 0]], max_frequency=3)
    assert repr(result).startswith("Result(protocol='hmss', reach=")
    html = result._repr_html_()
    assert html.startswith("<table>") and "3+" in html and "exact" in html
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = result.plot()
    assert axes.get_xlabel() == "frequency"
    assert result.plot(ax=axes) is axes
    assert simulate_vectors([[1, 0]], max_frequency=1).plot().get_ylabel() == "people reached"


def test_without_matplotlib_plot_says_what_to_install(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(halo_cmm.MissingDependencyError, match=r"pip install 'halo-cmm\[plot\]'") as raised:
        simulate_vectors([[1, 0]]).plot()
    assert isinstance(raised.value, ImportError)


ONE = {"a": [1, 2, 3]}


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: simulate({}), ParameterError, "no publishers; give at least one"),
        (lambda: simulate([[1, 2]]), ParameterError, "publishers must be a mapping"),
        (lambda: simulate(ONE, protocol="psi"), ParameterError, "must be one of llv2, rollv2, hmss"),
        (lambda: simulate_registers([[]], "hmss"), ParameterError, "must be one of llv2, rollv2"),
        (lambda: simulate_vectors([[1, 1]], "llv2"), ParameterError, "must be one of hmss, hmss-native, trustee"),
        (lambda: simulate(ONE, duchies=1), ParameterError, "duchies is 1; llv2 takes 2 to 20"),
        (lambda: simulate(ONE, protocol="hmss", duchies=4), ParameterError, "duchies is 4; hmss takes 3 to 3"),
        (lambda: simulate(ONE, max_frequency=0), ParameterError, "from 1 to 255"),
        (lambda: simulate(ONE, max_frequency=1.5), ParameterError, "max_frequency is 1.5; it must be a whole number"),
        (lambda: simulate(ONE, max_frequency=2**70), ParameterError, "no such number is in range"),
        (lambda: simulate(ONE, sampling_width="x"), ParameterError, "sampling_width is 'x'; it must be a number"),
        (lambda: simulate(ONE, protocol=None), ParameterError, "protocol is None"),
        (lambda: simulate(ONE, sketch=5), ParameterError, "sketch is 5; it must be a pair"),
        (lambda: simulate(ONE, sketch=("a", 3)), ParameterError, "decay rate of sketch is 'a'"),
        (lambda: simulate(ONE, protocol="trustee", thresholds=5), ParameterError, "thresholds are 5; they must be None, or"),
        (lambda: simulate(ONE, protocol="trustee", thresholds=(-1, 2)), ParameterError, r"thresholds are \(-1, 2\)"),
        (lambda: simulate_vectors(5), ParameterError, "publishers is 5; it must be a list"),
        (lambda: simulate_vectors([[2**70]]), DataError, "below 2\\*\\*63"),
        (lambda: simulate_registers([[(2**70, 1, 1)]]), DataError, "below 2\\*\\*63"),
        (lambda: simulate(ONE, sampling_width=0), ParameterError, "width of the VID sampling interval"),
        (lambda: simulate(ONE, sampling_width=1.5), ParameterError, "width of the VID sampling interval"),
        (lambda: simulate(ONE, sketch=(0.5, 10)), ParameterError, "decay rate"),
        (lambda: simulate(ONE, seed=-1), ParameterError, "seed is -1"),
        (lambda: simulate(ONE, seed=b"short"), ParameterError, "seed has 5 bytes; it must have 32"),
        (lambda: simulate(ONE, noise=1.0), ParameterError, "noise is 1.0; it must be None, or a mapping"),
        (lambda: simulate(ONE, noise={}), ParameterError, "no entry 'reach'"),
        (lambda: simulate(ONE, noise={"reach": 1.0}), ParameterError, r"a pair \(epsilon, delta\)"),
        (lambda: simulate(ONE, noise={"reach": (1.0, 1e-6)}), ParameterError, "ε and δ are missing"),
        (lambda: simulate(ONE, noise={"reach": (-1.0, 1e-6)}), ParameterError, "epsilon"),
        (lambda: simulate(ONE, noise={"reach": (1.0, 2.0)}), ParameterError, "delta"),
        (lambda: simulate(ONE, noise={**PRIVATE, "range": 1}), ParameterError, "entry \"range\"; its entries can be"),
        (lambda: simulate(ONE, noise={**PRIVATE, "mechanism": "laplace"}), ParameterError, "discrete_gaussian"),
        (lambda: simulate(ONE, noise={**PRIVATE, "mechanism": "sticky"}), ParameterError, "only the trustee"),
        (lambda: simulate(ONE, noise={**PRIVATE, "honest_contributors": 4}), ParameterError, "honest contributors"),
        (
            lambda: simulate(ONE, noise={"reach": (1e-9, 1e-9), "frequency": (1.0, 1e-6)}, protocol="hmss"),
            NoiseError,
            "epsilon|ε",
        ),
        (
            lambda: simulate(ONE, protocol="trustee", noise={**PRIVATE, "honest_contributors": 1}),
            ParameterError,
            "honest_contributors.* the trustee adds its noise alone",
        ),
        (
            lambda: simulate(ONE, protocol="trustee", noise={**PRIVATE, "calibration": "reference"}),
            ParameterError,
            "calibration.* the trustee adds its noise alone",
        ),
        (
            lambda: simulate(ONE, protocol="trustee", noise={**PRIVATE, "mechanism": "geometric"}),
            ParameterError,
            "which the trustee does not have",
        ),
        (lambda: simulate(ONE, thresholds=(1, 1)), ParameterError, "thresholds are the trustee's"),
        (lambda: simulate({"news": [1, -2]}), DataError, "publisher news: row 1 .* negative VID -2"),
        (lambda: simulate({"news": [1.5]}), ColumnTypeError, "publisher news: VIDs cannot be read"),
        (lambda: simulate({"news": {"user": [1]}}), KeyError, "publisher news: there is no column `vid`"),
        (lambda: simulate({"a": range(5_000)}, sketch=(2.0, 50)), SaturatedError, "larger sketch"),
        (lambda: simulate({"a": []}, protocol="hmss"), DataError, r"give population=\(first, last\)"),
        (lambda: simulate({"a": [5, 11]}, protocol="hmss", population=(1, 10)), DataError, "publisher a: VID is 11"),
        (lambda: simulate({"a": [1, 2**40]}, protocol="hmss"), DataError, "larger than there are VIDs"),
        (
            lambda: simulate({"a": [1], "b": [2**31 - 2]}, protocol="hmss"),
            DataError,
            "range over 2147483646 people, more than 10000000; give population",
        ),
        (lambda: simulate({"a": [0, 10_000_000]}, protocol="trustee"), DataError, "range over 10000001 people"),
        (lambda: simulate_registers([]), ParameterError, "at least one list"),
        (lambda: simulate_registers([[(1, -1, 1)]]), DataError, "publisher 0: key -1 .* None for a destroyed"),
        (lambda: simulate_registers([[(10**6, 1, 1)]]), DataError, "index 1000000"),
        (lambda: simulate_registers([[(1, 1, 0)]]), DataError, "count 0"),
        (lambda: simulate_registers([[(1, 1)]]), ColumnTypeError, "tuples of index, key"),
        (lambda: simulate_registers([[(1, 1, 1.5)]]), ColumnTypeError, "whole numbers"),
        (lambda: simulate_vectors([]), ParameterError, "at least one vector"),
        (lambda: simulate_vectors([[]]), ParameterError, "0 cells"),
        (lambda: simulate_vectors([[1, 2], [1]]), DataError, "publisher 1 has 1 cells and publisher 0 has 2"),
        (lambda: simulate_vectors([[1, -2]]), DataError, "publisher 0: cell 1 is -2"),
        (lambda: simulate_vectors([[1, 0.5]]), ColumnTypeError, "whole numbers"),
        (lambda: simulate_vectors([[1, 1]] * 30), ParameterError, "lower max_frequency or ask fewer publishers"),
        (lambda: simulate_vectors([[1, 1]] * 30, "hmss-native"), ParameterError, "lower the frequency"),
        (lambda: simulate_vectors([[1, 1]], "trustee", max_frequency=200), ParameterError, "200 is above 127"),
    ],
)
def test_bad_input_is_refused_and_told_what_to_do(run, error, message) -> None:
    with pytest.raises(error, match=message) as raised:
        run()
    assert isinstance(raised.value, halo_cmm.HaloError)


def test_real_publishers_are_exact(capfd) -> None:
    if not MSNBC.is_dir():
        with capfd.disabled():
            print("\nSKIPPED: ../shared/data/msnbc is missing")
        return
    names = ["news", "tech", "local", "weather", "business", "sports"]
    publishers = {name: MSNBC / f"{name}.parquet" for name in names}
    result = simulate(publishers, protocol="hmss", seed=1)
    expected = [245_821, 103_485, 60_280, 39_614, 30_301, 23_105, 16_288, 12_752, 9_661, 44_082]
    histogram = dict(zip(range(1, 11), expected, strict=True))
    assert result.reach == result.exact.reach == 585_389
    assert result.exact.histogram == result.counted["histogram"] == histogram
    assert result.frequency == pytest.approx({k: count / 585_389 for k, count in histogram.items()})
