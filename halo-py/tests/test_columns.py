"""VIDs come from every kind of column, without copies where they are of 64 bits, and bad ones are refused by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from halo_cmm import ColumnTypeError, DataError, FormatError, HaloError, LiquidLegions, MissingColumnError

VIDS = [1, 2, 1, 100, 12_345, 1_000_000, 1]
EXPECTED = LiquidLegions.from_vids(np.array(VIDS, dtype=np.uint64))

COLUMNS = {
    "numpy int64": np.array(VIDS),
    "numpy int32": np.array(VIDS, dtype=np.int32),
    "numpy uint32": np.array(VIDS, dtype=np.uint32),
    "numpy big endian": np.array(VIDS, dtype=">i8"),
    "numpy strided": np.repeat(np.array(VIDS), 2)[::2],
    "list": VIDS,
    "tuple": tuple(VIDS),
    "pyarrow int64": pa.array(VIDS),
    "pyarrow uint64": pa.array(VIDS, pa.uint64()),
    "pyarrow int32": pa.array(VIDS, pa.int32()),
    "pyarrow slice": pa.array([9, *VIDS, 9]).slice(1, len(VIDS)),
    "pyarrow chunks": pa.chunked_array([VIDS[:3], VIDS[3:]]),
    "pyarrow table": pa.table({"page": ["x"] * len(VIDS), "vid": VIDS}),
    "pyarrow batch": pa.record_batch({"vid": VIDS}),
    "pyarrow reader": lambda: pa.table({"vid": VIDS}).to_reader(max_chunksize=2),
    "pyarrow table slice": pa.table({"vid": [9, *VIDS]}).slice(1),
    "one column of another name": pa.table({"user": VIDS}),
    "pandas series": pd.Series(VIDS),
    "pandas arrow": pd.Series(VIDS, dtype="int64[pyarrow]"),
    "pandas nullable": pd.Series(VIDS, dtype="Int64"),
    "pandas frame": pd.DataFrame({"page": 0, "vid": VIDS}),
    "polars series": pl.Series(VIDS),
    "polars frame": pl.DataFrame({"page": ["x"] * len(VIDS), "vid": VIDS}),
    "mapping": {"vid": VIDS, "page": ["x"] * len(VIDS)},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_kind_of_column_gives_the_same_sketch(name: str) -> None:
    column = COLUMNS[name]
    assert LiquidLegions.from_vids(column() if callable(column) else column) == EXPECTED


def test_parquet_files_are_read_by_their_path(tmp_path) -> None:
    path = tmp_path / "news.parquet"
    parquet.write_table(pa.table({"vid": VIDS, "position": VIDS}), path)
    assert LiquidLegions.from_vids(path) == LiquidLegions.from_vids(str(path)) == EXPECTED
    with pytest.raises(ColumnTypeError, match="load the table yourself"):
        LiquidLegions.from_vids(path, "position")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LiquidLegions.from_vids(tmp_path / "nowhere.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(FormatError, match="no readable Parquet"):
        LiquidLegions.from_vids(tmp_path / "bad.parquet")


def test_empty_columns_are_empty() -> None:
    for nothing in ([], np.array([], dtype=np.int64), pa.array([], pa.int64()), pa.table({"vid": pa.array([], pa.int64())})):
        assert LiquidLegions.from_vids(nothing).active == 0


def test_another_column_is_taken_by_name() -> None:
    table = {"user": VIDS, "vid": [7] * len(VIDS)}
    assert LiquidLegions.from_vids(table, "user") == EXPECTED
    assert LiquidLegions.from_vids(pa.table(table), vid="user") == EXPECTED
    assert LiquidLegions.from_vids(pd.DataFrame(table), vid="user") == EXPECTED


@pytest.mark.parametrize(
    ("column", "error", "builtin", "message"),
    [
        (np.array([1, 2, -3]), DataError, ValueError, "row 2 .* negative VID -3"),
        ([1, -1], DataError, ValueError, "row 1 "),
        (np.array([1, -1], dtype=np.int16), DataError, ValueError, "negative VID -1"),
        (pa.chunked_array([[1, 2], [3, -4]]), DataError, ValueError, "row 3 .* negative VID -4"),
        (pa.chunked_array([[1], [-4]], pa.int32()), DataError, ValueError, "row 1 .* negative VID -4"),
        (pa.array([1, None, 3]), DataError, ValueError, "row 1 .* has no VID"),
        (pl.Series([1, 2, None]), DataError, ValueError, "row 2 .* has no VID"),
        (pd.Series([1, None], dtype="Int64"), DataError, ValueError, "row 1 .* has no VID"),
        (np.array([1.0]), ColumnTypeError, TypeError, "float64"),
        (np.array(["a"]), ColumnTypeError, TypeError, "one-dimensional"),
        (np.array([[1]]), ColumnTypeError, TypeError, r"shape \[1, 1\]"),
        (np.array([True]), ColumnTypeError, TypeError, "bool"),
        (np.ma.masked_array([1, 2, 3], mask=[False, True, False]), ColumnTypeError, TypeError, "masked array"),
        ([1, None], ColumnTypeError, TypeError, "object"),
        (3, ColumnTypeError, TypeError, "one-dimensional"),
        (pa.array(["a"]), ColumnTypeError, TypeError, "Utf8"),
        (pa.array([1.5]), ColumnTypeError, TypeError, "Float64"),
        (pa.table({"a": [1], "b": [2]}), MissingColumnError, KeyError, "no column `vid`; the columns are a, b"),
        (pd.DataFrame({"a": [1], "b": [2]}), MissingColumnError, KeyError, "the columns are a, b"),
        ({"a": [1]}, MissingColumnError, KeyError, "the columns are a; name one as vid="),
    ],
)
def test_bad_columns_say_what_is_wrong(column, error, builtin, message) -> None:
    with pytest.raises(error, match=message) as raised:
        LiquidLegions.from_vids(column)
    assert isinstance(raised.value, builtin)
    assert isinstance(raised.value, HaloError)


def test_columns_of_64_bits_are_not_copied() -> None:
    import tracemalloc

    vids = np.zeros(4_000_000, dtype=np.int64)
    tracemalloc.start()
    LiquidLegions.from_vids(vids)
    LiquidLegions.from_vids({"vid": vids})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < vids.nbytes / 10
    before = pa.total_allocated_bytes()
    table = pa.table({"vid": vids})
    LiquidLegions.from_vids(table)
    assert pa.total_allocated_bytes() == before
