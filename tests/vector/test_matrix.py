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
import pyogrio
import pytest
import shapely

from lib.errors import OutputError

SINKS = {"GeoPackage": "out.gpkg", "FlatGeobuf": "out.fgb"}
_ARROW = ("gpkg", "fgb")
_SOURCES = {
    "gpkg": "GPKG",
    "fgb": "FlatGeobuf",
    "shp": "ESRI Shapefile",
    "geojson": "GeoJSON",
    "geojsonl": "GeoJSONSeq",
}
_BOX = shapely.box(10, 50, 10.01, 50.01)
_KEPT = ("kept", "kept")
_DAY = dt.datetime(2020, 1, 2, 3, 4, 5, 678000)  # noqa: DTZ001 - the formats have such, too

# What: the sources that can carry it; an Arrow array, or shapes; what becomes of it in each sink.
FIELDS: dict[str, tuple[tuple[str, ...], Any, tuple[str, str]]] = {
    "booleans": (_ARROW, pa.array([True, None]), _KEPT),
    "integers of 16 bits": (_ARROW, pa.array([-7, None], pa.int16()), _KEPT),
    "integers of 32 bits": (tuple(_SOURCES), pa.array([2**31 - 1, None], pa.int32()), _KEPT),
    "integers of 64 bits": ((*_ARROW, "geojson", "geojsonl"), pa.array([2**53 + 1, None]), _KEPT),
    "floating point of 32 bits": (_ARROW, pa.array([0.1, None], pa.float32()), _KEPT),
    "floating point of 64 bits": (tuple(_SOURCES), pa.array([0.1, None]), _KEPT),
    "text, and its absence": (tuple(_SOURCES), pa.array(["Zürich", None]), _KEPT),
    "bytes": (_ARROW, pa.array([b"\x00\xff", None], pa.binary()), _KEPT),
    "dates": (("gpkg", "shp", "geojson", "geojsonl"), pa.array([dt.date(2020, 1, 2), None]), ("kept", "as date and time, said")),
    "dates with times": ((*_ARROW, "geojson", "geojsonl"), pa.array([_DAY, None], pa.timestamp("ms")), _KEPT),
    "dates with times in a zone": (
        (*_ARROW, "geojson", "geojsonl"), pa.array([_DAY, None], pa.timestamp("ms", "+05:30")), _KEPT,
    ),
    "JSON": (("gpkg",), "json", ("kept", "as text, said")),
    "lists": (("geojson", "geojsonl"), "lists", ("as text, said", "as text, said")),
}  # fmt: skip
SHAPES: dict[str, tuple[tuple[str, ...], str, list[Any], tuple[str, str]]] = {
    "Z": (tuple(_SOURCES), "Polygon Z", [shapely.force_3d(_BOX, 7)], _KEPT),
    "M": (("gpkg",), "Unknown", [shapely.from_wkt("LINESTRING M (10 50 1, 11 51 2)")], ("kept", "refused")),
    "Z in some features only": (("gpkg",), "Unknown", [_BOX, shapely.force_3d(_BOX, 7)], ("kept", "refused")),
    "several types of geometry": (
        ("gpkg", "fgb", "geojson", "geojsonl"), "Unknown", [_BOX, shapely.Point(10, 50), shapely.MultiPolygon([_BOX])], _KEPT,
    ),
    "polygons beside multipolygons of a Shapefile": (
        ("shp",), "Polygon", [_BOX, shapely.MultiPolygon([_BOX, shapely.box(11, 50, 11.1, 50.1)])],
        ("all multi, as declared", "all multi, as declared"),
    ),
    "features without a geometry": (("gpkg", "shp", "geojson", "geojsonl"), "Polygon", [_BOX, None], ("kept", "refused")),
}  # fmt: skip
LAYER: dict[str, tuple[str, str]] = {
    "feature ids of a GeoPackage": ("kept", "dropped, said"),
    "numbers that are ids in GeoJSON": ("dropped, said", "dropped, said"),
    "the layer's name, description, identifier, metadata": _KEPT,
    "the CRS, by code or as WKT": _KEPT,
    "coded value domains": ("codes kept, the domain dropped, said",) * 2,
    "fields whose names differ in case only": ("renamed, said", "renamed, said"),
    "text that is not UTF-8": ("decoded with --encoding, else refused",) * 2,
    "curves and surfaces": ("kept; refused with an area", "kept; refused with an area"),
}


def table() -> str:
    """The README's table."""
    lines = [f"| what | {' | '.join(SINKS)} |", "|---|---|---|"]
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
    done = run_job(path, SINKS[sink])
    cell = cells[list(SINKS).index(sink)]
    told = any("v (" in note for note in done.outcome.warnings)
    assert told == cell.endswith("said")
    if cell == "kept":
        assert _kind(done.output) == _kind(path)
        assert sorted(map(str, _values(done.output))) == sorted(map(str, _values(path)))
    else:
        first = next(each for each in _values(done.output) if each is not None)
        wanted = {"dates": "2020-01-02T00:00:00", "JSON": '{"a":1}', "lists": "[ 1, 2 ]"}[what]
        assert str(first).replace(" ", "").replace("/", "-").startswith(wanted.replace(" ", ""))


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
        with pytest.raises(OutputError, match="FlatGeobuf cannot hold"):
            run_job(path, SINKS[sink])
        return
    done = run_job(path, SINKS[sink])
    with warnings.catch_warnings(action="ignore"), pyogrio.raw.open_arrow(done.output, use_pyarrow=True) as (_, reader):
        batch = reader.read_all()
    at = [(each.metadata or {}).get(b"ARROW:extension:name") is not None for each in batch.schema].index(True)
    order = np.argsort(batch.column("v").to_numpy())
    found = [shapely.from_wkb(batch.column(at)[int(row)].as_py()) for row in order]
    for one, other in zip(found, shapes, strict=True):
        if other is None:
            assert one is None
        elif cell == "kept" and source != "shp":
            assert one.wkt == other.wkt
        else:
            assert one.geom_type == "MultiPolygon"
            assert one.equals(other)
            assert one.has_z == other.has_z


@pytest.mark.parametrize("sink", SINKS)
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
    info = pyogrio.read_info(done.output)
    assert info["layer_name"] == "lay"
    assert "Own" in info["crs"]
    assert says.items() <= info["layer_metadata"].items()
    told = any("feature ids are not kept" in note for note in done.outcome.warnings)
    assert told == (sink == "FlatGeobuf")


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
