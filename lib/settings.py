"""Settings in four layers: default, YAML file, environment, flag or flow parameter; each value keeps its origin.

Every value is checked in the layer that it comes from, so that an error can name the layer and the key: that, and the
origins, are why the layers are merged here and not by pydantic-settings, which validates the merged result only.
"""

import difflib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import psutil
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from lib.errors import SettingsError
from lib.units import parse_gdal_cachemax, parse_mib, parse_threads

__all__ = ["Origin", "Settings", "SettingsLayers", "load_settings"]

_PREFIX = "BATCH_"
# GDAL's own variables and the settings that they are; in GDAL's own syntax.
_GDAL_NAMES = {"GDAL_CACHEMAX": "gdal_cachemax", "GDAL_NUM_THREADS": "gdal_num_threads"}
# Google Cloud Batch sets these in every task that it runs (cloud.google.com/batch/docs/create-run-job-environment-variables).
_FOREIGN = ("BATCH_TASK_", "BATCH_JOB_", "BATCH_NODE_", "BATCH_HOSTS_", "BATCH_MAIN_NODE_", "BATCH_CONFIG")


_OFF = frozenset({"off", "none", "false", "no", "0"})


def _whole_mib(value: Any) -> Any:
    if isinstance(value, str):
        return parse_mib(value)
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a whole number of MiB")
    return value


