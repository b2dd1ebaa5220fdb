"""In a container of 1 GB the default limit of 2048 MiB is lowered to what is left there; an explicit one is an error."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

ROOT = Path(__file__).resolve().parents[2]
_PLACES = {"memory.limit_in_bytes": Path("/sys/fs/cgroup/memory"), "memory.max": Path("/sys/fs/cgroup")}
_GIB = 1024**3


def _made() -> Path | None:
    for limit, mount in _PLACES.items():
        group = mount / f"swath-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(_GIB))
            except OSError:
                group.rmdir()
                continue
            return group
    return None


def _removed(group: Path) -> None:
    """The kernel takes a moment to let go of a group whose last process has just ended."""
    for _ in range(100):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return
    group.rmdir()


@pytest.fixture
def container() -> Iterator[Path]:
    """A real cgroup of 1 GiB, v1 or v2, as a container has it."""
    group = _made()
    if group is None:
        pytest.skip("NOT RUN: no cgroup of 1 GiB can be made here (needs root and a writable memory controller)")
    yield group
    _removed(group)


def _run(container: Path, folder: Path, *words: str) -> tuple[int, dict[str, dict[str, object]]]:
    enter = (
        "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    command = ["-m", "flows", "raster", str(folder / "tile.tif"), str(folder / "out.tif"), "--json", *words]
    command += ["--operation", "normalise"]
    run = subprocess.run(
        [sys.executable, "-c", enter, str(container / "cgroup.procs"), *command],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return run.returncode, json.loads(run.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small raster."""
    with rasterio.open(
        tmp_path / "tile.tif", "w", driver="GTiff", width=600, height=600, count=1, dtype="uint16", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 500000, 0, -10, 5000000),
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((1, 600, 600), dtype="uint16"))
    return tmp_path


def test_the_default_limit_is_lowered(container: Path, folder: Path) -> None:
    """The job completes under three quarters of the container, and its report says that the host chose the limit."""
    code, report = _run(container, folder)
    assert code == 0, report["error"]
    resources = report["job"]["resources"]
    assert resources["limit_origin"] == "host"  # type: ignore[index]
    assert resources["limit_bytes"] == 768 * 1024**2  # type: ignore[index]


def test_an_explicit_limit_above_the_container_is_an_error(container: Path, folder: Path) -> None:
    """2048 MiB asked for in a container of 1 GiB: exit 2, naming the cgroup."""
    code, report = _run(container, folder, "--memory-limit-mb", "2048")
    assert code == 2
    assert report["error"]["type"] == "HostLimitError"
    assert "cgroup" in str(report["error"]["message"])
