"""Codecs, levels and predictors as asked for, or chosen by samples; what a build or a dtype does not have is said beforehand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from lib.errors import UsageError
from lib.jobs import OUTPUT_PROFILES, RasterJob, Resources, parse_job
from lib.knobs import knobs_of
from lib.raster import gdal
from lib.raster.formats import environment
from lib.raster.sinks import gtiff
from lib.request import raster_job
from lib.units import MIB
from tests.raster.conftest import Workshop

Write = Callable[..., Path]


def _structure(path: Path) -> dict[str, Any]:
    with environment(), rasterio.open(path) as dataset:
        return dict(dataset.tags(ns="IMAGE_STRUCTURE"))


def _surface(dtype: str) -> np.ndarray:
    rows, columns = np.mgrid[0:700, 0:600]
    return (1000 * np.sin(rows / 90) * np.cos(columns / 70))[None].astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("cog", [False, True])
def test_lerc_loses_nothing(shop: Workshop, write: Write, dtype: str, cog: bool) -> None:
    """Whatever the pixels, NaN and infinity among them, whole tiles of it and a mask."""
    values = np.random.default_rng(5).integers(0, 200, (1, 600, 700)).astype(dtype)
    if values.dtype.kind == "f":
        values[:, 100:500] = np.nan
        values[:, 50] = -np.inf
    shop.transform(write(values, mask=np.full((600, 700), 255, "uint8")), compress="lerc", block_size=128, cog=cog)
    assert shop.output.tobytes() == values.tobytes()
    assert _structure(shop.folder / "out.tif")["COMPRESSION"] == "LERC"


def test_the_predictor_is_the_one_that_makes_tiles_smallest(shop: Workshop, write: Write) -> None:
    """A smooth surface has differences, classes without order have none; what is given is taken; one source, one output."""
    draw = np.random.default_rng(2)
    classes = draw.choice([7, 300, 5_000, 41_000], (1, 700, 600))
    for values, compress, wanted in (
        (_surface("int16"), "zstd", 2),
        (classes.astype("uint16"), "deflate", 1),
        (_surface("float32"), "zstd", 3),
    ):
        source = write(values)
        sizes = {}
        for predictor in ("auto", "1", "2") + (("3",) if wanted == 3 else ()):
            shop.transform(source, compress=compress, predictor=predictor)
            assert shop.output.tobytes() == values.tobytes()
            sizes[predictor] = (shop.folder / "out.tif").stat().st_size
            chosen = _structure(shop.folder / "out.tif").get("PREDICTOR", "1")
            assert chosen == (str(wanted) if predictor == "auto" else predictor)
        assert sizes["auto"] <= min(sizes.values()) * 1.06
        shop.transform(source, compress=compress, block_size=128, resources={"max_chunk_bytes": 200_000})
        assert _structure(shop.folder / "out.tif").get("PREDICTOR", "1") == str(wanted)


@pytest.mark.slow
def test_a_level_makes_a_file_smaller(shop: Workshop, write: Write) -> None:
    """Zstandard's nineteenth takes less room than its first."""
    source, sizes = write(_surface("int16")), []
    for level in (1, 19):
        shop.transform(source, level=level)
        sizes.append((shop.folder / "out.tif").stat().st_size)
    assert sizes[1] < sizes[0]


def test_a_creation_option_is_passed_on(shop: Workshop, write: Write) -> None:
    """BIGTIFF=YES, in any case of letters, with overviews moved by places of 64 bits."""
    values = _surface("int16")
    shop.transform(write(values), cog=True, creation_options=("bigtiff=yes", "GEOTIFF_VERSION=1.1"))
    assert (shop.folder / "out.tif").read_bytes()[:4] == b"II+\0"
    assert shop.output.tobytes() == values.tobytes()
    with environment(), rasterio.open(shop.folder / "out.tif", overview_level=0) as dataset:
        assert abs(int(dataset.read(1)[0, 0]) - int(values[0, 0, 0])) <= 20


@pytest.mark.parametrize("word", ["flag", "parameter"])
@pytest.mark.parametrize("profile", OUTPUT_PROFILES)
def test_a_profile_is_several_choices(shop: Workshop, write: Write, profile: str, word: str) -> None:
    """Each by itself is taken where it is made; a form's defaults are no choices, and a job that is sent on stays what it is."""
    source, destination = str(write(_surface("int16"))), str(shop.folder / "out.tif")
    defaults = {each.name: each.default for each in knobs_of(RasterJob) if each.name in OUTPUT_PROFILES[profile]}
    given = {"output_profile": profile} | (
        defaults if word == "parameter" else {"cog": False}
    )  # as a terminal sends it
    job = raster_job(source, destination, word=word, **given)
    assert job.model_dump(include=set(OUTPUT_PROFILES[profile])) == OUTPUT_PROFILES[profile]
    assert parse_job(job.model_dump(mode="json")) == job
    changed = raster_job(source, destination, word=word, **given | {"compress": "lzw", "cog": True})
    assert (changed.compress, changed.level, changed.predictor, changed.cog) == ("lzw", None, "auto", True)
    shop.run(job.model_copy(update={"resources": shop.job(source).resources}))
    assert shop.output.tobytes() == _surface("int16").tobytes()


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"level": 13, "compress": "deflate"}, "level 13: deflate has levels 1 to 12, zstd has 1 to 22"),
        ({"level": 3, "compress": "lzw"}, "level 3: lzw has no levels, deflate has 1 to 12, zstd has 1 to 22"),
        ({"compress": "jpeg"}, "'lzw', 'deflate', 'zstd' or 'lerc'"),
        ({"creation_options": ("TILED=NO",)}, "'TILED=NO' is none of BIGTIFF=YES or IF_SAFER"),
        ({"creation_options": ("BIGTIFF=YES", "BIGTIFF=YES")}, "'BIGTIFF' is there twice"),
    ],
)
def test_what_no_build_has_is_refused(choices: dict[str, Any], said: str) -> None:
    """With what there is."""
    with pytest.raises(ValueError, match=said):
        RasterJob(source="in.tif", destination="out.tif", resources=Resources(limit_bytes=MIB), **choices)


@pytest.mark.parametrize(
    ("dtype", "choices", "said"),
    [
        ("int16", {"predictor": "3"}, "predictor 3 does not fit zstd of int16 pixels"),
        ("int16", {"predictor": "2", "compress": "none"}, "predictor 2 does not fit none of int16 pixels"),
        ("int64", {"compress": "lerc"}, "compress lerc has no int64 pixels"),
    ],
)
def test_what_does_not_fit_the_pixels_is_refused(
    shop: Workshop, write: Write, dtype: str, choices: dict[str, Any], said: str
) -> None:
    """Before any work."""
    with pytest.raises(UsageError, match=said):
        shop.first(shop.job(write(_surface(dtype)), **choices))


def test_a_codec_that_this_gdal_lacks_is_refused(shop: Workshop, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message lists those it has."""
    assert gdal.codecs() >= {"LZW", "DEFLATE", "ZSTD", "LERC"}
    monkeypatch.setattr(gdal, "codecs", lambda: frozenset({"LZW", "DEFLATE"}))
    with pytest.raises(UsageError, match="this GDAL does not write zstd") as refused:
        shop.first(shop.job(write(_surface("int16"))))
    assert refused.value.hint == "choose from none, lzw, deflate"
    gtiff.check_codec("none")
