"""Fields of another type: each value exactly, or its row is bad; what cannot be made of a field is said beforehand."""

import datetime as dt
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from conftest_vector import make_job, prepared, verified_again
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lib.errors import DataError, UsageError
from lib.jobs import CASTS
from lib.vector.casts import OGR_TYPES, caster, kind_of
from lib.vector.steps.cast import _ARROW

_DAY = dt.datetime(2020, 1, 2, 3, 4, 5, 678000)  # noqa: DTZ001 - the formats have such, too
# A value, the type it is cast to, and what it becomes; None where it does not fit.
_VALUES: list[tuple[Any, str, Any]] = [
    ("12", "integer", 12), (" -7 ", "integer64", -7), ("1_000", "integer", None), ("1.0", "integer", None),
    ("", "integer", None), (2.0, "integer", 2), (2.5, "integer", None), (2**31, "integer", None), (2**31, "integer64", 2**31),
    (2.0**63, "integer64", None), (math.nan, "integer", None), (math.inf, "integer64", None), (True, "integer", 1),
    ("1.5e3", "real", 1500.0), ("nan", "real", None), ("inf", "real", None), ("1_0", "real", None), (2**53 + 1, "real", None),
    ("9007199254740993", "real", None), (7, "real", 7.0), ("x", "real", None),
    ("True", "boolean", True), ("f", "boolean", False), (1, "boolean", True), (2, "boolean", None), ("yes", "boolean", None),
    (True, "string", "true"), (2**53 + 1, "string", "9007199254740993"), (0.1, "string", "0.1"), (2.0, "string", "2"),
    (b"\x00\xff", "string", "00FF"), (dt.date(2020, 1, 2), "string", "2020-01-02"), ([1, 2], "string", "[1,2]"),
    ('{"a":1}', "json", '{"a":1}'), ("{a:1}", "json", None), ("NaN", "json", None), ([1, None], "json", "[1,null]"),
    ("2020-01-02", "date", dt.date(2020, 1, 2)), ("2020/01/02", "date", dt.date(2020, 1, 2)), ("2020-02-30", "date", None),
    ("2020-01-02T00:00:00", "date", dt.date(2020, 1, 2)), ("2020-01-02T03:00:00", "date", None), (_DAY, "date", None),
    ("2020-01-02T00:00:00Z", "date", None), ("03:04:05", "time", dt.time(3, 4, 5)), ("25:00", "time", None),
    ("2020-01-02T03:04:05.678+05:30", "datetime", "2020-01-02T03:04:05.678+05:30"), (_DAY, "datetime", "2020-01-02T03:04:05.678"),
    (dt.date(2020, 1, 2), "datetime", "2020-01-02T00:00:00"), ("2020-01-02T03:04:05.000001", "datetime", None),
    ("00ff", "binary", b"\x00\xff"), ("0", "binary", None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "wanted", "found"), _VALUES)
def test_a_value_is_kept_exactly_or_does_not_fit(value: Any, wanted: str, found: Any) -> None:
    """Nothing is rounded, cut or nulled."""
    if found is None:
        with pytest.raises((ValueError, OverflowError)):
            caster(wanted)(value)
        return
    assert caster(wanted)(value) == found
    pa.array([found], _ARROW[wanted])


@given(
    st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.booleans()),
    st.sampled_from(["integer", "integer64", "real"]),
)
def test_numbers_stay_the_same(value: float, wanted: str) -> None:
    """What fits is equal to what it was, and by way of text, too."""
    try:
        found = caster(wanted)(value)
    except (ValueError, OverflowError):
        return
    assert found == value or math.isnan(value)
    if not isinstance(value, bool) and abs(value) < 1e16:
        assert caster(wanted)(caster("string")(value)) == found


def _layer(path: Path, **columns: Any) -> Path:
    rows = len(next(iter(columns.values())))
    wkb = pa.array([shapely.to_wkb(shapely.box(0, 0, 1 + n, 1)) for n in range(rows)], pa.binary())
    pyogrio.raw.write_arrow(
        pa.table(columns | {"g": wkb}), path, driver="GPKG", geometry_name="g", geometry_type="Polygon", crs="EPSG:32633",
        layer="s",
    )  # fmt: skip
    return path


_TEXTS = ["1", "22", None, "x", "333"]


