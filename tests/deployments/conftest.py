"""A small raster, and a listener that stands for whoever is to be told of failed runs."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin


def write_raster(path: Path) -> Path:
    """512 x 512 uint16 with nodata 0, tiled, EPSG:32633."""
    pixels = np.random.default_rng(5).integers(0, 12000, (1, 512, 512), dtype="uint16")
    with rasterio.open(
        path, "w", driver="GTiff", width=512, height=512, count=1, dtype="uint16", nodata=0, tiled=True,
        blockxsize=256, blockysize=256, crs="EPSG:32633", transform=from_origin(500000, 5000000, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(pixels)
    return path


class Listener(http.server.ThreadingHTTPServer):
    """Takes what is posted to it, on loopback."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        heard = self.heard

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                words = self.rfile.read(int(self.headers["Content-Length"]))
                heard.append(json.loads(words) | {"content_type": self.headers["Content-Type"]})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}/alerts"


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    """A listener for one module."""
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
