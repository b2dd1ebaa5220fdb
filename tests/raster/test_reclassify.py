"""`reclassify` against NumPy entry by entry: ranges, single values, the rest; dtypes, nodata; tables that are none."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import UsageError
from lib.operations import Reclassify
from lib.raster.formats import environment
from lib.raster.operations import reclassify
from lib.request import raster_job
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RANDOM = np.random.default_rng(18)


def classes(shop: Workshop, source: Path, table: str, **choices: Any) -> tuple[np.ndarray, Any]:
    """Run it; the output's pixels and its nodata value."""
    shop.transform(source, operation=Reclassify(table=table), **choices)
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        return dataset.read(), dataset.nodata


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "float32", "float64"])
def test_ranges_are_half_open(dtype: str, shop: Workshop, write: Write) -> None:
    """From a value on up to below another; a single value; what no entry takes is nodata, and so is what was."""
    raw = RANDOM.integers(0, 100, (2, 131, 203)).astype(dtype)
    found, nodata = classes(shop, write(raw, nodata=3), "10:20=1,20:50=2,7=70,90:=5")
    expected = np.full(raw.shape, nodata)
    for low, high, value in ((10, 20, 1), (20, 50, 2), (7, 8, 70), (90, 1000, 5)):
        expected[(raw >= low) & (raw < high)] = value
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == (dtype if np.dtype(dtype).kind in "iu" else "uint8")
    assert nodata == 3


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_negative_and_fractional_ends(dtype: str, shop: Workshop, write: Write) -> None:
    """An open beginning, ends that no integer is, all other values; nodata that a class would take is another."""
    raw = RANDOM.integers(-300, 300, (1, 80, 90)).astype(dtype)
    table = ":-100.5=1,-100.5:0=2,0=0,*=9"
    found, nodata = classes(shop, write(raw, nodata=-300), table)
    expected = np.select([raw == -300, raw < -100.5, raw < 0, raw == 0], [nodata, 1, 2, 0], 9)
    np.testing.assert_array_equal(found, expected)
    assert nodata not in {0, 1, 2, 9}


@pytest.mark.parametrize(
    ("dtype", "table", "wanted", "nodata"),
    [
        ("uint8", "0:9=1,9:=300", "uint16", 7),  # 300 is none of uint8
        ("uint8", "0:9=-1,9:=1", "int8", 7),
        ("uint8", "0:9=7,9:=8", "uint8", 255),  # the source's nodata is a class
        ("uint8", "0:9=0.5,9:=1.5", "float32", None),
        ("uint8", "0:9=0.1,9:=1", "float64", None),
        ("int32", "0:9=7,9:=-2147483648", "int32", 2147483647),
    ],
)
def test_the_output_holds_every_class(
    dtype: str, table: str, wanted: str, nodata: float | None, shop: Workshop, write: Write
) -> None:
    """The source's own integers where they do; a nodata value that is no class."""
    raw = RANDOM.integers(0, 20, (1, 40, 40)).astype(dtype)
    found, declared = classes(shop, write(raw, nodata=7), table)
    assert found.dtype == wanted
    assert np.isnan(declared) if nodata is None else declared == nodata


def test_a_nodata_value_may_be_asked_for(shop: Workshop, write: Write) -> None:
    """It is what no entry takes; one that does not fit is an error."""
    path = write(RANDOM.integers(0, 20, (1, 40, 40)).astype("uint8"))
    found, nodata = classes(shop, path, "0:10=1", nodata=200)
    assert nodata == 200
    assert set(np.unique(found)) == {1, 200}
    with pytest.raises(UsageError, match=r"nodata 0\.5 does not fit into uint8"):
        classes(shop, path, "0:10=1", nodata=0.5)


def test_a_table_may_be_a_file(shop: Workshop, write: Write) -> None:
    """YAML, in which 10:50 is a range and no number of base 60; the job has its entries, not its name."""
    table = shop.folder / "classes.yaml"
    table.write_text("10:50: 5\n0:10: 1\n'*': 9\n")
    source = write(RANDOM.integers(0, 100, (1, 40, 40)).astype("uint8"))
    job = raster_job(str(source), str(shop.folder / "out.tif"), operation="reclassify", table=str(table))
    assert job.operation == Reclassify(table="10:50=5,0:10=1,*=9")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("- 1\n", "not keys and values"),
        ("1:2: [3]\n", "gives 1:2 no single value"),
        ("1:2: 3\n1:2: 4\n", "given twice"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_a_file_that_is_no_table_is_told(content: str | None, words: str, shop: Workshop, write: Write) -> None:
    """With its name, and what would be one."""
    table = shop.folder / "classes.yaml"
    if content is not None:
        table.write_text(content)
    source = write(np.zeros((1, 8, 8), "uint8"))
    with pytest.raises(UsageError, match=words) as caught:
        raster_job(str(source), str(shop.folder / "out.tif"), operation="reclassify", table=str(table))
    assert str(table) in caught.value.message


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("0:1000=1,500:2000=2", "entries 0:1000 and 500:2000 overlap"),
        ("0:10=1,5=2", "entries 0:10 and 5 overlap"),
        ("5=1,5=2", "entries 5 and 5 overlap"),
        ("10:0=1", "range 10:0 is empty"),
        ("0:10=x", "'x' in '0:10=x' is no number"),
        ("a:10=1", "'a' in 'a:10=1' is no number"),
        ("0:10=nan", "nan is no class"),
        ("=", "'' in '=' is no number"),
        ("0:10", "has no ="),
        (",=,", "is no number"),
    ],
)
def test_a_table_that_is_none_is_told(table: str, words: str) -> None:
    """By entry, with how one is written."""
    with pytest.raises(UsageError) as caught:
        reclassify.parse(table)
    assert words in caught.value.message
    assert "0:1000=1" in caught.value.hint


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=12, unique=True), st.data())
def test_a_table_of_ranges_is_a_step_function(ends: list[int], data: st.DataObject) -> None:
    """Any cut of the numbers into neighbouring ranges, in any order, gives NumPy's digitize."""
    ends = sorted(ends)
    entries = [f"{low}:{high}={i}" for i, (low, high) in enumerate(itertools.pairwise(ends))]
    parsed, rest = reclassify.parse(",".join(data.draw(st.permutations(entries))))
    assert rest is None
    value = data.draw(st.floats(-60, 60))
    taken = [entry.value for entry in parsed if entry.low <= value and entry.high is not None and value < entry.high]
    inside = ends[0] <= value < ends[-1]
    assert taken == ([np.digitize(value, ends) - 1] if inside else [])


def test_infinity_is_above_all_ranges_that_end(shop: Workshop, write: Write) -> None:
    """A range without an end has it, and so has what takes all others."""
    raw = np.array([[[-np.inf, 1, np.inf, np.nan, 7]]], "float32")
    found, nodata = classes(shop, write(raw), "0:5=1,*=9")
    assert found[0, 0].tolist() == [9, 1, 9, nodata, 9]
    assert classes(shop, write(raw), "0:5=1,5:=2")[0][0, 0].tolist() == [nodata, 1, 2, nodata, 2]
