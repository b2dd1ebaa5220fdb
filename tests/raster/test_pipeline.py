"""Several workers: what goes wrong in one of them ends the job with that error, and all of them."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from lib.errors import DataError, FunctionError
from lib.raster import pipeline
from lib.raster.pipeline import Chunk, Encoded, finished
from lib.raster.windows import Window
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RAW = np.random.default_rng(2).integers(0, 9000, (1, 1100, 1300), dtype="uint16")
MANY = {"block_size": 64, "resources": {"max_chunk_bytes": 150_000, "threads": 3}}


def no_worker_is_left() -> bool:
    """True where no thread of a pipeline runs."""
    return not [each for each in threading.enumerate() if each.name.startswith("swath-worker")]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("where", [1000, 300_000, 1_200_000])
def test_a_function_that_fails_under_way(
    shop: Workshop, write: Write, monkeypatch: pytest.MonkeyPatch, threads: int, where: int
) -> None:
    """In the probe, in the middle and at the end: the function's own words, and no worker goes on."""
    (shop.folder / "late.py").write_text(
        "def fail(pixels, valid):\n"
        "    if (pixels == 12345).any():\n        raise ValueError('here it is')\n"
        "    return pixels\n"
    )
    monkeypatch.syspath_prepend(shop.folder)
    raw = RAW.copy()
    raw.reshape(-1)[where] = 12345
    source = write(raw, tiled=True, blockxsize=64, blockysize=64)
    bounds = {"max_chunk_bytes": 1_000_000, "threads": threads}
    with pytest.raises(FunctionError, match=r"late:fail raised ValueError: here it is"):
        shop.transform(source, operation={"name": "custom", "function": "late:fail"}, block_size=64, resources=bounds)
    assert no_worker_is_left()
    with rasterio.open(shop.folder / "out.tif") as dataset:  # the empty skeleton, which nobody publishes
        assert not dataset.read().any() or np.isnan(dataset.read()).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("block", [(0, 3), (8, 7), (17, 20)])
def test_a_damaged_block_under_way(shop: Workshop, write: Write, threads: int, block: tuple[int, int]) -> None:
    """The file and the window are named, whichever worker meets it."""
    source = write(RAW, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    row, column = block
    with rasterio.open(source) as dataset:
        offset = int(dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1))
    with source.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 200)
    with pytest.raises(DataError, match=r"in\.tif: a block in the window rows (\d+):\d+, columns \d+:\d+") as raised:
        shop.transform(source, block_size=64, resources={"max_chunk_bytes": 150_000, "threads": threads})
    assert f"rows {row * 64}:" in str(raised.value) or "columns 0:" in str(raised.value)
    assert no_worker_is_left()


def test_an_interrupt_ends_the_workers(shop: Workshop, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two chunks passes through, and no worker goes on behind it."""
    source = write(RAW, tiled=True, blockxsize=64, blockysize=64)
    begun = []

    def interrupted(chunks: Iterator[Chunk], workers: list[pipeline.Worker]) -> Iterator[Encoded]:
        for number, done in enumerate(finished(chunks, workers)):
            begun.append(number)
            if number == 20:
                raise KeyboardInterrupt
            yield done

    monkeypatch.setattr("lib.raster.attempt.finished", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shop.transform(source, **MANY)
    assert begun[-1] == 20
    assert no_worker_is_left()


class Slow:
    """A worker that takes its time, the first chunk most of it, and counts how many are on their way."""

    most = on_their_way = 0
    lock = threading.Lock()

    def do(self, chunk: Chunk) -> Encoded:
        """Nothing, slowly."""
        with self.lock:
            Slow.on_their_way += 1
            Slow.most = max(Slow.most, Slow.on_their_way)
        time.sleep(0.05 if chunk.window.top == 0 else 0.001)
        with self.lock:
            Slow.on_their_way -= 1
        return Encoded([(0, chunk.window.top, 0, b"")], [], 0, 1)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_chunks_come_back_in_order_and_few_wait(workers: int) -> None:
    """However long one takes, what comes back is in order, and no more chunks are taken than there are workers and one."""
    taken: list[int] = []
    Slow.most = 0

    def chunks() -> Iterator[Chunk]:
        for top in range(40):
            taken.append(top)
            yield Chunk(Window(top, 0, 1, 1), (1,))

    for number, done in enumerate(finished(chunks(), [Slow() for _ in range(workers)])):  # type: ignore[misc]
        assert done.tiles[0][1] == number
        assert len(taken) - number <= workers + 1
    assert len(taken) == 40
    assert Slow.most <= workers
