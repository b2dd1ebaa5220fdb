"""Errors name the cause that was seen, and hint at nothing else."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from lib.errors import DataError, SourceError
from lib.memory.evidence import explain_exception
from lib.raster.culprit import culprit
from tests.raster.conftest import Workshop

_PART = (
    '<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>'
    '<SourceProperties RasterXSize="64" RasterYSize="64" DataType="Byte" BlockXSize="64" BlockYSize="64"/>'
    '<SrcRect xOff="0" yOff="0" xSize="64" ySize="64"/><DstRect xOff="{x}" yOff="0" xSize="64" ySize="64"/></SimpleSource>'
)


def _vrt(path: Path, *parts: str) -> Path:
    inner = "".join(_PART.format(name=name, x=64 * i) for i, name in enumerate(parts))
    band = f'<VRTRasterBand dataType="Byte" band="1">{inner}</VRTRasterBand>'
    path.write_text(f'<VRTDataset rasterXSize="{64 * len(parts)}" rasterYSize="64">{band}</VRTDataset>')
    return path


def test_a_mosaics_missing_part_is_named(shop: Workshop, write: Callable[..., Path], tmp_path: Path) -> None:
    """Of a VRT, and of one within it, the part that is not there is the culprit, and not the source's damage."""
    write(np.full((1, 64, 64), 7, np.uint8), "here.tif")
    for name in ("a.vrt", "b.vrt"):
        vrt = _vrt(tmp_path / name, "gone.tif" if name == "a.vrt" else "a.vrt", "here.tif")
        with pytest.raises(DataError, match=rf"{name}: its part gone.tif is missing") as raised:
            shop.transform(vrt)
        assert raised.value.hint == "bring it back, or build the VRT anew"


def test_a_mosaics_damaged_part_is_not_the_mosaics_damage(
    shop: Workshop, write: Callable[..., Path], tmp_path: Path
) -> None:
    """GDAL's words name the part; to fetch the VRT again would help nobody."""
    part = write(np.random.default_rng(1).integers(0, 255, (1, 64, 64), np.uint8), "part.tif", compress="deflate")
    part.write_bytes(part.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"part\.tif") as raised:
        shop.transform(_vrt(tmp_path / "a.vrt", "part.tif"))
    assert raised.value.hint == ""


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            "TIFFReadEncodedTile() failed.; ZIPDecode:Decoding error at scanline 0",
            "the source is damaged: fetch or export it again",
        ),
        ("Not enough data for scanline 0", "the source is damaged: fetch or export it again"),
        ("Cannot open TIFF file due to missing codec of code 34712.", ""),
        ("Permission denied", ""),
        ("different data types are not supported", ""),
    ],
)
def test_damage_is_hinted_at_where_it_was_seen(said: str, hint: str, tmp_path: Path) -> None:
    """A codec that is missing, a right or a type is no damage."""
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    assert culprit(str(tmp_path / "a.tif"), said) == ("", hint)
    there, todo = culprit("https://example.org/a.tif", said)
    assert ("cut short" in there, "run again" in todo) == (bool(hint), bool(hint))


def _with_entry(path: Path, code: int, kind: int, count: int, value: int) -> Path:
    """A classic little-endian TIFF with one more entry in its directory, which is written anew at its end."""
    data = bytearray(path.read_bytes())
    at = struct.unpack_from("<I", data, 4)[0]
    entries = [
        bytes(data[each : each + 12]) for each in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12)
    ]
    entries = sorted([*entries, struct.pack("<HHII", code, kind, count, value)], key=lambda each: each[:2][::-1])
    data += b"\0" * (len(data) % 2)
    struct.pack_into("<I", data, 4, len(data))
    path.write_bytes(bytes(data) + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4)
    return path


def test_a_malformed_tag_is_the_headers_fault(shop: Workshop, write: Callable[..., Path]) -> None:
    """What rasterio raises of a directory that points nowhere, none of its own errors, is one line about the source."""
    source = _with_entry(write(np.full((1, 64, 64), 7, np.uint8)), 330, 4, 1, 2**31)  # SubIFDs
    with pytest.raises(SourceError, match=r"in\.tif: its header cannot be read: .*Failed to read directory") as raised:
        shop.transform(source)
    assert raised.value.exit_code == 2
    assert isinstance(raised.value.__cause__, rasterio._err.CPLE_AppDefinedError)


def test_what_was_not_translated_where_it_was_raised_is_not_unexpected() -> None:
    """Any of the libraries' families is told as theirs; of no cause that nobody saw."""
    for error in (rasterio._err.CPLE_AppDefinedError(1, 1, "odd tag"), rasterio.errors.RasterioError("odd tag")):
        told = explain_exception(error, "a.tif")
        assert isinstance(told, DataError)
        assert "odd tag" in told.message
        assert "unexpected" not in told.message
        assert told.hint == ""
