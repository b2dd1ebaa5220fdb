"""From flat choices (flags, flow parameters) to a Job: settings merged, limit granted, destination checked.

The terminal and the flows ask here in the same words, so that they cannot differ. Opens no dataset: what only the header
can tell is checked in the child.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from lib.errors import DestinationError, SourceError, UsageError
from lib.jobs import (
    OPERATIONS,
    RASTER_DRIVERS,
    VECTOR_DRIVERS,
    Custom,
    DriversJob,
    Normalise,
    ProfileJob,
    RasterJob,
    Rescale,
    Resources,
    VectorJob,
    VerifyJob,
)
from lib.memory.budget import grant_limit
from lib.publish import check_destination, is_local
from lib.settings import SettingsLayers, load_settings

__all__ = ["Choices", "drivers_job", "profile_job", "raster_job", "read_report", "vector_job", "verify_job"]

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The choices that every job shares; None means "as configured". Sizes in MiB, times in seconds.

    `layer` is what these are called in errors: "flag" in the terminal, "parameter" in flows.
    """

    config: str | None = None
    memory_limit_mb: int | str | None = None
    memory_limit_max_mb: int | str | None = None
    max_chunk_mb: int | str | None = None
    chunk_rows: int | str | None = None
    threads: int | str | None = None
    timeout: float | None = None
    layer: str = "flag"

    def settings(self) -> SettingsLayers:
        """The four layers, merged."""
        return load_settings(
            self.config,
            {
                "memory_limit_mb": self.memory_limit_mb,
                "memory_limit_max_mb": self.memory_limit_max_mb,
                "max_chunk_mb": self.max_chunk_mb,
                "chunk_rows": self.chunk_rows,
                "threads": self.threads,
                "timeout_seconds": self.timeout,
            },
            given_layer=self.layer,
        )

    def checked(self) -> dict[str, int | float]:
        """Those that are not None, by their names here, as numbers.

        Raises:
            SettingsError: one that cannot be used, named as `layer` has it.
        """
        settings = self.settings().settings
        keys = {key: key for key in ("memory_limit_mb", "memory_limit_max_mb", "max_chunk_mb", "chunk_rows", "threads")}
        keys["timeout"] = "timeout_seconds"
        return {name: getattr(settings, key) for name, key in keys.items() if getattr(self, name) is not None}

    def resources(self) -> Resources:
        """Settings and the host's budget as a job's resources.

        Raises:
            SettingsError: a setting that cannot be used.
            HostLimitError: an explicit limit above what the host leaves.
        """
        layers = self.settings()
        grant = grant_limit(layers)
        return Resources.from_settings(
            layers.settings,
            limit_bytes=grant.limit_bytes,
            limit_origin=grant.origin,
            budget_bytes=grant.budget_bytes,
            chunk_rows_fixed=not layers.is_default("chunk_rows"),
        )


def raster_job(
    source: str,
    destination: str,
    *,
    choices: Choices,
    operation: str = "normalise",
    parameters: Mapping[str, Any] | None = None,
    **output: Any,
) -> RasterJob:
    """A raster job; `parameters` are the operation's own (None: its default), `output` the job's other fields."""
    given = {key: value for key, value in (parameters or {}).items() if value is not None}
    overwrite = bool(output.get("overwrite"))
    path = check_destination(destination, source, overwrite=overwrite)
    return _made(
        lambda: RasterJob(
            source=_source(source),
            destination=str(path),
            driver=_driver(path, RASTER_DRIVERS),
            operation=_operation(operation, given),
            resources=choices.resources(),
            **_given(output),
        )
    )


def vector_job(source: str, destination: str, *, choices: Choices, **output: Any) -> VectorJob:
    """A vector job; `output` are the job's other fields (None: the default)."""
    path = check_destination(destination, source, overwrite=bool(output.get("overwrite")))
    return _made(
        lambda: VectorJob(
            source=_source(source),
            destination=str(path),
            driver=_driver(path, VECTOR_DRIVERS),
            resources=choices.resources(),
            **_given(output),
        )
    )


def verify_job(
    source: str,
    output: str,
    *,
    choices: Choices,
    level: str = "full",
    report: Mapping[str, Any] | None = None,
) -> VerifyJob:
    """A verification; `report` (a Report as JSON) says what the output should be, else its own metadata does."""
    report = report or {}
    work, plan, result = (report.get(key) or None for key in ("job", "plan", "result"))
    if not all(part is None or isinstance(part, dict) for part in (work, plan, result)):
        raise UsageError("the report is none of swath's: its job, plan and result must be objects")
    if work is not None and work.get("kind") not in {"raster", "vector"}:
        raise UsageError(f"the report is of a {work.get('kind')} job, not of one that wrote {output}")
    for name, path in (("source", source), ("output", output)):
        if is_local(path) and not Path(path).exists():
            raise SourceError(f"{name} {path} does not exist", hint="check the path")
    return _made(
        lambda: VerifyJob(
            source=_source(source),
            output=str(Path(output).absolute()),
            level=level,
            work=work,
            expected=(plan or {}).get("expected"),
            result=result,
            resources=choices.resources(),
        )
    )


def read_report(path: str) -> dict[str, Any]:
    """A report of another run, as `--json` printed it.

    Raises:
        UsageError: there is none at the path.
    """
    hint = "name a file that --json wrote"
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"report {path} cannot be read: {error}", hint=hint) from error
    if not isinstance(record, dict):
        raise UsageError(f"report {path} is not a JSON object", hint=hint)
    return record


def profile_job(source: str, *, choices: Choices, layer: str | None = None, sample_chunks: int = 32) -> ProfileJob:
    """A profile of reading a source."""
    if is_local(source) and not Path(source).exists():
        raise SourceError(f"source {source} does not exist", hint="check the path")
    return _made(
        lambda: ProfileJob(
            source=_source(source), layer=layer, sample_chunks=sample_chunks, resources=choices.resources()
        )
    )


def drivers_job(
    names: Sequence[str] = (), *, choices: Choices, create: Sequence[str] = (), source: str | None = None
) -> DriversJob:
    """A validation of drivers."""
    return _made(
        lambda: DriversJob(names=tuple(names), create=tuple(create), source=source, resources=choices.resources())
    )


def _source(source: str) -> str:
    """Local sources by absolute path: the child and a worker may stand elsewhere."""
    return str(Path(source).absolute()) if is_local(source) else source


def _driver(path: Path, drivers: Mapping[str, str]) -> str:
    driver = drivers.get(path.suffix.lower())
    if driver is None:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in drivers.items())
        raise DestinationError(
            f"destination {path.name}: no driver for extension {path.suffix or '(none)'!r}",
            hint=f"use one of: {known}",
        )
    return driver


def _operation(name: str, given: dict[str, Any]) -> Normalise | Rescale | Custom:
    model = OPERATIONS.get(name)
    if model is None:
        raise UsageError(f"unknown operation {name!r}", hint=f"use one of: {', '.join(OPERATIONS)}")
    for key in given:
        if key not in model.model_fields:
            owners = [other for other, each in OPERATIONS.items() if key in each.model_fields]
            raise UsageError(f"{key} belongs to operation {' or '.join(owners)}, not to {name}")
    return model(**given)


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _made(make: Callable[[], _Made]) -> _Made:
    try:
        return make()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: {problem}" if where else problem) from error
