"""What of a layer each format's output keeps: source format x sink x what a format can carry. The README shows `TABLE`.

Each row is made in every source format that can carry it, filtered into each sink, and looked at through pyogrio.
"""

import datetime as dt
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from lib.errors import DestinationError, OutputError
from lib.vector import reading

SINKS = {
    "GeoPackage": "out.gpkg",
    "FlatGeobuf": "out.fgb",
    "GeoParquet": "out.parquet",
    "GeoJSON": "out.geojson",
    "GeoJSONSeq": "out.geojsonl",
    "Shapefile": "out.shp",
}
# Those whose geometries come back vertex by vertex, in their order.
_EXACT = ("GeoPackage", "FlatGeobuf", "GeoParquet")
_ARROW = ("gpkg", "fgb")
_SOURCES = {
    "gpkg": "GPKG",
    "fgb": "FlatGeobuf",
    "shp": "ESRI Shapefile",
    "geojson": "GeoJSON",
    "geojsonl": "GeoJSONSeq",
}
_BOX = shapely.box(10, 50, 10.01, 50.01)
_KEPT = ("kept",) * 6
_TEXT = "as text, said"
_DAY = dt.datetime(2020, 1, 2, 3, 4, 5, 678000)  # noqa: DTZ001 - the formats have such, too

