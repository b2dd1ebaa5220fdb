"""Which drivers this build can open with and create with: looked up, then tried on a tiny dataset.

rasterio and pyogrio each bring their own GDAL: a half for each (`raster/drivers.py`, `vector/drivers.py`), imported where it is
asked. Formats outside the halves' tables are not tried: they are services, or need a source of their own.
"""

import ctypes
import difflib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from lib.errors import JobFailed
from lib.jobs import RASTER_DRIVERS, VECTOR_DRIVERS, DriversJob
from lib.memory.proc import process_memory
from lib.memory.work import BASELINE_SPREAD_BYTES, Bench, Room
from lib.probe import load, probe
from lib.reports import Outcome, Plan
from lib.units import MIB

# Resident growth of trials, measured (GDAL 3.12), mostly code paged in: the first of a half, by whether it has opened a source,
# and each one.
_FIRST_TRIAL_BYTES = {"raster": 19 * MIB, "vector": 9 * MIB}
_FIRST_AFTER_SOURCE_BYTES = 3 * MIB
_TRIAL_BYTES = MIB
_READ_ONLY = ("VRT", "OSM")


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

    @property
    def swath_writes(self) -> bool:
        """Whether an output of swath can be of it."""
        return self.creates and self.name in {*RASTER_DRIVERS.values(), *VECTOR_DRIVERS.values()}


def prepare(job: DriversJob, room: Room) -> "_Trials":
    """Load the halves that are asked, and find what opens the job's source, if it names one.

    Raises:
        SourceError: no driver opens it.
    """
    halves = _halves(job)
    source = {"path": job.source, **probe(job.source)._asdict()} if job.source else None
    return _Trials(job, room, halves, source)


@dataclass(frozen=True, slots=True)
class _Trials:
    """The trials of the drivers that are asked for; nothing stays open."""

    job: DriversJob
    room: Room
    halves: dict[str, Any]
    source: dict[str, Any] | None

    def first(self) -> Plan:
        """Plan: a driver's code is paged in by its trial."""
        baseline = self.room.baseline_bytes
        imported = max(baseline, process_memory().peak_bytes)  # and the source opened
        opened = self.source["kind"] if self.source else None
        first = sum(_FIRST_AFTER_SOURCE_BYTES if half == opened else _FIRST_TRIAL_BYTES[half] for half in self.halves)
        asked = _asked(self.job, self.halves)
        trials = first + len(asked) * _TRIAL_BYTES
        return Plan(
            limit_bytes=self.room.limit_bytes,
            projected_bytes=imported + trials,
            baseline_bytes=baseline,
            disk_bytes=0,
            smallest_limit_bytes=imported + trials + BASELINE_SPREAD_BYTES,
            chunks=len(asked),
            terms={"baseline": baseline, "imports": imported - baseline, "trials": trials},
            facts={"source": self.source} if self.source else {},
        )

    def look(self) -> Plan:
        """The same: there is nothing to look at beforehand."""
        return self.first()

    def smallest(self, **without: Any) -> int:
        """The smallest limit, bytes; no resource changes it."""
        del without
        return self.first().smallest_limit_bytes

    def close(self) -> None:
        """Nothing is open."""

    def run(self, bench: Bench) -> Outcome:
        """Look up and try each driver asked for.

        Raises:
            JobFailed: a named driver is not in this build, can do neither, or cannot create though it must; fact
                `drivers` has what was found of all.
        """
        plan = self.first()
        bench.settle(plan)
        known = _known_drivers(self.halves)
        by_name = {each.long_name.lower(): each for each in known.values()}
        by_name |= {name.lower(): each for name, each in known.items()}
        bench.meter.start(plan.chunks)
        found = {}
        for name in _asked(self.job, self.halves):
            facts = by_name.get(name.lower())
            found[name] = _tried(facts, self.halves) if facts else None
            bench.meter.chunk()
        bench.meter.start(plan.chunks)  # once more: a driver's code, paged in by its trial, stays and is no residue
        bench.meter.finish()
        records = [asdict(facts) | {"swath_writes": facts.swath_writes} for facts in found.values() if facts]
        _require(self.job, found, by_name, records)
        return Outcome(result={"drivers": records} | plan.facts)


def _halves(job: DriversJob) -> dict[str, Any]:
    """The modules to ask: one, or both where no kind of data is given."""
    kinds = [job.data] if job.data else ["raster", "vector"]
    return {kind: load(f"lib.{kind}.drivers") for kind in kinds}


def _asked(job: DriversJob, halves: Mapping[str, Any]) -> tuple[str, ...]:
    named = tuple(dict.fromkeys([*job.names, *job.create]))
    if named or job.source:
        return named
    return tuple(dict.fromkeys([*(name for half in halves.values() for name in half.TRIALS), *_READ_ONLY]))


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
        hint = "`swath drivers` shows what this build can read and write"
        hint = f"did you mean {' or '.join(near)}?" if near else hint
        raise JobFailed(f"driver {'; driver '.join(problems)}", hint=hint, drivers=records)


def _near(name: str, by_name: Mapping[str, DriverFacts]) -> list[str]:
    wanted = name.lower()
    within = [known for known in by_name if wanted in known]
    close = difflib.get_close_matches(wanted, by_name, n=2) or sorted(within, key=len)[:2]
    return list(dict.fromkeys(by_name[match].name for match in close))


def _known_drivers(halves: Mapping[str, Any]) -> dict[str, DriverFacts]:
    """Every driver of the halves by short name."""
    found: dict[str, DriverFacts] = {}
    for half in halves.values():
        for name, facts in half.known().items():
            found[name] = _both(found[name], facts) if name in found else facts
    return found


def _both(raster: DriverFacts, vector: DriverFacts) -> DriverFacts:
    return replace(raster, kind="both", reads=raster.reads or vector.reads, creates=raster.creates or vector.creates)


def metadata_reader(extension_module: str) -> Callable[[str, str], str]:
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


def _tried(facts: DriverFacts, halves: Mapping[str, Any]) -> DriverFacts:
    """The facts after trying what can be tried; a driver of both kinds must pass both trials to create."""
    if not facts.creates:
        return replace(facts, detail="not tried: it only reads, and there is nothing of it to read")
    kinds = [kind for kind, half in halves.items() if facts.kind in {kind, "both"} and facts.name in half.TRIALS]
    if not kinds:
        return facts
    results = [(kind, *_outcome(halves[kind].attempt, facts.name)) for kind in kinds]
    passed = all(ok for _, ok, _ in results)
    detail = "; ".join(f"{kind}: {detail}" for kind, _, detail in results) if len(results) > 1 else results[0][2]
    return replace(facts, creates=passed, reads=facts.reads or passed, tested=passed, detail=detail)


def _outcome(attempt: Callable[[str], str], name: str) -> tuple[bool, str]:
    """Whether a trial passed, and its words; GDAL raises many classes of exception, and each is an answer."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return True, attempt(name)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        return False, f"its trial failed: {' '.join(str(error).split())}"
