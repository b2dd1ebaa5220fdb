"""Which drivers this build can open with and create with: looked up, then tried on a tiny dataset.

rasterio and pyogrio each bring their own GDAL, so a raster driver is asked of the one and a vector driver of
the other. rasterio's own driver map lacks COG; GDAL's metadata (DCAP_*) has all, but only ctypes reaches it. Only
the formats in the two trial tables are tried: the others are services, or need a source of their own. Choosing
a driver for a destination is `lib/request.py`.
"""

import contextlib
import ctypes
import difflib
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import rasterio._env
import rasterio.shutil
import shapely
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from lib.errors import JobFailed, MemoryRefused
from lib.jobs import DriversJob
from lib.memory.work import Bench, Room
from lib.probe import probe
from lib.reports import Outcome, Plan
from lib.units import MIB, format_bytes, mib
from lib.vector import ogr  # noqa: F401 - it imports pyogrio without pandas, so it must come first

# isort: split
import pyogrio
import pyogrio._ogr
import pyogrio.raw

__all__ = ["DriverFacts", "plan", "run"]

# Resident growth in a fresh child, mostly code paged in (GDAL 3.9 to 3.12): nothing tried 7.2 to 8.1 MiB, GTiff 15.7,
# FlatGeobuf 10.0, SQLite 15.9, GPKG 25.1, ten raster drivers 20.2, all of both tables 35.4.
_LOOKUP_BYTES = 8 * MIB
_RASTER_BYTES = 8 * MIB
_VECTOR_BYTES = 2 * MIB
_SQLITE_BYTES = 7 * MIB
_EACH_BYTES = MIB // 2
_SOURCE_BYTES = 10 * MIB
_INTERPRETER_BYTES = 3 * MIB
# By how much the size after imports differs from child to child: a limit that was named must do in the next one.
_SPREAD_BYTES = MIB
_ON_SQLITE = frozenset({"gpkg", "sqlite"})


class _VectorTrial(NamedTuple):
    """How to try a vector driver: a file's extension, whether it holds points only, options it needs."""

    extension: str
    point: bool = False
    options: Mapping[str, str] = {}


_RASTER_TRIALS = {
    "GTiff": ".tif",
    "COG": ".tif",
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "GIF": ".gif",
    "JP2OpenJPEG": ".jp2",
    "HFA": ".img",
    "ENVI": ".dat",
    "GPKG": ".gpkg",
    "netCDF": ".nc",
    "Zarr": ".zarr",
}
_VECTOR_TRIALS = {
    "GPKG": _VectorTrial(".gpkg"),
    "FlatGeobuf": _VectorTrial(".fgb"),
    "ESRI Shapefile": _VectorTrial(".shp"),
    "GeoJSON": _VectorTrial(".geojson"),
    "GeoJSONSeq": _VectorTrial(".geojsonl"),
    "OpenFileGDB": _VectorTrial(".gdb"),
    "SQLite": _VectorTrial(".sqlite"),
    "MapInfo File": _VectorTrial(".tab"),
    "GML": _VectorTrial(".gml"),
    "KML": _VectorTrial(".kml"),
    "LIBKML": _VectorTrial(".kml"),
    "GPX": _VectorTrial(".gpx", point=True),
    "CSV": _VectorTrial(".csv", options={"GEOMETRY": "AS_WKT"}),
}
_OF_INTEREST = tuple(dict.fromkeys([*_RASTER_TRIALS, "VRT", *_VECTOR_TRIALS, "OSM"]))


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """What is known of one driver.

    Attributes:
        name: GDAL's short name.
        long_name: GDAL's long name.
        kind: "raster", "vector" or "both".
        reads: it opens datasets.
        creates: it creates them; where tried, it also did.
        tested: a tiny dataset was created, reopened and compared.
        detail: what the trial did, or why there was none.
    """

    name: str
    long_name: str
    kind: str
    reads: bool
    creates: bool
    tested: bool = False
    detail: str = "looked up, not tried"


def plan(job: DriversJob, room: Room) -> Plan:
    """The imports are the cost; a trial's dataset is 16 pixels wide.

    Raises:
        MemoryRefused: the limit is below that.
    """
    terms = _terms(job, room)
    projected = sum(terms.values())
    smallest = mib(projected + _SPREAD_BYTES) * MIB
    if projected > room.budget_bytes:
        raise MemoryRefused(
            f"trying drivers takes {format_bytes(projected)}, the limit is {format_bytes(room.limit_bytes)}",
            hint=f"raise the memory limit to {mib(smallest)} MiB",
            smallest_limit_bytes=smallest,
        )
    return Plan(
        limit_bytes=room.limit_bytes,
        projected_bytes=projected,
        baseline_bytes=room.baseline_bytes,
        disk_bytes=0,
        smallest_limit_bytes=smallest,
        chunks=len(_asked(job)),
        terms=terms,
    )


