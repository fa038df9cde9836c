"""Sketches and vectors: merged, stored, estimated."""

from __future__ import annotations

import copy
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo_cmm import (
    DataError,
    Estimate,
    FormatError,
    FrequencyVector,
    IncompatibleError,
    LiquidLegions,
    ParameterError,
    Population,
    SaturatedError,
)

VIDS = st.lists(st.integers(1, 200), max_size=300)


@given(VIDS, VIDS)
def test_merging_sketches_is_sketching_both(one: list[int], other: list[int]) -> None:
    shape = (4.0, 150)
    merged = LiquidLegions.from_vids(one, sketch=shape).merge(LiquidLegions.from_vids(other, sketch=shape))
    both = LiquidLegions.from_vids([*one, *other], sketch=shape)
    assert merged == both
    assert merged.registers() == both.registers()
    assert sum(count for _, _, count in both.registers()) == len(one) + len(other)
    assert LiquidLegions.from_bytes(both.to_bytes()) == both
    assert LiquidLegions.from_registers(both.registers(), sketch=shape) == both
    assert pickle.loads(pickle.dumps(both)) == copy.deepcopy(both) == both
    updated = LiquidLegions(shape)
    updated.update(one)
    updated.update(other)
    assert updated == both


@given(VIDS, VIDS, st.integers(1, 12))
def test_merging_vectors_is_counting_both(one: list[int], other: list[int], most: int) -> None:
    people = Population((1, 200))
    vectors = [FrequencyVector.from_vids(vids, people, most) for vids in (one, other)]
    merged = vectors[0].merge(vectors[1])
    assert merged == FrequencyVector.from_vids([*one, *other], people, most)
    assert FrequencyVector.from_bytes(merged.to_bytes()) == pickle.loads(pickle.dumps(merged)) == merged
    counts = Counter([*one, *other])
    expected = Counter(min(count, most) for count in counts.values())
    assert merged.histogram == {frequency: expected[frequency] for frequency in range(1, most + 1)}
    assert merged.reach().value == len(counts)
    for vid, count in counts.items():
        assert merged.cells[people.index(vid)] == min(count, most)


def test_merging_with_itself_doubles_the_counts() -> None:
    sketch = LiquidLegions.from_vids([1, 2])
    assert [count for *_, count in sketch.merge(sketch).registers()] == [2, 2]
    vector = FrequencyVector.from_vids([1], (1, 3))
    assert vector.merge(vector).histogram[2] == 1


def test_estimates_lie_within_their_errors() -> None:
    for people in (100, 10_000, 200_000):
        sketch = LiquidLegions.from_vids(np.arange(people))
        reach = sketch.reach()
        assert abs(reach.value - people) < 4 * reach.standard_error
        low, high = reach.interval()
        assert low < reach.value < high
        sampled = LiquidLegions.from_vids(np.arange(people), sampling_width=0.5).reach(0.5)
        assert abs(sampled.value - people) < 4 * sampled.standard_error
    vids = np.repeat(np.arange(50_000), np.arange(50_000) % 3 + 1)
    found = LiquidLegions.from_vids(vids).frequency(3)
    for frequency, share in found.shares.items():
        assert abs(share - 1 / 3) < 5 * found.standard_errors[frequency]
    assert sum(found.shares.values()) == pytest.approx(1)


def test_nothing_is_no_data() -> None:
    nothing = LiquidLegions()
    assert (nothing.active, bool(nothing), nothing.registers()) == (0, False, [])
    assert nothing.reach() == Estimate(0.0, 0.0)
    assert nothing.frequency().shares == {}
    nobody = FrequencyVector((1, 10))
    assert nobody.reach() == Estimate(0.0, 0.0)
    assert nobody.frequency().shares == {}


def test_sampled_vectors_estimate_everybody() -> None:
    people = Population((1, 20_000))
    vector = FrequencyVector.from_vids(range(1, 12_001), people, sampling_width=0.3)
    reach = vector.reach()
    assert len(vector) == len(vector.cells) == 6_000
    assert abs(reach.value - 12_000) < 4 * reach.standard_error
    assert vector.sampling_width == 0.3


