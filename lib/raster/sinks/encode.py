"""Tiles of pixels to bytes as libtiff writes them: predictor, codec, padding at the edges. No file; that is `tiles.py`.

Everything of a tile's size is done without the interpreter's lock, so threads that encode do not wait for each other.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from imagecodecs import deflate_encode, delta_encode, floatpred_encode, lzw_encode, zstd_encode
from numpy.typing import NDArray

from lib.units import KIB, MIB

CODECS: Final = ("none", "lzw", "deflate", "zstd", "lerc")
# TIFF's numbers: 2 is differences of neighbours, as integers of their width; 3 is the bytes of floats, sorted by weight.
_NONE, _HORIZONTAL, _FLOATING = PREDICTORS = (1, 2, 3)
LEVELS: Final = {"deflate": range(1, 13), "zstd": range(1, 23)}
UNPREDICTED: Final = frozenset({"none", "lerc"})
LERC_DTYPES: Final = frozenset({"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"})
_MASK_LEVEL = 6
# What a codec holds beside the tile and its result while it runs (MEASURED, "What encoders hold").
_LZW_TABLE_BYTES = 128 * KIB
_DEFLATE_STATE_BYTES = {9: MIB, 12: 7 * MIB}  # by the highest level
_ZSTD_STATE_BYTES = {2: MIB, 4: 3 * MIB, 9: 12 * MIB}
_ZSTD_STATE_TILES = 17  # above level 9, in tiles


@dataclass(frozen=True, slots=True)
class Encoding:
    """How an output's pixels become bytes.

    Attributes:
        compress: one of `CODECS`.
        dtype: of the pixels; any fixed-size number in native byte order.
        block: edge of a tile in pixels, a multiple of 16.
        predictor: one of `PREDICTORS`; 2 is for real numbers, 3 for floating point; lerc and none have none (1).
        level: one of `LEVELS`; codecs that have none take None.

    Raises:
        ValueError: no such combination.
    """

    compress: str
    dtype: np.dtype[Any]
    block: int
    predictor: int = _NONE
    level: int | None = None

    def __post_init__(self) -> None:
        """Refuse what libtiff would not read."""
        kinds = {_NONE: "iufc", _HORIZONTAL: "iuf", _FLOATING: "f"}.get(self.predictor, "")
        if (
            self.compress not in CODECS
            or self.dtype.kind not in kinds
            or (self.compress in UNPREDICTED and self.predictor != _NONE)
            or (self.compress == "lerc" and self.dtype.name not in LERC_DTYPES)
            or (self.dtype.name == "float16" and self.predictor == _FLOATING)  # GDAL 3.12 refuses it
            or self.level not in LEVELS.get(self.compress, (None,))
            or self.block <= 0
            or self.block % 16
        ):
            raise ValueError(f"no such encoding: {self}")

    @property
    def tile_bytes(self) -> int:
        """Size of a tile as it is decoded."""
        return self.block * self.block * self.dtype.itemsize

    @property
    def bound_bytes(self) -> int:
        """No encoded tile is larger: the codecs' own bounds (libdeflate's and Zstandard's rounded up)."""
        raw = self.tile_bytes
        return {
            "none": raw,
            "lzw": raw * 141 // 100 + 3,
            "deflate": raw + raw // 512 + 64,
            "zstd": raw + raw // 256 + 128,
            "lerc": raw + self.block * self.block // 8 + KIB,
        }[self.compress]

    @property
    def scratch_bytes(self) -> int:
        """What one encoder holds while it encodes, beside its argument and the bytes that it returns."""
        plain = self.tile_bytes * (2 if self.predictor == _FLOATING else 1)
        packed = 0 if self.compress in UNPREDICTED else self.bound_bytes
        mask = 2 * (self.block * self.block // 8)
        if self.compress == "lerc":  # a mask of what is not NaN, and its own state (MEASURED, "What encoders hold")
            mask += 3 * self.block * self.block
        return plain + packed + mask + self._state_bytes()

    @property
    def options(self) -> dict[str, Any]:
        """GDAL's creation options of a GeoTIFF with such tiles. Levels are not stored in a file, and left out."""
        options: dict[str, Any] = {"TILED": "YES", "BLOCKXSIZE": self.block, "BLOCKYSIZE": self.block}
        options |= {"INTERLEAVE": "BAND", "COMPRESS": self.compress.upper()}
        return options if self.compress in UNPREDICTED else options | {"PREDICTOR": self.predictor}

    def _state_bytes(self) -> int:
        """What the codec allocates for each tile, and gives back."""
        if self.level is None:
            return _LZW_TABLE_BYTES if self.compress == "lzw" else 0
        states = _DEFLATE_STATE_BYTES if self.compress == "deflate" else _ZSTD_STATE_BYTES
        fits = [state for highest, state in states.items() if self.level <= highest]
        return fits[0] if fits else max(states.values()) + _ZSTD_STATE_TILES * self.tile_bytes


@dataclass(slots=True)
class TileEncoder:
    """Encodes one tile at a time, in buffers of its own: one for each thread.

    Attributes:
        encoding: how.
        hole: what readers take a tile for that is not there, as a pixel; tiles of nothing else become None. Not where None.
    """

    encoding: Encoding
    hole: Any = None
    _plain: NDArray[Any] = field(init=False, repr=False)
    _padded: NDArray[Any] | None = field(init=False, repr=False, default=None)
    _packed: bytearray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the buffers."""
        encoding = self.encoding
        shape = (encoding.block, encoding.block)
        self._plain = np.empty(shape, encoding.dtype)
        if encoding.predictor == _FLOATING:
            self._padded = np.empty(shape, encoding.dtype)
        self._packed = bytearray(0 if encoding.compress in UNPREDICTED else encoding.bound_bytes)

    def encode(self, tile: NDArray[Any]) -> bytes | None:
        """Encode the pixels of one tile.

        Args:
            tile: `(height, width)` of the encoding's dtype, any strides; at the right and lower edge of a raster
                smaller than a block: its last column is repeated, and rows of zeros follow, as they compress best.

        Returns:
            The tile as it stands in the file; None where it is a hole.

        Raises:
            ValueError: another dtype, or larger than a block, or empty.
            MemoryError: the codec could not allocate its state.
        """
        block, height, width = self.encoding.block, *tile.shape
        if tile.dtype != self.encoding.dtype or not 0 < height <= block or not 0 < width <= block:
            raise ValueError(f"a tile of {tile.shape} {tile.dtype} is none of {self.encoding}")
        if self.hole is not None and _is_all(tile, self.hole):
            return None
        return self._compress(self._predict(tile))

    def encode_mask(self, valid: NDArray[np.bool_]) -> bytes | None:
        """Encode one tile of a GDAL internal mask: one bit a pixel, set where it is valid, DEFLATE. None: a hole, nothing is.

        Args:
            valid: `(height, width)`, at most a block.
        """
        height, width = valid.shape
        if self.hole is not None and not valid.any():
            return None
        bits = np.zeros((self.encoding.block, self.encoding.block // 8), np.uint8)
        bits[:height, : -(-width // 8)] = np.packbits(valid, axis=1)
        return bytes(deflate_encode(bits.reshape(-1), level=_MASK_LEVEL))

    def _predict(self, tile: NDArray[Any]) -> NDArray[Any]:
        """The tile padded and predicted, `(block, block)` in C order."""
        plain, (height, width) = self._plain, tile.shape
        if self._padded is not None:
            _pad(tile, self._padded)
            floatpred_encode(self._padded, axis=-1, out=plain)
        elif self.encoding.predictor == _HORIZONTAL:
            integers = f"u{plain.itemsize}"
            delta_encode(tile.view(integers), axis=-1, out=plain.view(integers)[:height, :width])
            plain[:height, width:] = 0  # no difference to the last column
            plain[height:] = 0
        elif tile.shape == plain.shape and tile.flags.c_contiguous:
            return tile
        else:
            _pad(tile, plain)
        return plain

    def _compress(self, plain: NDArray[Any]) -> bytes:
        compress, level = self.encoding.compress, self.encoding.level
        data = plain.reshape(-1).view(np.uint8)
        if compress == "none":
            return data.tobytes()
        try:
            if compress == "lzw":
                packed = lzw_encode(data, out=self._packed)
            elif compress == "lerc":
                return _lerc(plain)
            elif compress == "zstd":
                packed = zstd_encode(data, level=level, out=self._packed)
            else:
                packed = deflate_encode(data, level=level, out=self._packed)
        except RuntimeError as error:  # the result always fits: all that can fail is to allocate the codec's state
            raise MemoryError(f"no memory for the {compress} encoder: {error}") from error
        return bytes(packed)


def _lerc(tile: NDArray[Any]) -> bytes:
    """Lossless; NaN is told by a mask, as libtiff does."""
    from imagecodecs import lerc_encode

    masks = None
    if tile.dtype.kind == "f" and (isnan := np.isnan(tile)).any():
        masks = np.logical_not(isnan, out=isnan)
    return bytes(lerc_encode(tile, level=0, masks=masks))


def _is_all(tile: NDArray[Any], value: Any) -> bool:
    """Whether each pixel is that one, bit for bit."""
    bits = f"V{tile.itemsize}" if tile.dtype.kind == "c" else f"u{tile.itemsize}"
    wanted = np.asarray(value, tile.dtype).view(bits)
    return bool(tile[0, 0].view(bits) == wanted and (tile.view(bits) == wanted).all())


def _pad(tile: NDArray[Any], into: NDArray[Any]) -> None:
    """Copy a tile into a whole block, its last column repeated, and zeros below (MEASURED, "Padding of the last tiles")."""
    height, width = tile.shape
    into[:height, :width] = tile
    into[:height, width:] = into[:height, width - 1 : width]
    into[height:] = 0
