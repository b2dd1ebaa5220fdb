"""From flat choices (flags, flow parameters) to a Job: settings merged, limit granted, destination checked.

The terminal and the flows ask here in the same words, so that they cannot differ. Opens no dataset: what only the header
can tell is checked in the child.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lib.errors import DestinationError, UsageError
from lib.jobs import (
    COMMON_SETTINGS,
    OF_GEOTIFF,
    OUTPUT_PROFILES,
    PICTURE_DRIVERS,
    RASTER_DRIVERS,
    VECTOR_DRIVERS,
    DriversJob,
    Job,
    ProfileJob,
    RasterJob,
    Resources,
    VectorJob,
    VerifyJob,
    user_function,
)
from lib.knobs import Knob, as_words, knobs_of
from lib.memory.budget import grant_limit
from lib.operations import OPERATIONS, Clip, Copy, Expression, Focal, Reclassify
from lib.paths import absolute, check_exists, is_local, kernel_path_at, source_path_at, table_path_at
from lib.publish import check_destination
from lib.settings import Settings, SettingsLayers, load_settings, settings_knobs
from lib.units import MIB

_Made = TypeVar("_Made")
# Whoever sits at a terminal may run what they like without us; a flow's parameters come from whoever reaches the server.
_at_terminal = ContextVar("at_terminal", default=False)
AnyKind = type[Job]

# Knobs of the door, which no model has.
_CONFIG = Knob(
    name="config", type=str | None, sentence="a YAML file of settings", unset="what BATCH_CONFIG names, if that is set"
)
_REPORT = Knob(
    name="report",
    type=str | None,
    sentence="a report of the job that wrote the output, as `swath … --json` prints it",
    unset="what the output's own metadata says",
)


@contextmanager
def at_terminal() -> Iterator[None]:
    """What runs meanwhile may name any function."""
    token = _at_terminal.set(True)
    try:
        yield
    finally:
        _at_terminal.reset(token)


def job_knobs(kind: AnyKind | None = None) -> list[Knob]:
    """What may be turned of a kind of job, its own knobs, its settings and `config`, common ones first; None: what all have."""
    own = [] if kind is None else knobs_of(kind)
    more = [_REPORT] if kind is VerifyJob else []
    settings = settings_knobs(COMMON_SETTINGS if kind is None else kind.settings)
    return sorted([*own, *more, *settings, _CONFIG], key=lambda each: not each.common)


def settings_of(given: Mapping[str, Any], *, word: str = "flag") -> SettingsLayers:
    """The four layers merged, of choices by the names of their knobs; None means "as configured".

    `word` is what the choices are called in errors: "flag" in the terminal, "parameter" in flows.
    """
    return load_settings(
        given.get("config"), {each.key: given[each.name] for each in _settings_in(given)}, given_layer=word
    )


def flow_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flat choices as a flow takes them: settings as numbers, what was left out (None) left out.

    Raises:
        SettingsError: a setting that cannot be used, named as its flag.
        UsageError: a parameter of another operation.
    """
    settings = settings_of(given).settings
    read = {each.name: getattr(settings, each.key) for each in _settings_in(given)}
    if "operation" in given:
        named, _ = _further(given)
        _made(RasterJob, lambda: _operation(given["operation"], _of_operations(given), "flag", named), "flag")
    return {name: read.get(name, value) for name, value in given.items() if value is not None}


