"""Plans and reports: what a job will cost, and what came of it. One object serves the CLI's `--json`, flows and artifacts.

`Plan`, `Check` and `Outcome` are made in the child; `Report` is put together in the parent, which also knows of deaths.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lib.errors import SwathError, from_record
from lib.redact import redacted_record
from lib.units import mib

Status = Literal["completed", "planned", "refused", "exceeded", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a job will do and cost, for people and reports: nothing that steers the work is in it.

    Attributes:
        limit_bytes: the user's limit.
        projected_bytes: projected peak of resident memory; the sum of `terms`.
        baseline_bytes: resident size of the child after its imports, from which the rest is planned.
        disk_bytes: upper estimate of what the output and its temporary files take.
        smallest_limit_bytes: the smallest limit that this job would accept, as far as is known when it is made.
        disk_free_bytes: what was free there when it was planned; None where nothing is written or that is not known.
        threads: encoder and worker threads.
        gdal_cache_bytes: GDAL's block cache.
        window: `(height, width)` in pixels of a raster's chunk, else None.
        batch_rows: rows of a vector's chunk, else None.
        block_size: edge of an output tile in pixels, for rasters.
        chunks: how many chunks there will be; 0 where not known beforehand.
        terms: what the projection is made of, bytes by name.
        lower_by: the one setting that would lower the peak most, as a sentence; empty where none would.
        expected: what the output must be (grid, dtype, schema, counts), for verification.
        facts: header facts of the source that a reader of the plan wants to see.
    """

    limit_bytes: int
    projected_bytes: int
    baseline_bytes: int
    disk_bytes: int
    smallest_limit_bytes: int
    disk_free_bytes: int | None = None
    threads: int = 1
    gdal_cache_bytes: int = 0
    window: tuple[int, int] | None = None
    batch_rows: int | None = None
    block_size: int | None = None
    chunks: int = 0
    terms: dict[str, int] = field(default_factory=dict)
    lower_by: str = ""
    expected: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """The plan as a JSON object; terms of 0 bytes are left out."""
        return asdict(self) | {"terms": {name: size for name, size in self.terms.items() if size}}


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a verification: its name, whether it passed, and what was compared, in words with units."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an engine hands back: the result's facts, the checks it made, warnings, the driver that wrote."""

    result: dict[str, Any]
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    driver: str | None = None


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", defer_build=True)  # a child makes no report


class ErrorRecord(_Record):
    """An error as a report carries it; `traceback` is for `--debug`, and in no dump."""

    type: str
    message: str
    hint: str | None = None
    smallest_limit_mb: int | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    traceback: str | None = Field(None, exclude=True)

    @classmethod
    def of(cls, error: SwathError) -> "ErrorRecord":
        """The record of an error of ours; `smallest_limit_mb` is rounded up, so that it works when typed back."""
        smallest = error.facts.get("smallest_limit_bytes")
        smallest_mb = None if smallest is None else mib(smallest)
        return cls(**error.to_record(), smallest_limit_mb=smallest_mb, traceback=error.traceback)

    def to_error(self) -> SwathError:
        """The error that this is the record of."""
        return from_record(self.model_dump() | {"facts": self.facts | {"traceback": self.traceback}})


class Cap(_Record):
    """What held the limit: mechanisms joined by " + ", and the limit that they held."""

    mechanism: str
    bytes: int


class Allocator(_Record):
    """One line of code that holds memory, from tracemalloc."""

    location: str
    size_bytes: int
    blocks: int


class MemoryRecord(_Record):
    """Resident memory of a job's child.

    Attributes:
        samples: `[seconds since start, bytes]`, at most 240.
        slope_interval: the slope's 95 % confidence interval, bytes per chunk.
        attribution: what memory was made of where it was seen highest; all of it sums up to its `resident_bytes`.
        attribution_end: the same after release.
        tracing_stopped: where Python and NumPy were traced no longer: `{chunk, tracing_bytes, allocations}`; else None.
    """

    cap: Cap | None = None
    baseline_bytes: int | None = None
    peak_bytes: int | None = None
    final_bytes: int | None = None
    residual_bytes: int | None = None
    max_drift_bytes: int | None = None
    samples: list[tuple[float, int]] = Field(default_factory=list)
    slope_bytes_per_chunk: float | None = None
    slope_interval: tuple[float, float] | None = None
    leak: dict[str, Any] | None = None
    top_allocators: list[Allocator] = Field(default_factory=list)
    attribution: dict[str, int] = Field(default_factory=dict)
    attribution_end: dict[str, int] = Field(default_factory=dict)
    tracing_stopped: dict[str, int] | None = None


class Output(_Record):
    """What was published."""

    path: str
    bytes: int
    driver: str


class Verification(_Record):
    """Checks made on the output."""

    level: str
    passed: bool
    checks: list[Check] = Field(default_factory=list)

    @property
    def words(self) -> str:
        """The level, and how many checks passed."""
        return f"{self.level}, {sum(check.passed for check in self.checks)} of {len(self.checks)} checks passed"


class Attempt(_Record):
    """One rung of the ladder."""

    outcome: str
    limit_bytes: int
    chunk: str | None = None
    threads: int | None = None
    peak_bytes: int | None = None


class Seconds(_Record):
    """Where the time went."""

    total: float = 0.0
    startup: float = 0.0
    work: float = 0.0
    verify: float = 0.0


class Report(_Record):
    """What came of a job."""

    status: Status
    exit_code: int
    error: ErrorRecord | None = None
    job: dict[str, Any] = Field(default_factory=dict)
    plan: dict[str, Any] | None = None
    memory: MemoryRecord = Field(default_factory=MemoryRecord)
    result: dict[str, Any] = Field(default_factory=dict)
    output: Output | None = None
    verification: Verification | None = None
    warnings: list[str] = Field(default_factory=list)
    attempts: list[Attempt] = Field(default_factory=list)
    seconds: Seconds = Field(default_factory=Seconds)

    @field_validator("job", "plan", "result", "warnings")
    @classmethod
    def _without_credentials(cls, value: Any) -> Any:
        return redacted_record(value)

    @property
    def ok(self) -> bool:
        """True for `completed` and `planned`."""
        return self.exit_code == 0

    def to_record(self, *, debug: bool = False) -> dict[str, Any]:
        """The report as a JSON object; with `debug` its error has its traceback, else it has none."""
        record: dict[str, Any] = redacted_record(self.model_dump(mode="json"))
        if debug and self.error:
            record["error"]["traceback"] = self.error.traceback
        return record

    def with_error(self, error: SwathError) -> "Report":
        """This report, ended by an error that came after it (a verification, a publication)."""
        return self.model_copy(
            update={
                "status": error.status,
                "exit_code": error.exit_code,
                "error": ErrorRecord.of(error),
                "output": None,
            }
        )

    @classmethod
    def of_error(cls, error: SwathError, job: dict[str, Any] | None = None) -> "Report":
        """A report of a job that never got as far as a child."""
        return cls(status=error.status, exit_code=error.exit_code, error=ErrorRecord.of(error), job=job or {})


def chunk_words(plan: Mapping[str, Any] | None) -> str:
    """A plan's chunk: a window's pixels or a batch's rows; empty where it has neither."""
    plan = plan or {}
    if plan.get("window"):
        height, width = plan["window"]
        return f"{height} x {width} px"
    return f"{plan['batch_rows']} rows" if plan.get("batch_rows") else ""