# What: the sources that can carry it; an Arrow array, or shapes; what becomes of it in each sink.
FIELDS: dict[str, tuple[tuple[str, ...], Any, tuple[str, ...]]] = {
    "booleans": (_ARROW, pa.array([True, None]), _KEPT),
    "integers of 16 bits": (_ARROW, pa.array([-7, None], pa.int16()), (*_KEPT[:3], *["as 32 bits, said"] * 3)),
    "integers of 32 bits": (
        tuple(_SOURCES), pa.array([2**31 - 1, None], pa.int32()), (*_KEPT[:5], "kept, read as 64 bits"),
    ),
    "integers of 64 bits": ((*_ARROW, "geojson", "geojsonl"), pa.array([2**53 + 1, None]), _KEPT),
    "floating point of 32 bits": (_ARROW, pa.array([0.5, None], pa.float32()), (*_KEPT[:3], *["as 64 bits, said"] * 3)),
    "floating point of 64 bits": (tuple(_SOURCES), pa.array([0.1, None]), _KEPT),
    "text, and its absence": (tuple(_SOURCES), pa.array(["Zürich", None]), _KEPT),
    "bytes": (_ARROW, pa.array([b"\x00\xff", None], pa.binary()), (*_KEPT[:3], *["refused; --cast as text"] * 3)),
    "dates": (
        ("gpkg", "shp", "geojson", "geojsonl"), pa.array([dt.date(2020, 1, 2), None]),
        ("kept", "as date and time, said", *_KEPT[:4]),
    ),
    "dates with times": (
        (*_ARROW, "geojson", "geojsonl"), pa.array([_DAY, None], pa.timestamp("ms")), (*_KEPT[:5], _TEXT),
    ),
    "dates with times in a zone": (
        (*_ARROW, "geojson", "geojsonl"), pa.array([_DAY, None], pa.timestamp("ms", "+05:30")),
        (*_KEPT[:2], "as UTC, said", *_KEPT[:2], _TEXT),
    ),
    "JSON": (("gpkg",), "json", ("kept", _TEXT, *_KEPT[:3], _TEXT)),
    "lists": (("geojson", "geojsonl"), "lists", (_TEXT, _TEXT, *_KEPT[:3], _TEXT)),
}  # fmt: skip
# How a value begins where it is not kept as it is.
_BECOMES = {
    "integers of 16 bits": "-7", "integers of 32 bits": "2147483647", "floating point of 32 bits": "0.5",
    "dates": "2020-01-02T00:00:00", "dates with times": "2020-01-02T03:04:05.678",
    "dates with times in a zone": "2020-01-02T08:34:05.678+05:30", "JSON": '{"a":1}', "lists": "[1,2]",
}  # fmt: skip
SHAPES: dict[str, tuple[tuple[str, ...], str, list[Any], tuple[str, ...]]] = {
    "Z": (tuple(_SOURCES), "Polygon Z", [shapely.force_3d(_BOX, 7)], _KEPT),
    "M": (("gpkg",), "Unknown", [shapely.from_wkt("LINESTRING M (10 50 1, 11 51 2)")], ("kept", *["refused"] * 5)),
    "Z in some features only": (
        ("gpkg",), "Unknown", [_BOX, shapely.force_3d(_BOX, 7)], ("kept", "refused", *_KEPT[:3], "refused"),
    ),
    "several types of geometry": (
        ("gpkg", "fgb", "geojson", "geojsonl"), "Unknown", [_BOX, shapely.Point(10, 50), shapely.MultiPolygon([_BOX])],
        (*_KEPT[:5], "refused"),
    ),
    "other types than the layer declares": (
        ("gpkg",), "Polygon", [_BOX, shapely.Point(10, 50)], (*_KEPT[:5], "refused"),
    ),
    "multipolygons in a layer of polygons": (
        ("gpkg",), "Polygon", [_BOX, shapely.MultiPolygon([_BOX, shapely.box(11, 50, 11.1, 50.1)])],
        ("kept", "all multi", *_KEPT[:4]),
    ),
    "polygons beside multipolygons of a Shapefile": (
        ("shp",), "Polygon", [_BOX, shapely.MultiPolygon([_BOX, shapely.box(11, 50, 11.1, 50.1)])],
        (*["all multi, as declared"] * 5, "kept"),
    ),
    "single polygons in a layer of multipolygons": (
        ("gpkg",), "MultiPolygon", [_BOX, shapely.MultiPolygon([_BOX])], ("kept", "all multi, as declared", *_KEPT[:4]),
    ),
    "features without a geometry": (
        ("gpkg", "shp", "geojson", "geojsonl"), "Polygon", [_BOX, None], ("kept", "refused", *_KEPT[:4]),
    ),
}  # fmt: skip
_DROPPED, _SAID = "dropped, said", "codes kept, the domain dropped, said"
LAYER: dict[str, tuple[str, ...]] = {
    "feature ids of a GeoPackage": ("kept", *[_DROPPED] * 5),
    "numbers that are ids in GeoJSON": (_DROPPED,) * 6,
    "the layer's name": ("kept", "kept", "the file's", "kept", "the file's", "the file's"),
    "its description, identifier, metadata": (*_KEPT[:3], _DROPPED, _DROPPED, _DROPPED),
    "the job that made it": (*_KEPT[:4], "dropped", "dropped"),
    "the CRS, by code or as WKT": (*_KEPT[:3], *["WGS 84, others refused"] * 2, "as ESRI words it"),
    "coordinates": (*_KEPT[:3], *["nine decimals, said"] * 2, "kept"),
    "coded value domains": (_SAID,) * 6,
    "fields whose names differ in case only": (*["renamed, said"] * 5, "cut to ten bytes, renamed, said"),
    "text that is not UTF-8": ("decoded with --encoding, else refused",) * 6,
    "text that is JSON": (*_KEPT[:4], "as JSON, said", "kept"),
    "curves": ("chords, said",) * 6,
    "surfaces": (*["kept; refused with an area"] * 2, *["refused"] * 4),
}


