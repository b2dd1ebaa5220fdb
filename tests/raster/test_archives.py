"""Sources in archives and compressed files: by GDAL's names, by URLs with a `!`, and by the archive's name where it holds one."""

import gzip
import shlex
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lib.errors import SourceError
from lib.paths import archive_system, container, for_gdal, is_packed, is_remote
from lib.raster.formats import environment
from lib.raster.sources.dataset import open_raster
from lib.units import file_label
from tests.range_server import serving
from tests.raster.conftest import Workshop

RAW = np.random.default_rng(4).integers(1, 9000, (1, 333, 401), dtype="uint16")
TILES = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}


@pytest.fixture
def scene(write: Callable[..., Path]) -> Path:
    """A small raster of many tiles."""
    return write(RAW, "scene.tif", **TILES)


def packed(folder: Path, *members: tuple[str, bytes], name: str = "scenes.zip") -> Path:
    """A zip of these."""
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in members:
            archive.writestr(*each)
    return path


def is_copied(shop: Workshop, name: str | Path) -> None:
    """A copy of it has the pixels of `RAW`, and its checks pass."""
    _, outcome = shop.transform(name)
    assert all(check.passed for check in outcome.checks)
    np.testing.assert_array_equal(shop.output, RAW)


@pytest.mark.parametrize(
    "form", ["/vsizip/{}/in/scene.tif", "/vsizip/{{{}}}/in/scene.tif", "zip://{}!in/scene.tif", "{}"]
)
def test_a_zip(shop: Workshop, scene: Path, tmp_path: Path, form: str) -> None:
    """What is in it by each of its names; the archive's own is enough, as its other files are no rasters."""
    path = packed(
        tmp_path, ("in/scene.tif", scene.read_bytes()), ("in/readme.txt", b"hello"), ("in/scene.tif.ovr", b"")
    )
    is_copied(shop, form.format(path))


def test_a_tar_and_gzip(shop: Workshop, scene: Path, tmp_path: Path) -> None:
    """A tar by its name, packed twice by GDAL's; a gzip by GDAL's name."""
    with tarfile.open(tmp_path / "scenes.tar.gz", "w:gz") as archive:
        archive.add(scene, "in/scene.tif")
    (tmp_path / "scene.tif.gz").write_bytes(gzip.compress(scene.read_bytes()))
    for name in (
        tmp_path / "scenes.tar.gz",
        f"/vsitar/{tmp_path}/scenes.tar.gz/in/scene.tif",
        f"/vsigzip/{tmp_path}/scene.tif.gz",
    ):
        is_copied(shop, name)
        (shop.folder / "out.tif").unlink()


def test_a_zip_on_a_server(shop: Workshop, scene: Path, tmp_path: Path) -> None:
    """By its URL alone, and by the names of what is in it."""
    folder = tmp_path / "served"
    folder.mkdir()
    packed(folder, ("in/scene.tif", scene.read_bytes()))
    with serving(folder) as served:
        for name in ("{}/scenes.zip", "/vsizip/vsicurl/{}/scenes.zip/in/scene.tif", "zip+{}/scenes.zip!in/scene.tif"):
            is_copied(shop, name.format(served.url))
            (shop.folder / "out.tif").unlink()


@pytest.mark.parametrize("name", ["scenes.zip", "two scenes' & more.zip"])
def test_a_zip_of_several_lists_them(shop: Workshop, scene: Path, tmp_path: Path, name: str) -> None:
    """Each name that the error gives opens as the shell gives it."""
    path = packed(
        tmp_path, ("a/b1.tif", scene.read_bytes()), ("a/b 2.tif", scene.read_bytes()), ("a/b.txt", b"x"), name=name
    )
    with pytest.raises(SourceError, match="holds 2 rasters") as raised:
        shop.first(shop.job(path))
    names = shlex.split(raised.value.hint.removeprefix("name one of them: "))
    assert len(names) == 2
    for each in names:
        is_copied(shop, each)
        (shop.folder / "out.tif").unlink()


def test_a_zip_without_rasters(shop: Workshop, tmp_path: Path) -> None:
    """It says what is in it."""
    with pytest.raises(SourceError, match="holds no raster") as raised:
        shop.first(shop.job(packed(tmp_path, ("a/parcels.txt", b"x"))))
    assert "parcels.txt" in raised.value.hint


def test_what_is_packed_has_its_size(scene: Path, tmp_path: Path) -> None:
    """A header in a zip is held against the bytes that it unpacks to; readers do not unpack at once."""
    path = packed(tmp_path, ("scene.tif", scene.read_bytes()))
    with environment():
        source = open_raster(str(path))
    assert source.source_bytes == scene.stat().st_size
    assert not source.reads_in_parallel
    source.close()


@pytest.mark.parametrize(
    ("name", "gdal", "inner", "remote", "is_in"),
    [
        ("https://a.org/x.tif", "/vsicurl/https://a.org/x.tif", "/vsicurl/https://a.org/x.tif", True, False),
        ("HTTP://a.org/x.tif", "/vsicurl/http://a.org/x.tif", "/vsicurl/http://a.org/x.tif", True, False),
        ("s3://b/k/x.tif", "/vsis3/b/k/x.tif", "/vsis3/b/k/x.tif", True, False),
        ("gs://b/x.tif", "/vsigs/b/x.tif", "/vsigs/b/x.tif", True, False),
        ("zip:///d/a.zip!x.tif", "/vsizip/{/d/a.zip}/x.tif", "/d/a.zip", False, True),
        ("zip+s3://b/a.zip!x.tif", "/vsizip/{/vsis3/b/a.zip}/x.tif", "/vsis3/b/a.zip", True, True),
        ("/vsizip/vsicurl/https://a.org/a.zip/x.tif", None, "/vsicurl/https://a.org/a.zip", True, True),
        ("/vsizip//d/a.zip/in/x.tif", None, "/d/a.zip", False, True),
        ("/vsigzip//vsis3/b/x.tif.gz", None, "/vsis3/b/x.tif.gz", True, True),
        ('NETCDF:"/vsis3/b/x.nc":t', None, "/vsis3/b/x.nc", True, False),
    ],
)
def test_names(name: str, gdal: str | None, inner: str, remote: bool, is_in: bool) -> None:
    """URLs become GDAL's virtual files; others stay; where the bytes are, and whether a network is between."""
    assert for_gdal(name) == (gdal or name)
    assert container(name) == inner
    assert (is_remote(name), is_packed(name)) == (remote, is_in)


def test_names_of_archives() -> None:
    """By their suffix, before a query."""
    assert archive_system("https://a.org/x.ZIP?token=1") == "/vsizip/"
    assert archive_system("/d/x.tar.gz") == "/vsitar/"
    assert archive_system("/d/x.tif") == ""


def test_labels_have_no_secrets() -> None:
    """What `ps` shows of a URL is its base name."""
    for name in (
        "https://joe:pw@a.org/x.tif?sig=abc",
        "/vsicurl?max_retry=2&url=https%3A%2F%2Fjoe%3Apw%40a.org%2Fx.tif%3Fsig%3Dabc",
    ):
        assert file_label(name) == "x.tif"