def _cachemax(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{value!r} is not a cache size")
    parse_gdal_cachemax(str(value), psutil.virtual_memory().total)
    return int(value) if str(value).strip().isdigit() else str(value)


def _threads(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"{value!r} is not a number of threads")
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


def _history(value: Any) -> Any:
    # YAML 1.1 reads a bare `off` as false.
    return "off" if str(value).strip().lower() in _OFF else _path(value)


def _state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "swath"


MiB = Annotated[int, BeforeValidator(_whole_mib), Field(gt=0)]
MiBOrZero = Annotated[int, BeforeValidator(_whole_mib), Field(ge=0)]
GdalCache = Annotated[int | str, BeforeValidator(_cachemax)]
Threads = Annotated[int, BeforeValidator(_threads)]
AbsolutePath = Annotated[Path, BeforeValidator(_path)]


class Settings(BaseModel):
    """Every setting, with its default. Sizes in `*_mb` are MiB (2**20 bytes)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    memory_limit_mb: MiB = Field(2048, description="resident memory that a job may use, everything included, MiB")
    memory_limit_max_mb: MiB | None = Field(
        None, description="how far the limit may be raised after a death of memory, MiB; unset: not at all"
    )
    max_chunk_mb: MiB | None = Field(None, description="upper bound of one chunk's buffers, MiB; unset: planned")
    chunk_rows: Annotated[int, Field(gt=0)] = Field(10000, description="upper bound of a vector batch, rows")
    threads: Threads | None = Field(None, description="threads of a job; unset: planned, at most gdal_num_threads")
    gdal_cachemax: GdalCache = Field(
        512, description="upper bound of GDAL's block cache, in GDAL's syntax: MB, 5%, bytes from 100000 on"
    )
    gdal_num_threads: Threads = Field(
        default_factory=lambda: os.cpu_count() or 1,
        description="upper bound of threads, in GDAL's syntax: a number or ALL_CPUS; unset: threads may exceed it",
    )
    drift_threshold_mb: MiB = Field(100, description="growth over the baseline that is an error if unplanned, MiB")
    residual_tolerance_mb: MiBOrZero = Field(20, description="growth left after release that is worth a warning, MiB")
    margin_mb: MiBOrZero = Field(0, description="added to every projection on this host, MiB")
    watch_interval_ms: Annotated[int, Field(ge=5, le=1000)] = Field(
        20, description="how often the watchdog looks, milliseconds"
    )
    stall_seconds: Annotated[float, Field(gt=0)] = Field(
        300.0, description="a job without progress for so long has stalled, seconds"
    )
    startup_seconds: Annotated[float, Field(gt=0)] = Field(
        120.0, description="a child must have planned within, seconds"
    )
    timeout_seconds: Annotated[float, Field(gt=0)] | None = Field(
        None, description="a whole job's time limit, seconds, without what it waits for the host's budget; unset: none"
    )
    cgroup_parent: AbsolutePath | None = Field(
        None, description="a delegated cgroup v2 folder in which each child gets a leaf; unset: none"
    )
    host_reserve_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.25, description="share of the host's memory that jobs leave alone (at least 256 MiB)"
    )

    host_budget_mb: MiB | None = Field(
        None, description="what all jobs on this host may hold together, MiB; unset: no ledger is kept"
    )
    ledger_path: AbsolutePath = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / f"swath-ledger-{os.getuid()}",
        description="the folder of the ledger that jobs under host_budget_mb share",
    )
    history_path: Annotated[Path | Literal["off"], BeforeValidator(_history)] = Field(
        default_factory=lambda: _state_folder() / "history.sqlite",
        description="a SQLite file of projected and measured peaks; off: none is kept",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes YAML's `yes` for the number 1.
        if isinstance(value, bool) and info.field_name != "history_path":
            raise ValueError(f"{value!r} is yes or no, not a value of this setting")
        return value

    @property
    def gdal_cache_bytes(self) -> int:
        """The bound of GDAL's block cache, bytes."""
        return parse_gdal_cachemax(str(self.gdal_cachemax), psutil.virtual_memory().total)


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
    if settings.memory_limit_max_mb and settings.memory_limit_max_mb < settings.memory_limit_mb:
        raise SettingsError(
            f"memory_limit_max_mb ({settings.memory_limit_max_mb} MiB, from {origins['memory_limit_max_mb']}) is below "
            f"memory_limit_mb ({settings.memory_limit_mb} MiB, from {origins['memory_limit_mb']})",
            key="memory_limit_max_mb",
            layer=origins["memory_limit_max_mb"].layer,
        )
    merged = SettingsLayers(settings, origins)
    if settings.threads and settings.threads > settings.gdal_num_threads and not merged.is_default("gdal_num_threads"):
        raise SettingsError(
            f"threads ({settings.threads}, from {origins['threads']}) is above gdal_num_threads "
            f"({settings.gdal_num_threads}, from {origins['gdal_num_threads']})",
            hint="gdal_num_threads is an upper bound: raise it, or ask for fewer threads",
            key="threads",
            layer=origins["threads"].layer,
        )
    return merged


class _OnceLoader(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which PyYAML takes the last in silence, and a key that is a list or a map."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, as SafeLoader makes it."""
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = f"a {key.id} cannot be a key"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _given_name(key: str, layer: str) -> str:
    flag = {"timeout_seconds": "timeout"}.get(key, key)
    return "--" + flag.replace("_", "-") if layer == "flag" else key


def _from_file(config: str | Path | None) -> list[tuple[Origin, str, Any]]:
    if config is None:
        return []
    origin = Origin("file", str(config))
    try:
        content = yaml.load(Path(config).read_text(encoding="utf-8"), _OnceLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise SettingsError(
            f"settings file {config}: {error.strerror}", hint="--config names a YAML file", layer="file"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"settings file {config} is not UTF-8 text", layer="file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it does not parse"
        raise SettingsError(
            f"settings file {config} is not YAML{where}: {problem}",
            hint="write lines such as `memory_limit_mb: 1024`",
            layer="file",
        ) from error
    if content is None:
        return []
    if not isinstance(content, dict):
        raise SettingsError(
            f"settings file {config} holds a {type(content).__name__}, not keys and values",
            hint="write lines such as `memory_limit_mb: 1024`",
            layer="file",
        )
    return [(origin, str(key), value) for key, value in content.items()]


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
        raise SettingsError(f"{origin}: {key}: {problem}{shown}", layer=origin.layer, key=key) from error
