"""Events of a run for Prefect's automations: `swath.output.published`, `swath.memory.exceeded` and so on, with its facts.

The resource is what the run was to make (`swath.output.` and its path), else what it read; Prefect adds flow run, deployment,
work pool and tags as related. An event that cannot be sent costs a line of the log, never the work.
"""

from collections.abc import Iterator
from typing import Any

from prefect.events import emit_event

from lib.log import Line
from lib.redact import redacted, redacted_record
from lib.reports import Report
from lib.telling import outcome
from lib.units import file_label, mib
from tasks.logs import Logger, tell

EXCEEDED = "swath.memory.exceeded"
REFUSED = "swath.memory.refused"
LEAK = "swath.memory.leak-suspected"
VERIFICATION_FAILED = "swath.verification.failed"
PUBLISHED = "swath.output.published"

_OF_ERRORS = {
    "MemoryExceeded": EXCEEDED,
    "DriftExceeded": EXCEEDED,
    "MemoryRefused": REFUSED,
    "VerificationFailed": VERIFICATION_FAILED,
}


def announce(report: Report, logger: Logger, *, job: dict[str, Any] | None = None) -> None:
    """Emit the events of a report that has come to its end; `job` is the run's, where the report is of another step."""
    job = job or report.job
    resource = _resource(job)
    for name, payload in _events(report, job):
        try:
            emit_event(event=name, resource=resource, payload=redacted_record(payload))
        except Exception as error:  # noqa: BLE001 - whatever the events' client raises
            tell(logger, Line("WARNING", "log", f"the event {name} was not sent: {error}", {}))


def _resource(job: dict[str, Any]) -> dict[str, str]:
    """What an event is about, by its path."""
    path = job.get("destination") or job.get("output")
    kind, path = ("output", path) if path else ("source", job.get("source") or "none")
    path = redacted(str(path))
    return {
        "prefect.resource.id": f"swath.{kind}.{path}",
        "prefect.resource.name": file_label(path),
        "swath.kind": str(job.get("kind", "job")),
    }


def _events(report: Report, job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    facts = {
        "kind": job.get("kind"),
        "step": report.job.get("kind"),
        "source": job.get("source"),
        "destination": job.get("destination") or job.get("output"),
        **outcome(report).fields,
    }
    error = report.error
    if error is not None and error.type in _OF_ERRORS:
        allocators = [each.model_dump() for each in report.memory.top_allocators[:5]]
        failed = [vars_of for vars_of in _checks(report) if not vars_of["passed"]]
        more = {"message": error.message, "top_allocators": allocators or None, "failed_checks": failed or None}
        yield _OF_ERRORS[error.type], _told(facts | more)
    if leak := report.memory.leak:
        yield LEAK, _told(facts | {f"leak_{name}": value for name, value in leak.items()})
    if report.output is not None:
        words = report.verification.words if report.verification else None
        peak = report.memory.peak_bytes
        yield PUBLISHED, _told(facts | {"verification": words, "peak_mb": mib(peak) if peak else None})


def _checks(report: Report) -> list[dict[str, Any]]:
    checks = report.verification.checks if report.verification else []
    return [{"name": each.name, "passed": each.passed, "detail": each.detail} for each in checks]


def _told(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