@pytest.mark.parametrize("output", ["out.gpkg", "out.fgb", "out.parquet", "out.geojsonl", "out.shp"])
def test_types_and_values_in_each_output(output: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """The field has its type; a value that does not fit is an error with its row, or its row is skipped; the rest is verified."""
    source = _layer(tmp_path / "a.gpkg", t=pa.array(_TEXTS), k=pa.array([1, 2, 3, 4, 5]))
    more = {"to_crs": "EPSG:4326"} if output.endswith("geojsonl") else {}
    with pytest.raises(DataError, match=r"a.gpkg: row 4 .*'x' of field 't' is no integer64") as caught:
        run_job(source, output, cast="t=integer64", min_area_sqm=1.5, **more)
    assert caught.value.exit_code == 1
    with pytest.raises(DataError, match=r"the feature of id 4: 'x' of field 't'"):  # the driver gives some rows only
        run_job(source, output, cast="t=integer64", where="k > 1", **more)
    done = run_job(source, output, cast="t=integer64", skip_bad=True, **more)
    assert done.outcome.result["features_bad"] == 1
    assert done.outcome.result["bad_rows"][0] | {"reason": ""} == {"row": 4, "fid": 4, "reason": ""}
    assert done.outcome.result["features_dropped"]["cast"] == 0
    if output.endswith("parquet"):
        assert pq.read_table(done.output)["t"].to_pylist() == [1, 22, None, 333]
    else:
        assert pyogrio.read_info(done.output)["ogr_types"][0] in ("OFTInteger64", "OFTInteger")
        frame = geopandas.read_file(done.output).sort_values("k")
        assert [None if math.isnan(each) else each for each in frame["t"]] == [1, 22, None, 333]
    work = make_job(source, done.output, cast="t=integer64", skip_bad=True, **more)
    checks = verified_again(source, done, work)
    assert all(checks.values()), checks
    assert checks["membership"]


@pytest.mark.parametrize("wanted", CASTS)
def test_every_type_of_the_list(wanted: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """From a text into a GeoPackage each comes out with OGR's type of that name, its null a null."""
    text = {
        "boolean": "true", "string": "a", "json": "[1]", "date": "2020-01-02", "time": "01:02:03", "binary": "00FF",
        "datetime": "2020-01-02T03:04:05.678Z",
    }.get(wanted, "12")  # fmt: skip
    source = _layer(tmp_path / "a.gpkg", t=pa.array([text, None]), u=pa.array([text, "b"]))
    done = run_job(source, cast=f"t={wanted}", select="u,t")
    info = pyogrio.read_info(done.output)
    found = f"{info['ogr_types'][1]}:{info['ogr_subtypes'][1]}".removesuffix(":OFSTNone")
    assert kind_of(found) == ("string" if wanted == "time" else wanted)  # a GeoPackage has no times
    assert all(check.passed for check in done.outcome.checks), done.outcome.checks
    assert geopandas.read_file(done.output)["t"].isna().tolist() == [False, True]
    assert kind_of(OGR_TYPES[wanted]) == wanted


@pytest.mark.parametrize(
    ("cast", "words"),
    [("tt=integer", "no field 'tt'"), ("b=integer", "is Binary, of which no integer"), ("n=date", "of which no date")],
)
def test_what_cannot_be_is_said_beforehand(cast: str, words: str, tmp_path: Path) -> None:
    """A field that is not there, with the nearest; a type that nothing of that kind can become."""
    source = _layer(tmp_path / "a.gpkg", t=pa.array(["a"]), b=pa.array([b"a"]), n=pa.array([1]))
    with pytest.raises(UsageError, match=words) as caught:
        prepared(make_job(source, tmp_path / "out.gpkg", cast=cast))
    assert caught.value.exit_code == 2
    assert "did you mean t?" in caught.value.hint or "string" in caught.value.hint


@pytest.mark.parametrize("cast", ["t", "t=int", "=integer", "t=integer,t=real"])
def test_what_is_no_pair_is_bad_usage(cast: str) -> None:
    """Pairs of a field and one of the types, each field once; a name with a comma is quoted."""
    with pytest.raises(ValidationError, match=r"FIELD=TYPE|cast twice"):
        make_job(Path("a.gpkg"), Path("out.gpkg"), cast=cast)
    job = make_job(Path("a.gpkg"), Path("out.gpkg"), cast='"a,b=integer",c=d=string')
    assert job.cast == ("a,b=integer", "c=d=string")


def test_verification_sees_another_value(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """One that was cast to something else than it says is missed in the output."""
    source = _layer(tmp_path / "a.gpkg", t=pa.array(["1", "22", "333"]))
    done = run_job(source, cast="t=integer64")
    database = sqlite3.connect(done.output)
    for (statement,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f'DROP TRIGGER "{statement}"')
    database.execute("UPDATE s SET t = 23 WHERE t = 22")
    database.commit()
    database.close()
    checks = verified_again(source, done, make_job(source, done.output, cast="t=integer64"))
    assert not checks["membership"]