def raster_job(
    source: str, destination: str, *, operation: str | None = None, word: str = "flag", **given: Any
) -> RasterJob:
    """A raster job of flat choices, by the names of its knobs; None: the default. `resources` may be among them."""
    path = check_destination(destination, source, overwrite=bool(given.get("overwrite")))
    named, over = _further(given)
    _check_apart(path, [source, *over, *(each.split("=", 1)[1] for each in named)])
    own, driver = _of_operations(given), _driver(path, RASTER_DRIVERS)
    if driver in PICTURE_DRIVERS:
        _check_no_geotiff(given, driver, word)
    # A form sends every default, and a terminal the switches that are off: what they leave to a profile, that decides.
    profile = knobs_of(RasterJob, OUTPUT_PROFILES.get(given.get("output_profile"), {}))
    sent = [each for each in profile if word != "flag" or each.default is False]
    left = {each.name for each in sent if given.get(each.name) == each.default}
    given = {name: value for name, value in given.items() if name not in left}
    job = _made(
        RasterJob,
        lambda: RasterJob(
            source=absolute(source),
            destination=str(path),
            driver=driver,
            operation=_operation(operation, own, word, named),
            **_rest({key: value for key, value in given.items() if key not in own} | {"sources": over}, word),
        ),
        word,
    )
    _check_function(job, word)
    return job


