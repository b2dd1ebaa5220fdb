"""What reading raises, in our words."""

import errno
import resource
from collections.abc import Iterator

import pytest
from rasterio.errors import RasterioIOError

from lib.errors import DataError, MemoryExceeded, OutputError
from lib.raster.faults import read, writing

_ROOMY = 2**40  # bytes: a cap that refuses nothing here, but can be seen


@pytest.fixture
def capped() -> Iterator[None]:
    """A soft RLIMIT_AS on this process."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_ROOMY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _is_capped() -> bool:
    return resource.getrlimit(resource.RLIMIT_AS)[0] == _ROOMY


@pytest.mark.usefixtures("capped")
def test_a_decoder_that_works_without_the_cap_was_refused_memory() -> None:
    """Some codecs say only that they failed: what fails twice under the cap and not without it is memory."""

    def silent() -> int:
        if _is_capped():
            raise RasterioIOError("IReadBlock failed")
        return 1

    with pytest.raises(MemoryExceeded, match="it decodes without RLIMIT_AS"):
        read(silent, "tile.tif")


@pytest.mark.usefixtures("capped")
def test_a_damaged_block_is_data() -> None:
    """With the cap or without it."""

    def damaged() -> None:
        raise RasterioIOError("IReadBlock failed")

    with pytest.raises(DataError, match=r"tile.tif: a block .*does not decode"):
        read(damaged, "tile.tif")


@pytest.mark.usefixtures("capped")
def test_a_read_that_fails_once_is_no_memory() -> None:
    """A network's hiccup goes away by itself: no evidence of memory, and the cap stays."""
    failures = iter([RasterioIOError("connection reset")])

    def once() -> None:
        for failure in failures:
            raise failure

    with pytest.raises(DataError):
        read(once, "tile.tif")
    assert _is_capped()


@pytest.mark.parametrize(("at_cap", "error"), [(True, MemoryExceeded), (False, OutputError)])
def test_a_write_that_fails_at_the_cap_is_memory(
    at_cap: bool, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL says "Write failed" of a disk and of memory alike; a disk's own error number stays the disk's."""
    monkeypatch.setattr("lib.memory.cap.is_near_address_space_cap", lambda _: at_cap)
    with pytest.raises(error), writing("out.tif"):
        raise RasterioIOError("Write failed")
    with pytest.raises(OutputError), writing("out.tif"):
        raise OSError(errno.ENOSPC, "No space left on device")
