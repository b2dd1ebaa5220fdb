"""Checks of a vector output against its source: structure and counts always, recomputation by the plain path (`recompute.py`).

`basic` ends every run; `full` is a job of its own with flat memory: every row decodes, a seeded sample satisfies the
predicate, and sampled batches of the source are filtered again, so that rows lost, doubled or mixed up are seen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.random import default_rng  # here: amid the work its import would be ten thousand traces

from lib import provenance
from lib.errors import MemoryRefused
from lib.jobs import VectorJob, VerifyJob
from lib.memory.work import Bench, Room
from lib.reports import Plan
from lib.units import MIB
from lib.vector import ogr
from lib.vector.area import AreaMethod, Bounds, area_method
from lib.vector.facts import LayerFacts, read_facts
from lib.vector.plan import fit
from lib.vector.recompute import Membership, comparable_fields, near, plain_area, row_digests
from lib.vector.terms import COLUMN_BYTES, batch_bytes_of
from lib.vector.wkb import values_of

__all__ = ["basic", "full", "plan_full", "read_provenance"]

_BASIC_ROWS = 16
_BASIC_BYTES = 2 * MIB
_FULL_ROWS = 2048
_SOURCE_BATCHES = 4
_SOURCE_ROWS = 1024
_SEED = 20240229
_MOST_ROWS = 4096
# Digests of sampled rows, decoded geometries and their Python objects, of one batch.
_PLAIN_FACTOR = 4
# A row's digest makes an object of each value, and tracing remembers it, up to its own bound: 190 bytes in all, of which
# the batch's factor has a part (60,000 values of 1,500 columns).
_VALUE_BYTES, _MOST_VALUES_BYTES = 140, 5 * MIB
# Two datasets are open one after the other, and what SQLite and its driver touched for one stays: 4.3 to 4.8 MiB above the
# terms of a single pass, with pyogrio 0.13.0; nothing where neither is an SQLite file.
_SQLITE_BYTES = 6 * MIB
_TEXT: tuple[str, ...] = ("OFTString",)
_LISTS = ("OFTStringList", "OFTIntegerList", "OFTInteger64List", "OFTRealList")
# What a format cannot keep, and what it makes of it.
_BECOMES: dict[str, dict[str, tuple[str, ...]]] = {
    "FlatGeobuf": {"OFTDate": ("OFTDateTime", "OFTString"), "OFTTime": ("OFTString", "OFTDateTime")}
    | dict.fromkeys(_LISTS, _TEXT),
    "GPKG": {"OFTTime": _TEXT} | dict.fromkeys(_LISTS, _TEXT),
}


def read_provenance(path: str | Path) -> dict[str, Any] | None:
    """What an output says of its origin: `version`, `job` (no resources, no folders), `source`; None where it says nothing."""
    try:
        info, _ = ogr.read_info(str(path))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - no dataset: no provenance
        return None
    # Of the layer; a GeoPackage's was once the dataset's.
    found = (info["dataset_metadata"] or {}) | (info["layer_metadata"] or {})
    job = provenance.job_in(found, "vector")
    return job and {"version": provenance.version_in(found), "job": job, "source": provenance.source_in(found)}


def basic(
    output: str | Path,
    source: str,
    job: VectorJob | None,
    expected: dict[str, Any] | None,
    result: dict[str, Any] | None,
    bench: Bench,
) -> None:
    """Structure, counts and a few recomputed rows; each as a check on the bench.

    Args:
        output: the file written.
        source: where it came from.
        job: what wrote it; None where that is not known.
        expected: the plan's `expected`; None checks that it opens, alone.
        result: the engine's result, for its counts.
        bench: where checks go.
    """
    info, method = _opened(str(output), source, job, expected, result, bench)
    if info is None or method is None:
        return
    bounds, wrong = _bounds(job), 0
    values = _first_geometries(str(output), info, int((expected or {}).get("largest_feature_bytes", 0)))
    rows = len(values)
    while values:
        wrong += not _satisfies(shapely.from_wkb(values.pop()), method, bounds)
    bench.check("areas", wrong == 0, f"{wrong} of {rows} recomputed rows are outside the bounds ({method.mode})")


def _first_geometries(output: str, info: dict[str, Any], largest_bytes: int) -> list[bytes | None]:
    """The first rows' WKB, a few MiB or one of them; the reader, which holds copies of its own, is closed behind them."""
    most_rows = max(1, min(_BASIC_ROWS, _BASIC_BYTES // max(largest_bytes, 1)))
    with (
        ogr.configured(OGR_GPKG_NUM_THREADS="1"),
        ogr.open_batches(output, info["layer_name"], most_rows) as (_, reader),
    ):
        for batch in reader:
            return values_of(batch.column(_geometry_index(batch, info)))
    return []


def full(
    output: str | Path,
    source: str,
    job: VectorJob | None,
    expected: dict[str, Any] | None,
    result: dict[str, Any] | None,
    bench: Bench,
    *,
    batch_rows: int,
) -> None:
    """What `basic` checks, and: every row decodes, a larger sample is recomputed, sampled source batches are filtered again.

    Args:
        output: the file written.
        source: where it came from.
        job: what wrote it; None where that is not known: then structure and decoding alone are checked.
        expected: the plan's `expected`.
        result: the engine's result.
        bench: where checks go; its meter is ticked by batch.
        batch_rows: rows read at once.
    """
    info, method = _opened(str(output), source, job, expected, result, bench)
    if info is None:
        return
    types = {str(name): str(typed) for name, typed in zip(info["fields"], info["ogr_types"], strict=True)}
    fields = comparable_fields(expected["fields"] if expected else [], types)
    members = None
    if job is not None and job.verify != "none" and expected and info["geometry_type"] and (method or not job.function):
        members = _source_sample(source, job, fields, method, bench, batch_rows)
    _read_output(str(output), info, method, _bounds(job), fields, members, bench, batch_rows)
    if members is not None and job is not None:
        # A function's own predicate is not known here: what it may have dropped is not missed.
        missing = 0 if job.function else members.missing
        bench.check(
            "membership",
            missing == 0 and members.strangers == 0,
            f"{members.rows} source rows filtered again: {missing} are missing, {members.strangers} should not be there",
        )


def plan_full(job: VerifyJob, room: Room) -> Plan:
    """The plan of a full verification: batches of the source and then of the output, one at a time.

    Raises:
        SourceError: the source or the output is no vector dataset.
        MemoryRefused: the budget is too small.
    """
    resources = job.resources
    rows = min(resources.chunk_rows, _MOST_ROWS)
    layers = [read_facts(job.output, (job.expected or {}).get("layer"), Path(job.output).name, rows)]
    if isinstance(job.work, VectorJob):
        layers.append(read_facts(job.source, job.work.layer, job.label, rows))
    plans, refusals = [], []
    for facts in layers:
        try:
            plan = fit(
                facts,
                sink="",
                measures_area=True,
                baseline_bytes=room.baseline_bytes,
                budget_bytes=room.budget_bytes,
                most_rows=rows,
                margin_bytes=resources.margin_bytes,
                batch_factor=_PLAIN_FACTOR,
                area_factor=_PLAIN_FACTOR,
                extra=_terms_of_both(layers, rows),
            )
        except MemoryRefused as refused:
            refusals.append(refused)
        else:
            plans.append(plan)
    if refusals:  # both must fit: the larger number is the smallest limit
        raise max(refusals, key=lambda each: each.smallest_limit_bytes or 0)
    chosen = max(plans, key=lambda each: each.projected_bytes)
    chunks = sum(-(-facts.count // min(each.rows for each in plans)) for facts in layers if facts.count > 0)
    return Plan(
        limit_bytes=room.limit_bytes,
        projected_bytes=chosen.projected_bytes,
        baseline_bytes=room.baseline_bytes,
        disk_bytes=0,
        smallest_limit_bytes=max(each.smallest_bytes for each in plans),
        batch_rows=min(each.rows for each in plans),
        chunks=chunks,
        terms=chosen.terms,
        expected=job.expected or {},
        facts=layers[-1].shown,
    )


def _terms_of_both(layers: list[LayerFacts], rows: int) -> dict[str, int]:
    """What verifying takes beside a pass over one layer, bytes by name."""
    values = max(facts.at_most(rows) * len(facts.fields) for facts in layers)
    terms = {"Python objects": min(values * _VALUE_BYTES, _MOST_VALUES_BYTES)}
    if len(layers) > 1:
        terms["columns of the other"] = len(layers[-1].fields) * COLUMN_BYTES
    if any(facts.driver in ("GPKG", "SQLite") for facts in layers):
        terms["SQLite"] = _SQLITE_BYTES
    return terms


@contextmanager
def _batches(facts: LayerFacts, rows: int) -> Iterator[Any]:
    """A layer's batches, as small as `plan_full` planned them."""
    limits = ogr.reading(facts.driver, batch_bytes_of(facts, rows), facts.sizes.feature_bytes)
    with ogr.configured(**limits), ogr.open_batches(facts.source, facts.layer, facts.at_most(rows)) as (_, reader):
        yield reader


def _opened(
    output: str,
    source: str,
    job: VectorJob | None,
    expected: dict[str, Any] | None,
    result: dict[str, Any] | None,
    bench: Bench,
) -> tuple[dict[str, Any] | None, AreaMethod | None]:
    """The output's description, checked, and how its areas are recomputed; None each where there is nothing to."""
    info = _structure(output, expected, result, bench)
    return info, None if info is None else _plain_method(job, info, source)


def _structure(
    output: str, expected: dict[str, Any] | None, result: dict[str, Any] | None, bench: Bench
) -> dict[str, Any] | None:
    """Open the output and compare its description; None where it does not open."""
    try:
        info, _ = ogr.read_info(output, (expected or {}).get("layer"), count=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it does not open
        bench.check("opens", passed=False, detail=ogr.one_line(error))
        return None
    bench.check("opens", passed=True, detail=f"{info['driver']}, layer {info['layer_name']}")
    if expected:
        for name, found in (
            ("driver", info["driver"]),
            ("layer", info["layer_name"]),
            ("geometry type", info["geometry_type"]),
        ):
            wanted = expected[name.replace(" ", "_")]
            bench.check(name, found == wanted, f"{found}, planned {wanted}")
        _check_fields(info, expected, bench)
        bench.check(
            "CRS",
            _same_crs(info["crs"], expected["crs"]),
            f"{_crs_name(info['crs'])}, planned {_crs_name(expected['crs'])}",
        )
    if result:
        kept = result["features_kept"]
        bench.check("count", info["features"] == kept, f"{info['features']} features in the output, {kept} were kept")
    return info


def _check_fields(info: dict[str, Any], expected: dict[str, Any], bench: Bench) -> None:
    names = [name for name, _ in expected["fields"]]
    found = list(map(str, info["fields"]))
    bench.check("fields", found == names, f"{len(found)} fields" if found == names else f"{found}, planned {names}")
    becomes: dict[str, tuple[str, ...]] = _BECOMES.get(expected["driver"], {})
    types = dict(zip(found, info["ogr_types"], strict=True))
    wrong = []
    for name, typed in expected["fields"]:
        wanted = typed.partition(":")[0]
        if name in types and types[name] not in (wanted, *becomes.get(wanted, ())):
            wrong.append(f"{name} is {types[name]}, planned {wanted}")
    bench.check("field types", not wrong, "; ".join(wrong) or "as planned")


def _same_crs(found: str | None, wanted: str | None) -> bool:
    if not found or not wanted or found == wanted:
        return (found or None) == (wanted or None)
    one, other = pyproj.CRS.from_user_input(found), pyproj.CRS.from_user_input(wanted)
    return bool(one.equals(other, ignore_axis_order=True)) or one.to_wkt() == other.to_wkt()


def _crs_name(crs: str | None) -> str:
    if crs is None or crs.startswith("EPSG:"):
        return crs or "none"
    return str(pyproj.CRS.from_user_input(crs).name)


def _plain_method(job: VectorJob | None, info: dict[str, Any], source: str) -> AreaMethod | None:
    """How areas are recomputed; None where none was asked for, or no recomputation."""
    if job is None or job.verify == "none" or (job.min_area_sqm is None and job.max_area_sqm is None):
        return None
    return area_method(info["crs"], job.area, Path(source).name)


def _bounds(job: VectorJob | None) -> Bounds:
    return Bounds(job.min_area_sqm, job.max_area_sqm) if job else Bounds(None, None)


def _satisfies(geometry: Any, method: AreaMethod, bounds: Bounds) -> bool:
    area = plain_area(geometry, method)
    return bounds.holds(area) or near(area, bounds)


def _geometry_index(batch: Any, info: dict[str, Any]) -> int:
    return int(batch.schema.get_field_index(ogr.geometry_column(info)))


def _source_sample(
    source: str, job: VectorJob, fields: list[str], method: AreaMethod | None, bench: Bench, batch_rows: int
) -> Membership:
    """Judge rows of some source batches, chosen by a seed, by the plain path."""
    facts = read_facts(source, job.layer, job.label, batch_rows)
    name = facts.geometry_name or ""
    promotes = facts.driver == "ESRI Shapefile" and (facts.geometry_type or "").startswith(("Polygon", "LineString"))
    generator = default_rng(_SEED)
    share = min(1.0, _SOURCE_BATCHES * batch_rows / max(facts.count, 1))
    members, taken = Membership(), 0
    with _batches(facts, batch_rows) as reader:
        for batch in reader:
            if taken < _SOURCE_BATCHES and generator.random() < share:
                taken += 1
                rows = batch.slice(0, _SOURCE_ROWS)
                digests = row_digests(rows, name, fields, promotes=promotes)
                geometries = shapely.from_wkb(rows.column(rows.schema.get_field_index(name)).to_pylist())
                members.add(digests, list(geometries), method, _bounds(job))
            bench.meter.chunk()
    return members


def _read_output(
    output: str,
    info: dict[str, Any],
    method: AreaMethod | None,
    bounds: Bounds,
    fields: list[str],
    members: Membership | None,
    bench: Bench,
    batch_rows: int,
) -> None:
    """Decode every row; recompute a seeded sample; look for the rows of the source's sample."""
    generator = default_rng(_SEED)
    share = min(1.0, _FULL_ROWS / max(int(info["features"]), 1))
    rows = sampled = wrong = 0
    trouble = ""
    try:
        facts = read_facts(output, info["layer_name"], Path(output).name, batch_rows)
        with _batches(facts, batch_rows) as reader:
            for batch in reader:
                rows += batch.num_rows
                if info["geometry_type"]:
                    geometries = shapely.from_wkb(batch.column(_geometry_index(batch, info)).to_pylist())
                    chosen = np.flatnonzero(generator.random(len(geometries)) < share) if method else ()
                    sampled += len(chosen)
                    wrong += sum(not _satisfies(geometries[row], method, bounds) for row in chosen if method)
                if members is not None:
                    members.see(row_digests(batch, ogr.geometry_column(info), fields, promotes=False))
                bench.meter.chunk()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a row that does not decode, in OGR, Arrow or GEOS
        trouble = ogr.one_line(error)
    complete = not trouble and rows == info["features"]
    bench.check("decodes", complete, trouble or f"{rows} of {info['features']} rows decode")
    if method is not None:
        bench.check("areas", wrong == 0, f"{wrong} of {sampled} recomputed rows are outside the bounds ({method.mode})")