def _further(given: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Further sources: those with a name, which an expression takes, and whole paths of those that lie over the source."""
    every = tuple(given.get("sources") or ())
    named = tuple(each for each in every if source_path_at(each))
    over = tuple(each for each in every if each not in named)
    for path in over:
        check_exists("source", path)
    return named, tuple(map(absolute, over))


def _check_apart(destination: Path, sources: Sequence[str]) -> None:
    """The destination is none of the sources, and in no folder that is one: there it would be among its rasters the next time.

    Raises:
        DestinationError: it is.
    """
    for each in sources:
        if not (is_local(each) and Path(each).exists()):
            continue
        if Path(each).is_dir() and destination.parent.is_dir() and destination.parent.samefile(each):
            raise DestinationError(
                f"destination {destination} lies in the folder that is a source", hint="write to another folder"
            )
        if destination.exists() and destination.samefile(each):
            raise DestinationError(f"destination {destination} is a source itself", hint="write to another path")


def vector_job(source: str, destination: str, *, word: str = "flag", **given: Any) -> VectorJob:
    """A vector job, likewise."""
    replaces = bool(given.get("overwrite") or given.get("append"))
    path = check_destination(destination, source, overwrite=replaces)
    if is_local(source) and Path(source).is_dir() and path.resolve().is_relative_to(Path(source).resolve()):
        raise DestinationError(
            f"destination {destination} lies in the folder that is the source", hint="write to another folder"
        )
    if given.get("intersects"):
        check_exists("intersects", given["intersects"])
        given["intersects"] = absolute(given["intersects"])
    job = _made(
        VectorJob,
        lambda: VectorJob(
            source=absolute(source), destination=str(path), driver=_driver(path, VECTOR_DRIVERS), **_rest(given, word)
        ),
        word,
    )
    _check_function(job, word)
    return job


def verify_job(source: str, output: str, *, report: str | None = None, word: str = "flag", **given: Any) -> VerifyJob:
    """A verification; the report at path `report` says what the output should be, else its own metadata does."""
    said = _read_report(report) if report else {}
    work, plan, result = (said.get(key) or None for key in ("job", "plan", "result"))
    if not all(part is None or isinstance(part, dict) for part in (work, plan, result)):
        raise UsageError("the report is none of swath's: its job, plan and result must be objects")
    if work is not None and work.get("kind") not in {"raster", "vector"}:
        raise UsageError(f"the report is of a {work.get('kind')} job, not of one that wrote {output}")
    check_exists("source", source)
    check_exists("output", output)
    return _made(
        VerifyJob,
        lambda: VerifyJob(
            source=absolute(source),
            output=str(Path(output).absolute()),
            work=work,
            expected=(plan or {}).get("expected"),
            result=result,
            **_rest(given, word),
        ),
        word,
    )


def profile_job(source: str, *, word: str = "flag", **given: Any) -> ProfileJob:
    """A profile of reading a source."""
    check_exists("source", source)
    return _made(ProfileJob, lambda: ProfileJob(source=absolute(source), **_rest(given, word)), word)


def drivers_job(names: Sequence[str] = (), **given: Any) -> DriversJob:
    """A validation of drivers."""
    return _made(DriversJob, lambda: DriversJob(names=tuple(names), **_rest(given, "flag")), "flag")


def _read_report(path: str) -> dict[str, Any]:
    """A report of another run, as `--json` printed it."""
    hint = "name a file that `swath … --json` wrote"
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"report {path} cannot be read: {error}", hint=hint) from error
    if not isinstance(record, dict):
        raise UsageError(f"report {path} is not a JSON object", hint=hint)
    return record


def _driver(path: Path, drivers: Mapping[str, str]) -> str:
    driver = drivers.get(path.suffix.lower())
    if driver is None:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in drivers.items())
        raise DestinationError(
            f"destination {path.name}: no driver for extension {path.suffix or '(none)'!r}", hint=f"use one of: {known}"
        )
    return driver


def _check_no_geotiff(given: Mapping[str, Any], driver: str, word: str) -> None:
    """Nothing is asked that only a GeoTIFF takes; a form sends the defaults of all.

    Raises:
        UsageError: it is; names it.
    """
    for each in knobs_of(RasterJob, OF_GEOTIFF):
        value = given.get(each.name)
        if value is not None and (value != each.default or (word == "flag" and value is not False)):
            shown = each.as_flag if word == "flag" else each.name
            raise UsageError(
                f"{shown} is of a GeoTIFF, and the destination is a {driver}",
                hint=f"leave {shown} out, or name the output .tif",
            )


def _of_operations(given: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: given[each.name] for each in knobs_of(RasterJob) if each.operations and each.name in given}


def _operation(name: str | None, given: Mapping[str, Any], word: str, named: Sequence[str] = ()) -> BaseModel:
    """The operation with those parameters that are its own, and the sources with names of an expression.

    A form sends the defaults of all operations: of another one they pass, and what was changed does not. In the terminal
    nothing is sent that was not typed.
    """
    name = name or Copy().name
    model = OPERATIONS.get(name)
    if model is None:
        raise UsageError(f"unknown operation {name!r}", hint=f"use one of: {', '.join(OPERATIONS)}")
    knobs = {each.name: each for each in knobs_of(RasterJob) if each.operations}
    for key, value in given.items():
        each = knobs[key]
        # A flag that is on or off comes as off where it was not typed.
        is_left_out = value is None or (value == each.default and (word != "flag" or value is False))
        if name in each.operations or is_left_out:
            continue
        owner = each.operations[0]
        shown, write = (
            (each.as_flag, f"--operation {owner} {each.as_flag} {as_words(value)}")
            if word == "flag"
            else (key, f"operation {owner}, or leave {key} at its default of {each.default_words()}")
        )
        raise UsageError(
            f"{shown} belongs to operation {' or '.join(each.operations)}, not to {name}", hint=f"write {write}"
        )
    own = {knobs[key].key: value for key, value in given.items() if value is not None and name in knobs[key].operations}
    if named and model is not Expression:
        shown = f"--source {named[0]}" if word == "flag" else f"{named[0]} of sources"
        raise UsageError(
            f"{shown} has a name, which only operation expression asks for, not {name}",
            hint="name the file alone to lay it over the source, with ./ before a name that has = in it",
        )
    if named:
        own["sources"] = tuple(named)
    return _with_files(model(**own))


# The function of the flow `demo` that reads a raster whole.
_DEMOS = "lib.whole"


def _check_function(job: Job, word: str) -> None:
    """May a flow call this job's function? The setting is not read from the flow's own parameters.

    Raises:
        UsageError: its module is not among `function_modules`.
    """
    name = user_function(job)
    if name is None or word == "flag" or _at_terminal.get():
        return
    module = name.partition(":")[0]
    allowed = load_settings().settings.function_modules
    if module != _DEMOS and not any(module == each or module.startswith(f"{each}.") for each in allowed):
        whose = f"functions of {', '.join(allowed)} only" if allowed else "no functions"
        raise UsageError(
            f"function {name}: by the setting function_modules a flow may call {whose}",
            hint=f"set BATCH_FUNCTION_MODULES to {','.join([*allowed, module])} in the environment of the flow's process",
        )


def _with_files(model: BaseModel) -> BaseModel:
    """An operation whose parameters name files: sources by their whole paths, a table read in."""
    match model:
        case Expression(sources=sources):
            paths = [each.split("=", 1) for each in sources]
            for name, path in paths:
                check_exists(f"source {name}", path)
            return model.model_copy(update={"sources": tuple(f"{name}={absolute(path)}" for name, path in paths)})
        case Clip(mask=str(mask)):
            check_exists("mask", mask)
            return model.model_copy(update={"mask": absolute(mask)})
        case Reclassify(table=table) if table_path_at(table) is not None:
            from lib.settings_file import read_table

            return model.model_copy(update={"table": read_table(table)})
        case Focal(kernel=str(kernel)) if kernel_path_at(kernel) is not None:
            from lib.settings_file import read_kernel

            return model.model_copy(update={"kernel": read_kernel(kernel)})
    return model


def _rest(given: Mapping[str, Any], word: str) -> dict[str, Any]:
    """A job's other fields: resources of the settings among the choices, then the choices that are not None."""
    apart = {"config", *(each.name for each in _settings_in(given))}
    fields = {key: value for key, value in given.items() if key not in apart and value is not None}
    return fields if "resources" in fields else fields | {"resources": resources_of(settings_of(given, word=word))}


def _settings_in(given: Mapping[str, Any]) -> list[Knob]:
    return [each for each in settings_knobs(Settings.model_fields) if each.name in given]


def resources_of(layers: SettingsLayers) -> Resources:
    """Settings and the host's budget as a job's resources; the ladder of limits climbs no higher than that budget.

    Raises:
        HostLimitError: an explicit limit above what the host leaves.
    """
    settings, grant = layers.settings, grant_limit(layers)
    highest = _bytes(settings.memory_limit_max_mb)
    return Resources(
        limit_bytes=grant.limit_bytes,
        limit_origin=grant.origin,
        limit_max_bytes=None if highest is None else max(grant.limit_bytes, min(highest, grant.budget_bytes)),
        max_chunk_bytes=_bytes(settings.max_chunk_mb),
        chunk_rows=settings.chunk_rows,
        chunk_rows_fixed=not layers.is_default("chunk_rows"),
        threads=settings.threads,
        threads_max=max(settings.gdal_num_threads, settings.threads or 1),
        gdal_cache_max_bytes=settings.gdal_cache_bytes,
        drift_threshold_bytes=settings.drift_threshold_mb * MIB,
        residual_tolerance_bytes=settings.residual_tolerance_mb * MIB,
        margin_bytes=settings.margin_mb * MIB,
        watch_interval_seconds=settings.watch_interval_ms / 1000,
        stall_seconds=settings.stall_seconds,
        startup_seconds=settings.startup_seconds,
        timeout_seconds=settings.timeout_seconds,
        cgroup_parent=settings.cgroup_parent,
        host_budget_bytes=None if settings.host_budget_mb == "off" else _bytes(settings.host_budget_mb),
        host_reserve_fraction=settings.host_reserve_fraction,
        ledger_path=None if settings.host_budget_mb == "off" else settings.ledger_path,
        history_path=None if settings.history_path == "off" else Path(settings.history_path),
    )


def _bytes(size_mib: int | None) -> int | None:
    return None if size_mib is None else size_mib * MIB


def _made(kind: AnyKind, make: Callable[[], _Made], word: str) -> _Made:
    """What `make` makes; where the model says no, it is said of the flag or the parameter, with what that is."""
    try:
        return make()
    except ValidationError as error:
        first = error.errors()[0]
        problem = "is needed" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        knobs = {each.name: each for each in job_knobs(kind)}
        wrong = knobs.get("".join(map(str, first["loc"][:1])))
        if wrong is None:
            raise UsageError(problem) from error
        shown = wrong.as_flag if word == "flag" and not wrong.positional else wrong.name
        raise UsageError(f"{shown}: {problem}", hint=f"it is: {wrong.words}") from error