def _terms(job: DriversJob, room: Room) -> dict[str, int]:
    """What the projection is made of; a name that is in no table (a long one) may be anything."""
    asked = {name.lower() for name in _asked(job)}
    raster = {name.lower() for name in _RASTER_TRIALS}
    vector = {name.lower() for name in _VECTOR_TRIALS}
    other = asked - raster - vector - {"vrt", "osm"}
    return {
        "imports": room.baseline_bytes,
        "look-up": _LOOKUP_BYTES,
        "source": _SOURCE_BYTES if job.source else 0,
        "raster trials": _RASTER_BYTES if asked & raster or other else 0,
        "vector trials": _VECTOR_BYTES if asked & vector or other else 0,
        "SQLite": _SQLITE_BYTES if asked & _ON_SQLITE or other else 0,
        "drivers": len(asked) * _EACH_BYTES,
        "interpreter and libraries": _INTERPRETER_BYTES,
        "margin": job.resources.margin_bytes,
    }


def run(job: DriversJob, plan: Plan, bench: Bench) -> Outcome:
    """Look up and try each driver asked for.

    Raises:
        JobFailed: a named driver is not in this build, can do neither, or cannot create though it must; fact
            `drivers` has what was found of all.
        SourceError: no driver opens the job's source.
    """
    known = _known_drivers()
    by_name = {each.long_name.lower(): each for each in known.values()} | {name.lower(): d for name, d in known.items()}
    bench.meter.start(plan.chunks)
    source = {"path": job.source, **probe(job.source)._asdict()} if job.source else None
    found: dict[str, DriverFacts | None] = {}
    for name in _asked(job):
        facts = by_name.get(name.lower())
        found[name] = _tried(facts) if facts else None
        bench.meter.chunk()
    bench.meter.start(plan.chunks)  # once more: a driver's code, paged in by its trial, stays and is no residue
    bench.meter.finish()
    records = [asdict(facts) for facts in found.values() if facts]
    _require(job, found, by_name, records)
    return Outcome(result={"drivers": records} | ({"source": source} if source else {}))


def _asked(job: DriversJob) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*job.names, *job.create])) or (() if job.source else _OF_INTEREST)


def _require(
    job: DriversJob,
    found: Mapping[str, DriverFacts | None],
    by_name: Mapping[str, DriverFacts],
    records: list[dict[str, Any]],
) -> None:
    """Raise for what was named and cannot."""
    must_create = {name.lower() for name in job.create}
    problems, near = [], []
    for name in dict.fromkeys([*job.names, *job.create]):
        facts = found[name]
        if facts is None:
            problems.append(f"{name} is not in this build")
            near += _near(name, by_name)
        elif name.lower() in must_create and not facts.creates:
            problems.append(f"{facts.name} cannot create ({facts.detail})")
        elif not (facts.reads or facts.creates):
            problems.append(f"{facts.name} can neither open nor create ({facts.detail})")
    if problems:
        raise JobFailed(
            f"driver {'; driver '.join(problems)}",
            hint=f"did you mean {' or '.join(near)}?"
            if near
            else "`swath drivers` shows what this build can read and write",
            drivers=records,
        )


def _near(name: str, by_name: Mapping[str, DriverFacts]) -> list[str]:
    wanted = name.lower()
    within = [known for known in by_name if wanted in known]
    close = difflib.get_close_matches(wanted, by_name, n=2) or sorted(within, key=len)[:2]
    return list(dict.fromkeys(by_name[match].name for match in close))


def _known_drivers() -> dict[str, DriverFacts]:
    """Every driver of both GDALs by short name, as their metadata has it."""
    raster_item = _metadata_reader(rasterio._env.__file__)  # noqa: SLF001 - the module that links GDAL
    vector_item = _metadata_reader(pyogrio._ogr.__file__)  # noqa: SLF001 - the same, of the other GDAL
    found: dict[str, DriverFacts] = {}
    with rasterio.Env() as env:
        for name, long_name in env.drivers().items():
            if raster_item(name, "DCAP_RASTER"):
                creates = bool(raster_item(name, "DCAP_CREATE") or raster_item(name, "DCAP_CREATECOPY"))
                # COG declares no open: GTiff opens what it wrote, which its trial shows.
                found[name] = DriverFacts(name, long_name, "raster", bool(raster_item(name, "DCAP_OPEN")), creates)
    for name, capability in pyogrio.list_drivers().items():
        raster = found.get(name)
        long_name = vector_item(name, "DMD_LONGNAME") or name
        vector = DriverFacts(name, long_name, "vector", "r" in capability, "w" in capability)
        found[name] = vector if raster is None else _both(raster, vector)
    return found


def _both(raster: DriverFacts, vector: DriverFacts) -> DriverFacts:
    return replace(raster, kind="both", reads=raster.reads or vector.reads, creates=raster.creates or vector.creates)