def table() -> str:
    """The README's table."""
    lines = [f"| what | {' | '.join(SINKS)} |", "|---" * (1 + len(SINKS)) + "|"]
    rows = {name: each[-1] for name, each in (FIELDS | SHAPES).items()} | LAYER
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def test_the_readme_has_the_table() -> None:
    """Between its two marks the README has what `table` makes: paste that where this fails."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(
        r"<!-- what layers keep: .*? -->\n\n(.*?)\n\n<!-- end of what layers keep -->", readme, re.DOTALL
    )
    assert found == table()


def _write(path: Path, kind: str, shapes: list[Any], geometry_type: str, value: Any = None) -> Path:
    """A layer in one of the formats; `value` is its field `v`."""
    wkb = pa.array([None if each is None else shapely.to_wkb(each, flavor="iso") for each in shapes], pa.binary())
    field = pa.field("g", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
    columns, fields = [wkb], [field]
    if value is not None:
        meta = {"ARROW:extension:name": "arrow.json"} if value == "json" else None
        array = pa.array(['{"a":1}', None]) if isinstance(value, str) else value
        columns, fields = [array, wkb], [pa.field("v", array.type, metadata=meta), field]
    with warnings.catch_warnings(action="ignore"):
        pyogrio.raw.write_arrow(
            pa.table(columns, schema=pa.schema(fields)), path, driver=_SOURCES[kind], geometry_name="g",
            geometry_type=geometry_type, crs="EPSG:4326", layer="lay" if kind in _ARROW else None,
        )  # fmt: skip
    return path


def _values(path: Path, name: str = "v") -> list[Any]:
    """A field's values by pyogrio's other reader than ours, texts of dates among them."""
    with warnings.catch_warnings(action="ignore"):
        meta, _, _, values = pyogrio.raw.read(path, datetime_as_string=True)
    (found,) = (each for field, each in zip(meta["fields"], values, strict=True) if field == name)
    return [None if str(value) in ("None", "nan", "NaT") else value for value in found.tolist()]


def _kind(path: Path) -> tuple[str, str]:
    info = pyogrio.read_info(path)
    at = list(info["fields"]).index("v")
    return info["ogr_types"][at], info["ogr_subtypes"][at]


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize(
    ("what", "source"), [(what, source) for what, (sources, _, _) in FIELDS.items() for source in sources]
)
def test_fields(what: str, source: str, sink: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Types and values come out as they are, or as the table says, with a warning that names the field."""
    _, value, cells = FIELDS[what]
    path = tmp_path / f"s.{source}"
    if isinstance(value, str) and value == "lists":
        feature = {"type": "Feature", "properties": {"v": [1, 2]}, "geometry": shapely.geometry.mapping(_BOX)}
        path.write_text(json.dumps(feature) + "\n")
    else:
        _write(path, source, [_BOX, _BOX], "Polygon", value)
    cell = cells[list(SINKS).index(sink)]
    if cell.startswith("refused"):
        with pytest.raises(DestinationError, match=r"field 'v' is Binary, which .* cannot hold") as caught:
            run_job(path, SINKS[sink])
        assert "--cast v=string" in caught.value.hint
        assert _values(run_job(path, SINKS[sink], cast="v=string").output) == ["00FF", None]
        return
    done = run_job(path, SINKS[sink])
    told = any("v (" in note or "become UTC: v" in note for note in done.outcome.warnings)
    assert told == (cell.endswith("said") or (sink == "GeoParquet" and what == "dates with times"))
    assert all(check.passed for check in done.outcome.checks), done.outcome.checks
    if sink == "GeoParquet":
        _check_parquet(done.output, value)
    elif cell == "kept":
        kinds = [_kind(each) for each in (done.output, path)]
        assert kinds[0] == kinds[1] or (
            "JSON" in sink and {kind for kind, _ in kinds} == {"OFTInteger", "OFTInteger64"}
        )
        values = [sorted(str(value).replace(" ", "") for value in _values(each)) for each in (done.output, path)]
        assert values[0] == values[1]
    else:
        first = next(each for each in _values(done.output) if each is not None)
        assert str(first).replace(" ", "").replace("/", "-").startswith(_BECOMES[what])