def test_populations_are_made_of_ranges_and_columns() -> None:
    assert len(Population((5, 9))) == len(Population(range(5, 10))) == len(Population(np.arange(5, 10))) == 5
    people = Population([3, 1, 7])
    assert sorted(people.index(vid) for vid in (1, 3, 7)) == [0, 1, 2]
    assert 3 in people and 4 not in people
    # Places are a published function of VIDs.
    order = [15, 4, 9, 10, 20, 5, 11, 3, 12, 19, 16, 6, 14, 8, 2, 18, 7, 1, 13, 17]
    assert [Population((1, 20)).index(vid) for vid in order] == list(range(20))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LiquidLegions((1.0, 10)), ParameterError, "decay rate is 1; it must be above 1"),
        (lambda: LiquidLegions((12.0, 0)), ParameterError, "sketch size is 0"),
        (lambda: LiquidLegions((12.0, -5)), ParameterError, "sketch size is -5"),
        (lambda: LiquidLegions(sampling_indicator_size=0), ParameterError, "sampling indicator size"),
        (lambda: LiquidLegions.from_vids([1], sampling_width=0.0), ParameterError, "width of the VID sampling interval"),
        (lambda: LiquidLegions.from_vids([1], sampling_start=0.9, sampling_width=0.5), ParameterError, "at most 1"),
        (lambda: LiquidLegions.from_registers([(100_000, 1, 1)]), DataError, "index 100000 .* from 0 to 99999"),
        (lambda: LiquidLegions.from_registers([(1, -1, 1)]), DataError, "None for a destroyed register"),
        (lambda: LiquidLegions.from_registers([(1, 1, 0)]), DataError, "at least 1"),
        (lambda: LiquidLegions().merge(LiquidLegions((12.0, 10))), IncompatibleError, "different parameters"),
        (lambda: LiquidLegions.from_bytes(b""), FormatError, "no bytes"),
        (lambda: LiquidLegions.from_bytes(LiquidLegions().to_bytes() + b"x"), FormatError, "length"),
        (lambda: LiquidLegions.from_vids(range(500), sketch=(2.0, 10)).reach(), SaturatedError, "saturated"),
        (lambda: LiquidLegions().reach(2.0), ParameterError, "sampling width is 2"),
        (lambda: LiquidLegions().frequency(0), ParameterError, "max_frequency is 0; it must be from 1 to 255"),
        (lambda: FrequencyVector((1, 10), 256), ParameterError, "max_frequency is 256"),
        (lambda: FrequencyVector((1, 10), sampling_width=0.01), ParameterError, "sampled population is nobody of 10"),
        (lambda: FrequencyVector.from_vids([11], (1, 10)), DataError, "VID is 11; it must be one of the population"),
        (lambda: FrequencyVector((1, 10)).merge(FrequencyVector((1, 11))), IncompatibleError, "11 people"),
        (lambda: FrequencyVector.from_bytes(b"\x07"), FormatError, "version"),
        (lambda: Population([]), DataError, "population is empty"),
        (lambda: Population([1, 1]), DataError, "VID 1 twice"),
        (lambda: Population((0, 2**40)), DataError, "larger than there are VIDs"),
        (lambda: Population([2**31]), DataError, "below 2"),
        (lambda: Estimate(1.0, 1.0).interval(1.0), ParameterError, "confidence is 1.0"),
    ],
)
def test_bad_input_is_refused_and_told_what_to_do(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()


def test_representations_show_counts_and_no_registers() -> None:
    sketch, vector = LiquidLegions.from_vids([1, 2]), FrequencyVector.from_vids([4], (1, 20))
    for shown in (repr(sketch), sketch._repr_html_()):
        assert "2027" not in shown and "100000" in shown and "2" in shown
    assert vector._repr_html_().startswith("<table>")
    assert "saturated" in LiquidLegions.from_vids(range(500), sketch=(2.0, 10))._repr_html_()
