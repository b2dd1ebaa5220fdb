"""Settings in four layers: default, YAML file, environment, flag or flow parameter; each value keeps its origin.

Every value is checked in the layer that it comes from, so that an error can name the layer and the key: that, and the
origins, are why the layers are merged here and not by pydantic-settings, which validates the merged result only.
"""

import difflib
import functools
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from lib.errors import SettingsError
from lib.knobs import Knob, knob, knobs_of
from lib.units import parse_gdal_cachemax, parse_mib, parse_threads

_PREFIX = "BATCH_"
# GDAL's own variables and the settings that they are; in GDAL's own syntax.
_GDAL_NAMES = {"GDAL_CACHEMAX": "gdal_cachemax", "GDAL_NUM_THREADS": "gdal_num_threads"}
# Google Cloud Batch sets these in every task that it runs (cloud.google.com/batch/docs/create-run-job-environment-variables).
_FOREIGN = ("BATCH_TASK_", "BATCH_JOB_", "BATCH_NODE_", "BATCH_HOSTS_", "BATCH_MAIN_NODE_", "BATCH_CONFIG")


_MAY_BE_OFF = ("history_path", "host_budget_mb")
_OFF = frozenset({"off", "none", "false", "no", "0"})


def _physical_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _whole_mib(value: Any) -> Any:
    return parse_mib(value) if isinstance(value, str) else value


def _cachemax(value: Any) -> Any:
    text = str(value)
    parse_gdal_cachemax(text, _physical_bytes())
    return int(text) if text.strip().isdigit() else text


def _threads(value: Any) -> Any:
    return parse_threads(str(value), os.cpu_count() or 1)


