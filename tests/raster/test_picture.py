"""PNG and JPEG, read back by rasterio and by imagecodecs, which knows nothing of sidecars."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from lib.errors import UsageError
from lib.jobs import VerifyJob
from lib.operations import Copy, Expression, Rescale
from lib.raster import verify
from lib.raster.formats import environment
from lib.reports import Outcome
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RNG = np.random.default_rng(7)
HOLE = np.zeros((70, 90), bool)
HOLE[10:30, 20:50] = True
RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


def raw(bands: int, dtype: str = "uint8") -> np.ndarray:
    """Pixels of all values but 0."""
    return RNG.integers(1, np.iinfo(dtype).max, (bands, 70, 90), dtype=dtype, endpoint=True)


def smooth(bands: int) -> np.ndarray:
    """What a JPEG keeps well."""
    rows, columns = np.mgrid[:70, :90]
    return np.stack([(rows * (band + 1) + columns) % 200 + 20 for band in range(bands)]).astype("uint8")


def opened(path: Path) -> tuple[np.ndarray, np.ndarray, Any]:
    """Pixels, masks and the rest of a picture."""
    with environment(), rasterio.open(path) as dataset:
        return dataset.read(), dataset.read_masks(), dataset.profile | {"tags": dataset.tags()}


def verified(shop: Workshop, source: Path, to: str, outcome: Outcome, plan: Any, job: Any) -> None:
    """A verification of its own passes on a picture."""
    work = VerifyJob(
        source=str(source),
        output=str(shop.folder / to),
        work=job,
        expected=plan.expected,
        result=outcome.result,
        resources=job.resources,
    )
    bench = shop.bench(None)
    with closing(verify.prepare(work, shop.room(work))) as checking:
        checking.run(bench)
    assert all(each.passed for each in bench.checks), bench.checks


def made(shop: Workshop, source: Path, to: str, **choices: Any) -> Outcome:
    """A picture, verified; nothing but it and its sidecar is left."""
    before = set(shop.folder.iterdir())
    job = shop.job(source, to=to, **choices)
    plan, outcome = shop.run(job)
    assert outcome.driver == job.driver
    assert {each.name for each in set(shop.folder.iterdir()) - before} <= {to, f"{to}.aux.xml"}
    verified(shop, source, to, outcome, plan, job)
    return outcome


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 3])
def test_png_is_exact_and_placed(shop: Workshop, write: Write, dtype: str, bands: int) -> None:
    """A PNG has each pixel in the file itself, its place and tags in the sidecar, and no alpha where all is valid."""
    pixels = raw(bands, dtype)
    source = write(pixels)
    with rasterio.open(source, "r+") as dataset:
        dataset.update_tags(SENSOR="MSI")
        dataset.update_tags(ns="ORBIT", NUMBER="77")
        dataset.set_band_description(1, "first")
        dataset.scales = [0.5] * bands
    outcome = made(shop, source, "out.png", level=9)
    plain = imagecodecs.png_decode((shop.folder / "out.png").read_bytes())
    np.testing.assert_array_equal(plain, pixels[0] if bands == 1 else np.moveaxis(pixels, 0, -1))
    with environment(), rasterio.open(source) as before, rasterio.open(shop.folder / "out.png") as after:
        assert (after.crs, after.transform) == (before.crs, before.transform)
        assert (after.tags()["SENSOR"], after.tags(ns="ORBIT")) == ("MSI", {"NUMBER": "77"})
        assert (after.descriptions, after.scales) == (before.descriptions, before.scales)
        assert after.count == bands
    assert outcome.warnings == ("out.png.aux.xml beside out.png holds its CRS: keep both together",)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_nodata_of_one_band_is_in_the_png(shop: Workshop, write: Write, dtype: str) -> None:
    """One band's nodata value stands in the file itself, so that its pixels are transparent and their neighbours are not."""
    pixels = np.where(HOLE, 0, raw(1, dtype)).astype(dtype)
    made(shop, write(pixels, nodata=0), "out.png")
    found, masks, profile = opened(shop.folder / "out.png")
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(masks[0] == 0, HOLE)
    assert profile["nodata"] == 0
    assert b"tRNS" in (shop.folder / "out.png").read_bytes()[:300]


