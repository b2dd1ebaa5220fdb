"""Steps that make other geometries: repair, simplify, centroid; against shapely, and measures on the ground."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from conftest_vector import Done, make_job, parcels, prepared, solid, verified_again
from pyproj import Geod

from lib.errors import DataError, SourceError

Run = Callable[..., Done]
_BOW_TIE = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
_OVERLAP = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(1, 0, 3, 2)])
_SPIKE = shapely.Polygon([(0, 0), (4, 0), (4, 4), (4, 9), (4, 4), (0, 4)])


def _layer(folder: Path, shapes: list[Any], crs: str = "EPSG:32633", **options: Any) -> Path:
    frame = geopandas.GeoDataFrame({"n": range(len(shapes))}, geometry=shapes, crs=crs)
    pyogrio.write_dataframe(frame, folder / "a.gpkg", **options)
    return folder / "a.gpkg"


def _verifies(source: Path, done: Done, **choices: Any) -> bool:
    checks = verified_again(source, done, make_job(source, done.output, **choices))
    return "membership" in checks and all(checks.values())


def test_invalid_polygons_are_repaired_and_counted(run_job: Run, tmp_path: Path) -> None:
    """They stay polygonal and lose no area to overlaps; valid ones are as they were; what is left of nothing is empty."""
    flat = shapely.Polygon([(0, 0), (5, 5), (0, 0)])
    source = _layer(
        tmp_path, [_BOW_TIE, shapely.box(0, 0, 1, 1), _OVERLAP, None, _SPIKE, flat], geometry_type="Unknown"
    )
    done = run_job(source, repair=True)
    found = geopandas.read_file(done.output).geometry
    assert found.is_valid[~found.isna()].all()
    assert list(found.area.fillna(0).round(9)) == [2, 1, 6, 0, 16, 0]
    assert set(found.dropna().geom_type) <= {"Polygon", "MultiPolygon"}
    assert (done.outcome.result["features_repaired"], done.outcome.result["repaired_to_empty"]) == (4, 1)
    assert "1 features were empty when repaired" in " ".join(done.outcome.warnings)
    assert _verifies(source, done, repair=True)


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
def test_repaired_layers_of_one_type_are_multi(name: str, run_job: Run, tmp_path: Path) -> None:
    """A bow tie becomes two triangles, which a layer of polygons does not hold."""
    source = _layer(tmp_path, [_BOW_TIE, shapely.box(0, 0, 1, 1)])
    done = run_job(source, name, repair=True)
    assert pyogrio.read_info(done.output)["geometry_type"] == "MultiPolygon"
    assert set(geopandas.read_file(done.output).geom_type) == {"MultiPolygon"}
    assert _verifies(source, done, repair=True)


def test_lines_stay_lines(run_job: Run, tmp_path: Path) -> None:
    """One that is a point has no length left: it is empty."""
    lines = [shapely.LineString([(1, 1), (1, 1)]), shapely.LineString([(0, 0), (1, 1)])]
    done = run_job(_layer(tmp_path, lines, geometry_type="Unknown"), repair=True)
    found = geopandas.read_file(done.output).geometry
    assert [shape is None or shape.is_empty for shape in found] == [True, False]
    assert done.outcome.result["repaired_to_empty"] == 1


def test_areas_are_those_of_repaired_geometries(run_job: Run, tmp_path: Path) -> None:
    """A field of areas comes behind the repair."""
    done = run_job(_layer(tmp_path, [_BOW_TIE]), repair=True, add_area="sqm", area="planar")
    assert list(geopandas.read_file(done.output).sqm) == [2]


@pytest.mark.parametrize("choices", [{"repair": True}, {"simplify": 1.0}])
def test_m_is_not_lost(choices: dict[str, Any], run_job: Run, tmp_path: Path) -> None:
    """Where GEOS would drop it, the row is named."""
    shape = shapely.from_wkt("POLYGON M ((0 0 1, 2 2 1, 2 0 1, 0 2 1, 0 0 1))")
    frame = {"wkb": shapely.to_wkb([shape], flavor="iso")}
    pyogrio.raw.write(
        tmp_path / "a.gpkg", frame["wkb"], [np.array([1])], ["n"], geometry_type="Unknown", crs="EPSG:32633",
        driver="GPKG", layer="a",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"row 1 is .*: its M values would be lost"):
        run_job(tmp_path / "a.gpkg", **choices)


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb"])
def test_centroids_are_shapely_s(name: str, run_job: Run, tmp_path: Path) -> None:
    """In a layer of points, in another CRS afterwards if that is asked for."""
    frame = solid(parcels(100))
    frame.to_file(tmp_path / "a.gpkg")
    choices = {"centroid": True, "to_crs": "EPSG:32614"}
    done = run_job(tmp_path / "a.gpkg", name, chunk_rows=32, **choices)
    found = geopandas.read_file(done.output).sort_values("n").geometry.to_numpy()
    wanted = geopandas.GeoSeries(shapely.centroid(frame.geometry.to_numpy()), crs="EPSG:4326").to_crs("EPSG:32614")
    assert pyogrio.read_info(done.output)["geometry_type"] == "Point"
    assert shapely.equals_exact(found, wanted.to_numpy(), 1e-6).all()
    assert _verifies(tmp_path / "a.gpkg", done, **choices)


def test_a_projected_layer_is_simplified_as_by_shapely(run_job: Run, tmp_path: Path) -> None:
    """In metres whatever the CRS's unit is; vertices are counted."""
    circle = shapely.Point(500_000, 5_000_000).buffer(1000, 64)
    metric = run_job(_layer(tmp_path, [circle, None, shapely.Polygon()]), simplify=20.0)
    found = geopandas.read_file(metric.output).geometry
    assert found[0].equals_exact(shapely.simplify(circle, 20))
    result = metric.outcome.result
    assert (result["vertices_before"], result["vertices_after"]) == (257, len(found[0].exterior.coords))
    assert _verifies(tmp_path / "a.gpkg", metric, simplify=20.0)
    feet = shapely.transform(circle, lambda xy: xy / 0.3048006096012192)
    (tmp_path / "feet").mkdir()
    done = run_job(_layer(tmp_path / "feet", [feet], "EPSG:2263"), "feet.gpkg", simplify=20.0)
    assert len(geopandas.read_file(done.output).geometry[0].exterior.coords) == len(found[0].exterior.coords)