def _check_parquet(path: Path, value: Any) -> None:
    """A field has its values, and its type as far as the source has it."""
    found = pq.read_table(path)["v"]
    if isinstance(value, str):
        wanted = {"json": ['{"a":1}', None], "lists": [[1, 2]]}[value]
        assert found.to_pylist() == wanted
        return
    assert sorted(map(str, found.to_pylist())) == sorted(
        map(str, (value.cast(found.type) if pa.types.is_timestamp(value.type) else value).to_pylist())
    )
    alike = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_date, pa.types.is_timestamp)
    assert [is_of(found.type) for is_of in alike] == [is_of(value.type) for is_of in alike]
    assert found.type == value.type or pa.types.is_integer(value.type) or pa.types.is_timestamp(value.type)


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize(
    ("what", "source"), [(what, source) for what, (sources, *_) in SHAPES.items() for source in sources]
)
def test_geometries(what: str, source: str, sink: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Geometries come out with their ordinates, types and nulls, or are refused in one line."""
    _, declared, shapes, cells = SHAPES[what]
    path = _write(tmp_path / f"s.{source}", source, shapes, declared, pa.array(range(len(shapes))))
    cell = cells[list(SINKS).index(sink)]
    if cell == "refused":
        with pytest.raises(OutputError, match=r"cannot hold|holds one"):
            run_job(path, SINKS[sink])
        return
    done = run_job(path, SINKS[sink])
    assert all(check.passed for check in done.outcome.checks), done.outcome.checks
    if sink == "GeoParquet":
        batch = pq.read_table(done.output)
        at = batch.schema.names.index(json.loads(pq.read_metadata(done.output).metadata[b"geo"])["primary_column"])
    else:
        with (
            warnings.catch_warnings(action="ignore"),
            pyogrio.raw.open_arrow(done.output, use_pyarrow=True) as (_, reader),
        ):
            batch = reader.read_all()
        at = [(each.metadata or {}).get(b"ARROW:extension:name") is not None for each in batch.schema].index(True)
    order = np.argsort(batch.column("v").to_numpy())
    found = [shapely.from_wkb(batch.column(at)[int(row)].as_py()) for row in order]
    for one, other in zip(found, shapes, strict=True):
        if other is None:
            assert one is None
        elif cell == "kept" and source != "shp" and sink in _EXACT:
            assert one.wkt == other.wkt
        else:
            assert one.geom_type == "MultiPolygon" or cell == "kept" or source == "shp"
            assert one.equals(other)
            assert one.has_z == other.has_z


@pytest.mark.parametrize("sink", [sink for sink in SINKS if "JSON" not in sink])
def test_ids_and_what_a_layer_says_of_itself(sink: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Feature ids of a GeoPackage stay in one; name, description, identifier, metadata and CRS stay in both."""
    path = tmp_path / "s.gpkg"
    crs = 'PROJCRS["Own",BASEGEOGCRS["WGS 84",DATUM["World Geodetic System 1984",ELLIPSOID["WGS 84",6378137,298.257223563]]],CONVERSION["own",METHOD["Transverse Mercator"],PARAMETER["Longitude of natural origin",11.25,ANGLEUNIT["degree",0.0174532925199433]],PARAMETER["Scale factor at natural origin",1]],CS[Cartesian,2],AXIS["easting",east],AXIS["northing",north],LENGTHUNIT["metre",1]]'  # noqa: E501
    says = {"IDENTIFIER": "cadastre", "DESCRIPTION": "of the valley", "SCALE": "1:500"}
    with warnings.catch_warnings(action="ignore"):
        pyogrio.raw.write(
            path, np.array([shapely.to_wkb(_BOX)] * 3, object), [np.array([1, 2, 3])], ["n"], layer="lay", driver="GPKG",
            geometry_type="Polygon", crs=crs, layer_metadata=says,
        )  # fmt: skip
    done = run_job(path, SINKS[sink])
    info = reading.read_info(str(done.output))
    assert info["layer_name"] == ("lay" if LAYER["the layer's name"][list(SINKS).index(sink)] == "kept" else "out")
    assert "Own" in info["crs"]
    told = any("what the layer says of itself is not kept" in note for note in done.outcome.warnings)
    assert told == (sink == "Shapefile")
    assert told or says.items() <= info["layer_metadata"].items()
    told = any("feature ids are not kept" in note for note in done.outcome.warnings)
    assert told == (sink != "GeoPackage")


@pytest.mark.parametrize("order", ["type first", "id first"])
def test_numbers_of_geojson_features_are_told_of(order: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """An id beside the properties is lost and said; one among the properties is a field."""
    feature: dict[str, Any] = {"type": "Feature", "id": 17}
    if order == "id first":
        feature = {"id": 17, "type": "Feature"}
    feature |= {"properties": {"id": 5}, "geometry": shapely.geometry.mapping(_BOX)}
    (tmp_path / "s.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    done = run_job(tmp_path / "s.geojson")
    assert any("feature ids are not kept" in note for note in done.outcome.warnings)
    del feature["id"]
    (tmp_path / "t.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert not run_job(tmp_path / "t.geojson", "other.gpkg").outcome.warnings