@pytest.mark.parametrize("kind", ["nodata", "mask"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_what_is_not_valid_of_three_bands_is_transparent(shop: Workshop, write: Write, kind: str, dtype: str) -> None:
    """Three bands get an alpha band, in the file itself, where a pixel is not valid; values stay as they are."""
    pixels = np.where(HOLE, 0, raw(3, dtype)).astype(dtype)
    source = write(pixels, **({"nodata": 0} if kind == "nodata" else {"mask": ~HOLE}))
    made(shop, source, "out.png")
    plain = imagecodecs.png_decode((shop.folder / "out.png").read_bytes())
    np.testing.assert_array_equal(np.moveaxis(plain, -1, 0)[:3], pixels)
    np.testing.assert_array_equal(plain[..., 3], np.where(HOLE, 0, np.iinfo(dtype).max))


def test_partly_valid_pixels(shop: Workshop, write: Write) -> None:
    """A pixel that is valid in some bands only is transparent, which is said; GDAL still reads the nodata value of each band."""
    pixels = raw(3)
    pixels[1][HOLE] = 0
    outcome = made(shop, write(pixels, nodata=0), "out.png")
    assert any("600 pixels are valid in some bands only: a PNG has them hidden" in each for each in outcome.warnings)
    _, masks, profile = opened(shop.folder / "out.png")
    assert profile["count"] == 4
    np.testing.assert_array_equal(masks[:3] == 0, [~(HOLE | True), HOLE, ~(HOLE | True)])


@pytest.mark.parametrize("bands", [2, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_stays_alpha(shop: Workshop, write: Write, bands: int, dtype: str) -> None:
    """Alpha behind one or three bands is the PNG's alpha, as it is."""
    pixels = raw(bands, dtype)
    pixels[-1][HOLE] = 0
    colours = ([ColorInterp.gray] if bands == 2 else RGB) + [ColorInterp.alpha]
    made(shop, write(pixels, colorinterp=colours), "out.png")
    found, masks, _ = opened(shop.folder / "out.png")
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(masks[0] == 0, HOLE)


def test_a_colour_table(shop: Workshop, write: Write) -> None:
    """A colour table stays one."""
    source = write(RNG.integers(0, 4, (1, 70, 90), dtype="uint8"))
    colours = {0: (0, 0, 0, 255), 1: (255, 0, 0, 255), 2: (0, 9, 0, 255), 3: (7, 8, 9, 255)}
    with rasterio.open(source, "r+") as dataset:
        dataset.write_colormap(1, colours)
    made(shop, source, "out.png")
    with environment(), rasterio.open(shop.folder / "out.png") as after:
        assert {index: after.colormap(1)[index] for index in colours} == colours
    with pytest.raises(UsageError, match="has a colour table, and a JPEG holds none"):
        shop.transform(source, to="out.jpg")


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("kind", ["none", "nodata", "mask"])
def test_jpeg(shop: Workshop, write: Write, bands: int, kind: str) -> None:
    """A JPEG is near what was computed, and its mask is exact; other programs read the same picture."""
    pixels = smooth(bands)
    more: dict[str, Any] = {"mask": ~HOLE} if kind == "mask" else {"nodata": 0} if kind == "nodata" else {}
    if kind == "nodata":
        pixels[:, HOLE] = 0
    outcome = made(shop, write(pixels, **more), "out.jpg", creation_options=("QUALITY=95",))
    found, masks, profile = opened(shop.folder / "out.jpg")
    assert np.abs(found.astype(float) - pixels).mean() < 4
    np.testing.assert_array_equal(masks[0] == 0, HOLE if kind != "none" else False)
    assert (profile["nodata"], profile["count"]) == (None, bands)
    assert any("a JPEG has no nodata" in each for each in outcome.warnings) == (kind != "none")
    plain = imagecodecs.jpeg8_decode((shop.folder / "out.jpg").read_bytes())
    np.testing.assert_allclose(np.moveaxis(np.atleast_3d(plain), -1, 0).astype(float), found, atol=3)


def test_quality(shop: Workshop, write: Write) -> None:
    """A lower quality is a smaller picture; noise and black and white at the worst pass verification, too."""
    noise = np.where(RNG.random((3, 70, 90)) < 0.1, 255, 0).astype("uint8")
    sizes = []
    for quality in (1, 50, 100):
        made(shop, write(noise), "out.jpg", creation_options=(f"QUALITY={quality}",))
        sizes.append((shop.folder / "out.jpg").stat().st_size)
    assert sizes == sorted(sizes)


def test_an_operation_in_bytes(shop: Workshop, write: Write) -> None:
    """Results become a picture by rescaling them into a dtype that it holds."""
    pixels = raw(2, "uint16")
    pixels[:, HOLE] = 0
    source = write(pixels, nodata=0)
    made(shop, source, "out.png", operation=Rescale(multiply=255 / 65535), dtype="uint8", bands=(2,))
    found, masks, _ = opened(shop.folder / "out.png")
    np.testing.assert_array_equal(masks[0] == 0, HOLE)
    wanted = np.floor(pixels[1] * (255 / 65535) + 0.5)
    assert np.abs(found[0].astype(float) - wanted)[~HOLE].max() <= 1
    made(shop, source, "three.png", operation=Expression(expr="b1 / 256; b2 / 256; b1 / 512"), dtype="uint8")
    assert opened(shop.folder / "three.png")[2]["count"] == 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (257, 3)])
@pytest.mark.parametrize("to", ["out.png", "out.jpg"])
def test_odd_sizes(shop: Workshop, write: Write, shape: tuple[int, int], to: str) -> None:
    """One pixel, one line, one more line than a tile."""
    made(shop, write(RNG.integers(0, 255, (3, *shape), dtype="uint8"), nodata=3), to)


@pytest.mark.parametrize(
    ("to", "bands", "dtype", "choices", "words"),
    [
        ("out.png", 1, "float32", {}, "has float32 results, and a PNG holds uint8 or uint16"),
        ("out.jpg", 1, "uint16", {}, "has uint16 results, and a JPEG holds uint8"),
        ("out.png", 5, "uint8", {}, "has 5 bands, and a PNG holds 1 to 4"),
        ("out.png", 2, "uint8", {}, "has 2 bands, and the last is no alpha band"),
        ("out.jpg", 4, "uint8", {}, "has an alpha band, and a JPEG holds none"),
        ("out.jpg", 2, "uint8", {}, "has 2 bands, and a JPEG holds 1 or 3"),
    ],
)
def test_refusals(
    shop: Workshop, write: Write, to: str, bands: int, dtype: str, choices: dict[str, Any], words: str
) -> None:
    """What a picture cannot hold is refused with what to do, before anything is written."""
    source = write(np.ones((bands, 5, 5), dtype))
    with pytest.raises(UsageError, match=words) as refused:
        shop.transform(source, to=to, operation=Copy(), **choices)
    assert "tif" in str(refused.value.hint)
    assert [each.name for each in shop.folder.iterdir()] == ["in.tif"]


def test_too_large(shop: Workshop, write: Write) -> None:
    """Sides that a format cannot have are told beforehand; a sparse source has them for nothing."""
    source = write(np.ones((1, 1, 1), "uint8"))
    profile = {"width": 65_501, "height": 1, "count": 1, "dtype": "uint8", "SPARSE_OK": True}
    with environment(), rasterio.open(source, "w", driver="GTiff", **profile):
        pass
    with pytest.raises(UsageError, match="a JPEG at most 65,500 a side"):
        shop.transform(source, to="out.jpg")
    shop.transform(source, to="out.png")