def _metadata_reader(extension_module: str) -> Callable[[str, str], str]:
    """A function `(driver, item) -> text` of the GDAL that an extension module links; "" where not set."""
    gdal = ctypes.CDLL(extension_module)
    gdal.GDALGetDriverByName.restype = ctypes.c_void_p
    gdal.GDALGetDriverByName.argtypes = [ctypes.c_char_p]
    gdal.GDALGetMetadataItem.restype = ctypes.c_char_p
    gdal.GDALGetMetadataItem.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]

    def item(driver: str, key: str) -> str:
        handle = gdal.GDALGetDriverByName(driver.encode())
        text: bytes | None = gdal.GDALGetMetadataItem(handle, key.encode(), None) if handle else None
        return (text or b"").decode(errors="replace")

    return item


def _tried(facts: DriverFacts) -> DriverFacts:
    """The facts after trying what can be tried; a driver of both kinds must pass both trials to create."""
    if not facts.creates:
        return replace(facts, detail="not tried: it only reads, and there is nothing of it to read")
    trials: list[tuple[str, Callable[[], str]]] = []
    if facts.kind != "vector" and facts.name in _RASTER_TRIALS:
        trials.append(("raster", lambda: _try_raster(facts.name)))
    if facts.kind != "raster" and facts.name in _VECTOR_TRIALS:
        trials.append(("vector", lambda: _try_vector(facts.name, _VECTOR_TRIALS[facts.name])))
    if not trials:
        return facts
    results = [(kind, *_outcome(trial)) for kind, trial in trials]
    passed = all(ok for _, ok, _ in results)
    detail = "; ".join(f"{kind}: {detail}" for kind, _, detail in results) if len(results) > 1 else results[0][2]
    return replace(facts, creates=passed, reads=facts.reads or passed, tested=passed, detail=detail)


def _outcome(trial: Callable[[], str]) -> tuple[bool, str]:
    """Whether a trial passed, and its words; GDAL raises many classes of exception, and each is an answer."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return True, trial()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        return False, f"its trial failed: {' '.join(str(error).split())}"


def _try_raster(name: str) -> str:
    """Create 16 x 16 uint8 pixels, reopen and compare.

    Raises:
        ValueError: they came back otherwise.
    """
    # Constant, as lossy codecs (JPEG, WEBP, JPEG 2000) keep that within rounding; WEBP takes 3 or 4 bands.
    bands = 3 if name == "WEBP" else 1
    pixels = np.full((bands, 16, 16), 100, np.uint8)
    grid = rasterio.Affine(0.1, 0, 5, 0, -0.1, 45)
    path = f"/vsimem/swath-drivers/trial{_RASTER_TRIALS[name]}"
    try:
        with rasterio.open(
            path,
            "w",
            driver=name,
            width=16,
            height=16,
            count=bands,
            dtype="uint8",
            crs="EPSG:4326",
            transform=grid,
        ) as dataset:
            dataset.write(pixels)
        with rasterio.open(path) as dataset:
            again, opened_by = dataset.read(indexes=list(range(1, bands + 1))), dataset.driver
    finally:
        with contextlib.suppress(RasterioError, CPLE_BaseError):
            rasterio.shutil.delete(path)
    difference = int(np.abs(again.astype(np.int16) - pixels).max()) if again.shape == pixels.shape else None
    if difference is None or difference > 2:  # noqa: PLR2004 - rounding of a lossy codec
        raise ValueError(f"pixels of shape {pixels.shape} came back as {again.shape}, at most {difference} apart")
    return "created, reopened, equal" + (f" (opened by {opened_by})" if opened_by != name else "")


def _try_vector(name: str, trial: _VectorTrial) -> str:
    """Create one feature, reopen and compare.

    Raises:
        ValueError: it came back otherwise.
    """
    sent = shapely.Point(5.5, 45.25) if trial.point else shapely.box(5, 45, 5.5, 45.25)
    with tempfile.TemporaryDirectory(prefix="swath-drivers-") as folder:
        path = Path(folder, f"trial{trial.extension}")
        pyogrio.raw.write(
            path,
            geometry=np.array([shapely.to_wkb(sent)], dtype=object),
            field_data=[np.array(["swath"], dtype=object)],
            fields=np.array(["name"], dtype=object),
            geometry_type=sent.geom_type,
            crs="EPSG:4326",
            driver=name,
            **trial.options,
        )
        layer = "waypoints" if name == "GPX" else None
        meta, _, geometry, columns = pyogrio.raw.read(path, layer=layer)
    # A driver may name its own field (KML: Name) or add others; the value must be there.
    values = [str(column[0]) for column in columns if len(column)]
    returned = [] if geometry is None else [shapely.from_wkb(each) for each in geometry]
    if len(returned) != 1 or _coordinates(returned[0]) != _coordinates(sent) or "swath" not in values:
        raise ValueError(f"one feature came back as {len(returned)}, fields {', '.join(meta['fields'])}")
    return "created, reopened, equal"


def _coordinates(geometry: Any) -> set[tuple[float, float]]:
    """Its vertices: drivers may promote to multi, add a Z of 0, turn rings and start them elsewhere."""
    return {(round(float(x), 6), round(float(y), 6)) for x, y in shapely.get_coordinates(geometry)}