@pytest.mark.parametrize("latitude", [0, 45, 75])
def test_metres_are_metres_in_degrees(latitude: float, run_job: Run, tmp_path: Path) -> None:
    """No vertex that was left out is farther from the new outline than that on the ground, and most of that is used."""
    geod, azimuths = Geod(ellps="WGS84"), np.linspace(0, 360, 257)[:-1]
    lon, lat, _ = geod.fwd(np.full(256, 10.0), np.full(256, float(latitude)), azimuths, np.full(256, 1000.0))
    circle = shapely.force_3d(shapely.Polygon(np.column_stack([lon, lat])), 7.0)
    source = _layer(tmp_path, [circle], "EPSG:4326")
    done = run_job(source, simplify=20.0)
    (found,) = geopandas.read_file(done.output).geometry
    before, after = (shapely.get_coordinates(each, include_z=True) for each in (circle, found))
    assert {tuple(each) for each in after} <= {tuple(each) for each in before}
    local = f"+proj=aeqd +lat_0={latitude} +lon_0=10 +ellps=WGS84"
    near = geopandas.GeoSeries([circle, found], crs="EPSG:4326").to_crs(local)
    farthest = shapely.distance(shapely.points(shapely.get_coordinates(near[0])), near[1].exterior).max()
    assert 10 < farthest <= 20.1
    sides = np.diff(shapely.get_coordinates(near[1]), axis=0)
    lengths = np.hypot(sides[:, 0], sides[:, 1])
    assert lengths.max() < 2.5 * lengths.min()  # as coarse to the east as to the north
    assert _verifies(source, done, simplify=20.0)


def test_metres_need_a_crs(tmp_path: Path) -> None:
    """Without one nobody knows how long one is."""
    (tmp_path / "a.csv").write_text("n,WKT\n1,POINT (1 2)\n")
    with pytest.raises(SourceError, match=r"a.csv has no CRS, so how long a metre is is unknown|has no geometries"):
        prepared(make_job(tmp_path / "a.csv", tmp_path / "b.gpkg", simplify=1.0))
