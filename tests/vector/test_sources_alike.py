"""The same filter through every driver, out of archives and from a server: the same rows, and nothing beside the source."""

import contextlib
import ctypes
import gzip
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio._ogr
import pytest
import shapely
from conftest_vector import geod_areas, make_job, verified_again
from every_format import FORMATS, frame, names_in, of_csv, written, zipped

from tests.range_server import serving

_BOX = (-98.5, 37.2, -96.4, 39.8)
_LEAST_SQM = 8000.0
_WHERE = "label <> 'Straße 3' AND label >= 'Straße 1'"
_ZIPPED = ("gpkg", "shp", "gdb", "geojson", "parquet", "fgb")


def _wanted() -> geopandas.GeoDataFrame:
    """The rows by geopandas and pyproj on the frame as it was."""
    whole = frame()
    kept = (whole["label"] != "Straße 3") & (whole["label"] >= "Straße 1")
    kept &= whole.intersects(shapely.box(*_BOX)) & (geod_areas(whole) >= _LEAST_SQM)
    assert 20 < kept.sum() < 0.7 * len(whole)
    return whole[kept]


@contextlib.contextmanager
def _named(form: str, folder: Path) -> Iterator[str]:
    """A source: a format's suffix; `zip`, `gz`, `tar` or `http` of one."""
    kind, _, suffix = form.rpartition(" ")
    path = written(folder, suffix)
    if kind == "zip":
        yield str(zipped(path))
    elif kind == "gz":
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        yield f"{path}.gz"
    elif kind == "tar":
        with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
            archive.add(path, f"in/{path.name}")
        yield f"{folder}/a.tar.gz"
    elif kind == "http":
        with serving(folder) as served:
            yield f"{served.url}/{path.name}"
    else:
        yield str(path)


_FORMS = [
    *FORMATS,
    *(f"zip {suffix}" for suffix in _ZIPPED),
    *(f"gz {suffix}" for suffix in ("geojson", "csv", "gml")),
    "tar gpkg",
    *(f"http {suffix}" for suffix in ("gpkg", "fgb", "shp", "parquet")),
]


@pytest.mark.parametrize("form", _FORMS)
def test_the_same_filter_gives_the_same_rows(form: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Those that geopandas keeps of the whole frame, with their geometries; the output verifies against the source."""
    folder = tmp_path / "source"
    folder.mkdir()
    with _named(form, folder) as source:
        before = names_in(folder)
        choices = {"where": _WHERE, "bbox": _BOX, "min_area_sqm": _LEAST_SQM, **of_csv(form)}
        done = run_job(source, chunk_rows=16, **choices)
        checks = verified_again(
            Path(source) if "://" not in source else source, done, make_job(source, done.output, **choices)
        )
        assert names_in(folder) == before
    assert all(checks.values()), checks
    assert checks["membership"]
    found, wanted = geopandas.read_file(done.output), _wanted()
    order = np.argsort(found["n"].astype(int))
    assert found["n"].astype(int).iloc[order].tolist() == wanted["n"].tolist()
    assert found["label"].iloc[order].tolist() == wanted["label"].tolist()
    assert found["value"].astype(float).iloc[order].tolist() == wanted["value"].tolist()
    polygons, due = (  # of one part each, which a KML writes as such
        shapely.get_geometry(shapely.normalize(shapely.force_2d(each.to_numpy())), 0)
        for each in (found.geometry.iloc[order], wanted.geometry)
    )
    assert shapely.equals_exact(polygons, due, 1e-9).all()
    result = done.outcome.result
    assert result["features_read"] == len(frame())
    assert result["features_kept"] + sum(result["features_dropped"].values()) == len(frame())


_LIBRARY = ctypes.CDLL(pyogrio._ogr.__file__)


def _has_batches_of_its_own(path: Path) -> bool:
    """Whether OGR says so of a layer's driver."""
    _LIBRARY.GDALOpenEx.restype = _LIBRARY.GDALDatasetGetLayer.restype = ctypes.c_void_p
    dataset = ctypes.c_void_p(_LIBRARY.GDALOpenEx(str(path).encode(), 4, None, None, None))
    layer = ctypes.c_void_p(_LIBRARY.GDALDatasetGetLayer(dataset, 0))
    found = _LIBRARY.OGR_L_TestCapability(layer, b"FastGetArrowStream")
    _LIBRARY.GDALClose(dataset)
    return bool(found)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_plan_says_by_which_way_rows_come(suffix: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """The driver's own Arrow batches where OGR says that it has such, else one feature after the other."""
    path = written(tmp_path, suffix)
    plan = run_job(path, **of_csv(path)).plan
    is_arrow = plan.facts["read_by"].startswith("Arrow")
    assert is_arrow == (suffix == "parquet" or _has_batches_of_its_own(path))
    assert is_arrow or plan.facts["read_by"].startswith("one feature after the other")
    assert plan.facts["features"] == len(frame())


@pytest.mark.parametrize("name", ["a.kmz", "a.shz"])
def test_archives_that_are_formats(name: str, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A .kmz and a .shz by their own names."""
    path = tmp_path / name
    pyogrio.write_dataframe(frame(), path, driver="LIBKML" if name.endswith("kmz") else "ESRI Shapefile", layer="a")
    assert run_job(path).outcome.result["features_kept"] == len(frame())


def test_points_of_a_csv(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Columns of coordinates are points where a .csvt says so; else a note says how."""
    path = tmp_path / "p.csv"
    path.write_text("n,lon,lat\na,-98.5,38.5\nb,-97,39.5\n")
    assert any(".csvt" in note for note in run_job(path).outcome.warnings)
    path.with_suffix(".csvt").write_text("String,CoordX,CoordY")
    done = run_job(path, "points.gpkg", bbox=(-99, 38, -98, 39), assume_crs="EPSG:4326")
    found = geopandas.read_file(done.output)
    assert (found["n"].tolist(), found.geometry.to_wkt().tolist()) == (["a"], ["POINT (-98.5 38.5)"])
    assert not done.outcome.warnings[1:]


def test_a_gml_whose_layers_are_mixed(run_job: Callable[..., Any], tmp_path: Path) -> None:
    """Each layer is read whole, whatever a .gfs beside it says of their order, and nothing is written beside it."""
    member = (
        '<gml:featureMember><ogr:{0} fid="{0}.{1}"><ogr:geometryProperty><gml:Point srsName="EPSG:4326">'
        "<gml:coordinates>{1},2</gml:coordinates></gml:Point></ogr:geometryProperty><ogr:n>{1}</ogr:n></ogr:{0}>"
        "</gml:featureMember>"
    )
    members = "".join(member.format(layer, n) for n in range(40) for layer in "pq")
    path = tmp_path / "m.gml"
    path.write_text(
        '<ogr:FeatureCollection xmlns:ogr="http://ogr.maptools.org/" xmlns:gml="http://www.opengis.net/gml">'
        f"{members}</ogr:FeatureCollection>"
    )
    for layer in "pq":
        assert run_job(path, f"{layer}.gpkg", layer=layer, chunk_rows=8).outcome.result["features_kept"] == 40
    assert names_in(tmp_path) - {"staged/p.gpkg", "staged/q.gpkg"} == {"m.gml"}
    pyogrio.read_info(path, layer="q")  # as another program would
    gfs = path.with_suffix(".gfs")
    gfs.write_text(
        gfs.read_text().replace(
            "<GMLFeatureClassList>", "<GMLFeatureClassList>\n<SequentialLayers>false</SequentialLayers>"
        )
    )
    assert run_job(path, "again.gpkg", layer="q", chunk_rows=8).outcome.result["features_kept"] == 40