def _path(value: Any) -> Any:
    if not isinstance(value, (str, Path)):
        return value
    text = str(value)
    if not text.strip() or "\0" in text:
        raise ValueError(f"{text!r} is no path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # no such user, or one without a home
        raise ValueError(f"{text!r}: {error}") from error


def _is_off(value: Any) -> bool:
    return str(value).strip().lower() in _OFF  # YAML 1.1 reads a bare `off` as false


def _history(value: Any) -> Any:
    return "off" if _is_off(value) else _path(value)


def _budget(value: Any) -> Any:
    # Left out is not off, and 0 is a number that is no budget.
    return "off" if _is_off(value) and value is not None and str(value) != "0" else _whole_mib(value)


def _modules(value: Any) -> Any:
    """A text of names with commas between them, or a list of them."""
    names = [each.strip() for each in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(each, str) for each in names):
        raise ValueError(f"{value!r} is no list of modules, such as filters,our.indices")
    names = tuple(filter(None, names))
    if odd := next((each for each in names if not re.fullmatch(r"\w+(\.\w+)*", each)), None):
        raise ValueError(f"{odd!r} is no name of a module, such as filters or our.indices")
    return names


def _state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "swath"


MiB = Annotated[int, BeforeValidator(_whole_mib), Field(gt=0)]
MiBOrZero = Annotated[int, BeforeValidator(_whole_mib), Field(ge=0)]
GdalCache = Annotated[int | str, BeforeValidator(_cachemax)]
Threads = Annotated[int, BeforeValidator(_threads), Field(ge=1)]
AbsolutePath = Annotated[Path, BeforeValidator(_path)]


class Settings(BaseModel):
    """Every setting, with its default. Sizes in `*_mb` are MiB (2**20 bytes)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    memory_limit_mb: MiB = knob(
        "resident memory that the job may use, everything included", 2048, unit="MiB", common=True
    )
    memory_limit_max_mb: MiB | None = knob(
        "how far the limit may be raised after a death of memory", None, unit="MiB", unset="not at all"
    )
    max_chunk_mb: MiB | None = knob("upper bound of one chunk's buffers", None, unit="MiB", unset="planned")
    chunk_rows: Annotated[int, Field(gt=0)] = knob("upper bound of a vector batch", 10000, unit="rows")
    threads: Threads | None = knob("threads of the job", None, unset="planned, at most gdal_num_threads")
    gdal_cachemax: GdalCache = knob(
        "upper bound of GDAL's block cache", 512, unit="in GDAL's syntax: MB, 5%, bytes from 100000 on"
    )
    gdal_num_threads: Threads = knob(
        "upper bound of threads",
        default_factory=lambda: os.cpu_count() or 1,
        unit="a number or ALL_CPUS",
        unset="the number of cores, which threads may exceed",
    )
    drift_threshold_mb: MiB = knob("growth over the baseline that is an error if unplanned", 100, unit="MiB")
    residual_tolerance_mb: MiBOrZero = knob("growth left after release that is worth a warning", 20, unit="MiB")
    margin_mb: MiBOrZero = knob("added to every projection on this host", 0, unit="MiB")
    watch_interval_ms: int = knob("how often the watchdog looks", 20, unit="milliseconds", ge=5, le=1000)
    stall_seconds: float = knob("a job without progress for so long has stalled", 300.0, unit="seconds", gt=0)
    startup_seconds: float = knob("a child must have planned within", 120.0, unit="seconds", gt=0)
    timeout_seconds: Annotated[float, Field(gt=0)] | None = knob(
        "time limit of the job, without what it waits for the host's budget", None, unit="seconds", name="timeout"
    )
    cgroup_parent: AbsolutePath | None = knob("a delegated cgroup v2 folder in which each child gets a leaf", None)
    host_reserve_fraction: float = knob(
        "share of the host's memory that jobs leave alone, 256 MiB or more", 0.25, unit="a fraction", ge=0, lt=1
    )

    host_budget_mb: Annotated[MiB | Literal["off"] | None, BeforeValidator(_budget)] = knob(
        "what all jobs on this host may hold together; off: they do not wait for each other",
        None,
        unit="MiB",
        unset="what the host leaves, less the reserve",
    )
    ledger_path: AbsolutePath = knob(
        "the folder of the ledger in which jobs on this host share its memory",
        default_factory=lambda: Path(tempfile.gettempdir()) / f"swath-ledger-{os.getuid()}",
    )
    history_path: Annotated[Path | Literal["off"], BeforeValidator(_history)] = knob(
        "a SQLite file of projected and measured peaks; off: none is kept",
        default_factory=lambda: _state_folder() / "history.sqlite",
    )
    function_modules: Annotated[tuple[str, ...], BeforeValidator(_modules)] = knob(
        "modules, and packages with all that is in them, whose functions a flow's parameter function may name; read from the "
        "environment and the file of BATCH_CONFIG alone; in the terminal any may be",
        (),
        unset="none",
    )
    log_format: Literal["auto", "json", "text"] = knob(
        "lines on standard error: json, one object an event; text, sentences; auto, json where it is no terminal",
        "auto",
    )
    log_path: AbsolutePath | None = knob(
        "a file that the same lines are added to as JSON, by all jobs that name it", None
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes YAML's `yes` for the number 1.
        if isinstance(value, bool) and (value or info.field_name not in _MAY_BE_OFF):
            raise ValueError(f"{value!r} is yes or no, not a value of this setting")
        return value

    @property
    def gdal_cache_bytes(self) -> int:
        """The bound of GDAL's block cache, bytes."""
        return parse_gdal_cachemax(str(self.gdal_cachemax), _physical_bytes())


def settings_knobs(keys: Iterable[str]) -> list[Knob]:
    """Those settings as the knobs of a job, in that order."""
    return list(_settings_knobs(tuple(keys)))


@functools.cache
def _settings_knobs(keys: tuple[str, ...]) -> tuple[Knob, ...]:
    return tuple(replace(each, is_setting=True) for each in knobs_of(Settings, keys))


class Origin(NamedTuple):
    """Where a value came from: a layer, and the name it had there."""

    layer: str
    name: str

    def __str__(self) -> str:
        return f"{self.layer} {self.name}".strip()


class SettingsLayers(NamedTuple):
    """The merged settings, and for each key the layer and name that its value came from."""

    settings: Settings
    origins: dict[str, Origin]

    def is_default(self, key: str) -> bool:
        """True where nobody chose the value."""
        return self.origins[key].layer == "default"

    def conflict(self, key: str, how: str, other: str, hint: str | None = None) -> SettingsError:
        """The error of two values that cannot both hold, with where each came from."""
        mine, its = (f"{name} ({getattr(self.settings, name)}, from {self.origins[name]})" for name in (key, other))
        return SettingsError(f"{mine} {how} {its}", hint=hint, key=key, layer=self.origins[key].layer)


def load_settings(
    config: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    given_layer: str = "flag",
) -> SettingsLayers:
    """Merge the four layers; `None` in `given` means "as configured".

    Args:
        config: a YAML file; `BATCH_CONFIG` names one where this is None.
        given: flags or flow parameters, by setting key.
        environ: the environment (default: this process's).
        given_layer: what `given` is called in errors and origins: "flag" or "parameter".

    Raises:
        SettingsError: a missing or malformed file, an unknown key, an unusable value, threads above a bound that somebody set; it
            names layer and key.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins = {key: Origin("default", "") for key in Settings.model_fields}
    config = (environ.get("BATCH_CONFIG") or None) if config is None else config
    layers = [
        *_from_file(config),
        *_from_environment(environ),
        *((Origin(given_layer, _given_name(key, given_layer)), key, v) for key, v in (given or {}).items()),
    ]
    for origin, key, value in layers:
        if value is None:
            continue
        values[key] = _checked(origin, key, value)
        origins[key] = origin
    settings = Settings.model_construct(**(Settings().model_dump() | values))
    merged = SettingsLayers(settings, origins)
    if settings.memory_limit_max_mb and settings.memory_limit_max_mb < settings.memory_limit_mb:
        raise merged.conflict("memory_limit_max_mb", "is below", "memory_limit_mb")
    if settings.threads and settings.threads > settings.gdal_num_threads and not merged.is_default("gdal_num_threads"):
        hint = "gdal_num_threads is an upper bound: raise it, or ask for fewer threads"
        raise merged.conflict("threads", "is above", "gdal_num_threads", hint)
    return merged


def _given_name(key: str, layer: str) -> str:
    if layer != "flag" or key not in Settings.model_fields:
        return key
    return settings_knobs([key])[0].as_flag


def _from_file(config: str | Path | None) -> list[tuple[Origin, str, Any]]:
    if config is None:
        return []
    from lib.settings_file import read_settings_file

    return [(Origin("file", str(config)), key, value) for key, value in read_settings_file(config).items()]


def _from_environment(environ: Mapping[str, str]) -> list[tuple[Origin, str, Any]]:
    found: list[tuple[Origin, str, Any]] = [
        (Origin("environment", name), key, environ[name]) for name, key in _GDAL_NAMES.items() if environ.get(name)
    ]
    for name, value in sorted(environ.items()):
        if name.startswith(_PREFIX) and not name.startswith(_FOREIGN) and value != "":
            found.append((Origin("environment", name), name.removeprefix(_PREFIX).lower(), value))
    return found


def _checked(origin: Origin, key: str, value: Any) -> Any:
    if key not in Settings.model_fields:
        near = difflib.get_close_matches(key, Settings.model_fields, n=1)
        raise SettingsError(
            f"{origin}: unknown setting {key!r}",
            hint=f"did you mean {near[0]}?" if near else None,
            layer=origin.layer,
            key=key,
        )
    try:
        return getattr(Settings(**{key: value}), key)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        shown = "" if repr(value) in problem else f" (it is {value!r})"
        hint = f"it is: {settings_knobs([key])[0].words}"
        where = str(origin) if origin.name == key else f"{origin}: {key}"
        raise SettingsError(f"{where}: {problem}{shown}", hint=hint, layer=origin.layer, key=key) from error
