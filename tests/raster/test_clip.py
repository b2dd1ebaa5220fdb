"""`clip` against NumPy's slices, rasterio's own burning and gdal's windows: boxes, polygons, every kind of nodata, odd sizes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.enums import ColorInterp
from rasterio.features import geometry_mask
from rasterio.rpc import RPC

from lib.errors import SourceError, UsageError
from lib.operations import Clip
from lib.raster.formats import environment
from lib.request import raster_job
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RANDOM = np.random.default_rng(7)
LEFT, TOP = 500_000, 5_000_000  # of `write`, with pixels of 10


def box_of(rows: tuple[int, int], columns: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box of whole pixels."""
    return LEFT + 10 * columns[0], TOP - 10 * rows[1], LEFT + 10 * columns[1], TOP - 10 * rows[0]


def polygons(folder: Path, crs: str = "EPSG:32633") -> Path:
    """A star with a hole, and an island; in metres they lie over the first 130 rows and 200 columns."""
    turn = np.linspace(0, 2 * np.pi, 11)[:-1]
    radius = np.where(np.arange(10) % 2, 250, 600)
    star = shapely.Polygon(
        np.column_stack([LEFT + 701 + radius * np.cos(turn), TOP - 653 + radius * np.sin(turn)]),
        [[(LEFT + x, TOP - y) for x, y in ((660, 620), (760, 630), (710, 700))]],
    )
    frame = gpd.GeoDataFrame(
        geometry=[star, shapely.box(LEFT + 1555, TOP - 1111, LEFT + 1888, TOP - 333)], crs="EPSG:32633"
    )
    frame.to_crs(crs).to_file(folder / "mask.gpkg")
    return folder / "mask.gpkg"


def inside(path: Path, shape: tuple[int, int], transform: Any) -> np.ndarray:
    """Where pixel centres lie in polygons, by rasterio."""
    shapes = gpd.read_file(path).to_crs("EPSG:32633").geometry
    return geometry_mask(shapes, shape, transform, invert=True)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64}, {"blockysize": 1}])
def test_a_box_is_a_slice(dtype: str, options: dict[str, Any], shop: Workshop, write: Write) -> None:
    """Pixels, validity and place of a part that begins in the middle of blocks; statistics go, other tags stay."""
    raw = RANDOM.integers(0, 99, (2, 131, 203)).astype(dtype)
    path = write(raw, nodata=7, **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(1, STATISTICS_MEAN="3", colour="red")
    plan, outcome = shop.transform(path, operation=Clip(bbox=box_of((17, 101), (33, 190))))
    np.testing.assert_array_equal(shop.output, raw[:, 17:101, 33:190])
    with rasterio.open(shop.folder / "out.tif") as found:
        assert found.nodata == 7
        assert found.bounds == box_of((17, 101), (33, 190))
        assert found.tags(1) == {"colour": "red"}
    assert plan.expected["height"], outcome.result["width"] == (84, 157)
    assert outcome.result["nodata_pixels"] == np.count_nonzero(raw[:, 17:101, 33:190] == 7)


@pytest.mark.parametrize("seed", range(12))
def test_a_box_keeps_the_pixels_whose_centres_it_holds(seed: int, shop: Workshop, write: Write) -> None:
    """Also where it reaches beyond the raster, and where it holds one pixel only."""
    draw = np.random.default_rng(seed)
    raw = RANDOM.integers(0, 99, (1, 40, 50)).astype("uint8")
    x, y = np.sort(draw.uniform(-100, 480, 2)), np.sort(draw.uniform(-100, 380, 2))
    box = (LEFT + x[0], TOP - max(y[1], 0) - 15, LEFT + max(x[1], 0) + 15, TOP - y[0])
    columns, rows = LEFT + 10 * np.arange(50) + 5, TOP - 10 * np.arange(40) - 5
    kept = raw[0][(rows >= box[1]) & (rows <= box[3])][:, (columns >= box[0]) & (columns <= box[2])]
    shop.transform(write(raw), operation=Clip(bbox=box))
    np.testing.assert_array_equal(shop.output[0], kept)


def test_a_box_may_have_another_crs(shop: Workshop, write: Write) -> None:
    """It becomes the box around it in the raster's own."""
    raw = RANDOM.integers(0, 99, (1, 200, 200)).astype("uint8")
    box = rasterio.warp.transform_bounds("EPSG:32633", "EPSG:4326", *box_of((50, 100), (60, 120)))
    shop.transform(write(raw), operation=Clip(bbox=box, bbox_crs="EPSG:4326"))
    with rasterio.open(shop.folder / "out.tif") as found:
        around = rasterio.warp.transform_bounds("EPSG:4326", "EPSG:32633", *box)
        np.testing.assert_allclose(found.bounds, around, atol=5.01)


def _kinds() -> dict[str, dict[str, Any]]:
    """Kinds of validity."""
    plain = {"photometric": "minisblack", "alpha": "no"}
    alpha = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return {
        "none": plain,
        "value": {"nodata": 3, **plain},
        "mask band": {"mask": RANDOM.integers(0, 2, (131, 203)).astype("uint8") * 255, **plain},
        "alpha": {"colorinterp": alpha},
    }


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", ["none", "value", "mask band", "alpha"])
def test_polygons_hide_what_lies_outside(kind: str, dtype: str, crop: bool, shop: Workshop, write: Write) -> None:
    """GDAL takes exactly what lay inside and was valid for valid, and those pixels are as they were."""
    raw = RANDOM.integers(0, 99, (4, 131, 203)).astype(dtype)
    path, mask = write(raw, **_kinds()[kind]), polygons(shop.folder)
    shop.transform(path, operation=Clip(mask=str(mask), crop=crop))
    with environment(), rasterio.open(path) as source, rasterio.open(shop.folder / "out.tif") as found:
        by_alpha = kind == "alpha" and dtype != "float32"  # which GDAL does not mask by
        kept = (source.read_masks() != 0) & inside(mask, source.shape, source.transform)
        valid = kept.copy()
        valid[3] |= by_alpha  # its own mask is nowhere 0
        top, left = (round((TOP - found.bounds.top) / 10), round((found.bounds.left - LEFT) / 10)) if crop else (0, 0)
        part = (slice(None), slice(top, top + found.height), slice(left, left + found.width))
        pixels = found.read()
        np.testing.assert_array_equal(found.read_masks() != 0, valid[part])
        np.testing.assert_array_equal(pixels[kept[part]], raw[part][kept[part]])
        assert (found.shape != source.shape) == crop
        assert found.colorinterp == source.colorinterp
        if by_alpha:
            assert not pixels[3][~kept[3][part[1:]]].any()


def test_polygons_of_another_crs(shop: Workshop, write: Write) -> None:
    """They are brought to the raster's; those in degrees keep the same pixels but for their edges."""
    raw = RANDOM.integers(1, 99, (1, 131, 203)).astype("uint8")
    mask = polygons(shop.folder, "EPSG:4326")
    shop.transform(write(raw, nodata=0), operation=Clip(mask=str(mask)))
    with rasterio.open(shop.folder / "in.tif") as source:
        wanted = inside(mask, source.shape, source.transform)
    assert np.count_nonzero((shop.output[0] != 0) != wanted) <= 3


def test_the_mask_is_taken_window_by_window(shop: Workshop, write: Write) -> None:
    """Small windows give what one window gives, those that lie wholly inside among them."""
    raw = RANDOM.integers(1, 99, (1, 300, 300)).astype("uint16")
    mask = polygons(shop.folder)
    path = write(raw, nodata=0)
    shop.transform(path, operation=Clip(mask=str(mask)))
    whole = shop.output
    shop.transform(
        path, operation=Clip(mask=str(mask)), block_size=16, resources={"max_chunk_bytes": 3000, "threads": 2}
    )
    np.testing.assert_array_equal(shop.output, whole)
    assert np.count_nonzero(whole) == np.count_nonzero(inside(mask, (300, 300), rasterio.open(path).transform))


def test_a_rotated_raster_hides_what_its_box_does_not_hold(shop: Workshop, write: Write) -> None:
    """The part is what the box touches, and pixels whose centres lie outside are nodata."""
    raw = RANDOM.integers(1, 99, (1, 80, 90)).astype("uint8")
    path = write(raw, nodata=0)
    transform = rasterio.Affine.translation(LEFT, TOP) * rasterio.Affine.rotation(30) * rasterio.Affine.scale(10, -10)
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = transform
    box = (LEFT + 300, TOP - 200, LEFT + 600, TOP + 100)
    shop.transform(path, operation=Clip(bbox=box))
    wanted = np.where(geometry_mask([shapely.box(*box)], (80, 90), transform, invert=True), raw[0], 0)
    rows, columns = np.nonzero(wanted)
    with rasterio.open(shop.folder / "out.tif") as found:
        assert np.count_nonzero(found.read(1)) == len(rows)
        row, column = found.index(*(transform * (columns[0] + 0.5, rows[0] + 0.5)))
        assert found.read(1)[row, column] == wanted[rows[0], columns[0]]


def test_polynomials_move_with_the_part(shop: Workshop, write: Write) -> None:
    """RPCs speak of the part's own rows and columns."""
    path = write(np.ones((1, 40, 50), "uint8"))
    one = [1.0] * 20
    rpc = RPC(height_off=0, height_scale=1, lat_off=0, lat_scale=1, line_den_coeff=one, line_num_coeff=one, line_off=20,
              line_scale=1, long_off=0, long_scale=1, samp_den_coeff=one, samp_num_coeff=one, samp_off=25,
              samp_scale=1)  # fmt: skip
    with rasterio.open(path, "r+") as dataset:
        dataset.rpcs = rpc
    shop.transform(path, operation=Clip(bbox=box_of((3, 30), (4, 40))))
    with rasterio.open(shop.folder / "out.tif") as found:
        assert (found.rpcs.line_off, found.rpcs.samp_off) == (17, 21)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"bbox": "0,0,1,1"}, "a clip that leaves no pixels"),
        ({"bbox": "500000,4999999,500003,5000000"}, "a clip that leaves no pixels"),
        ({"bbox": "1,2,3"}, "--bbox: '1,2,3' is no box: write XMIN,YMIN,XMAX,YMAX"),
        ({"bbox": "3,2,1,4"}, "--bbox: a box is XMIN,YMIN,XMAX,YMAX"),
        ({}, "a clip needs a bbox or a mask"),
        ({"bbox": "0,0,1,1", "crop": True}, "crop is of a mask"),
        ({"bbox": "10,40,11,41", "bbox_crs": "EPSG:99999999"}, "--bbox-crs: EPSG:99999999 is no CRS"),
        ({"mask": "none.gpkg"}, "mask none.gpkg does not exist"),
    ],
)
def test_what_cannot_be_clipped_is_told(choices: dict[str, Any], words: str, shop: Workshop, write: Write) -> None:
    """In one line, with the flag."""
    source = write(np.zeros((1, 40, 50), "uint8"))
    with pytest.raises(UsageError, match=words):
        shop.run(raster_job(str(source), str(shop.folder / "out.tif"), operation="clip", **choices))


def test_a_mask_without_polygons_is_told(shop: Workshop, write: Write) -> None:
    """Points are none; and one far away leaves nothing where the raster is cropped."""
    source, path = write(np.zeros((1, 40, 50), "uint8")), shop.folder / "points.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.Point(1, 2)], crs="EPSG:32633").to_file(path)
    with pytest.raises(SourceError, match="holds no polygons"):
        shop.transform(source, operation=Clip(mask=str(path)))
    gpd.GeoDataFrame(geometry=[shapely.box(1, 2, 3, 4)], crs="EPSG:32633").to_file(shop.folder / "far.gpkg")
    with pytest.raises(UsageError, match="a clip that leaves no pixels"):
        shop.transform(source, operation=Clip(mask=str(shop.folder / "far.gpkg"), crop=True))
    (shop.folder / "bare.csv").write_text('WKT\n"POLYGON((0 0,0 1,1 1,0 0))"\n')
    with pytest.raises(SourceError, match=r"bare\.csv has no CRS"):
        shop.transform(source, operation=Clip(mask=str(shop.folder / "bare.csv")))
