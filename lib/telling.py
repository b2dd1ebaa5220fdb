"""A job's events and report as lines of a log: what is worth a line, in which words, and how often.

One telling is of one job. It is the only place where events become sentences: the terminal, a flow run's log in the UI and the
JSON log all take their lines here.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from lib.jobs import Job
from lib.log import Level, Line
from lib.reports import Report, chunk_words
from lib.units import file_label, format_bytes, format_seconds

# Progress at a human pace: a line a tenth, but neither more often nor more seldom than so.
_LEAST_SECONDS = 5.0
_MOST_SECONDS = 30.0
_TENTHS = 10
_PHASES = {"close": "closing the output", "verify": "checking the output"}
_ENDS: dict[str, Level] = {"cancelled": "WARNING"}
_PLAN_FIELDS = (
    "projected_bytes", "limit_bytes", "smallest_limit_bytes", "disk_bytes", "chunks", "window", "batch_rows", "threads",
)  # fmt: skip


class Telling:
    """Turns the events of one job into lines, as they come.

    Args:
        job: the job.
        clock: seconds, for the pace.
    """

    def __init__(self, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self._job, self._clock = job, clock
        self._said: deque[str] = deque(maxlen=1)
        self._told: set[str] = set()
        self._leaks = False
        self._restart()

    def _restart(self) -> None:
        self._tenth, self._done, self._of, self._phase = 0, 0, 0, ""
        self._began = self._told_at = self._done_at = self._clock()

    def lines(self, event: dict[str, Any]) -> Iterator[Line]:
        """The lines that an event is worth; often none."""
        name = event["event"]
        self._follow(event)
        if name in _SENTENCES:
            yield _SENTENCES[name](event)
        elif name == "planned" and event["final"]:
            yield self._planned(event["plan"])
        elif name in {"chunk", "alive"}:
            yield from self._progress(event)
        elif name == "stderr":
            yield from self._words(str(event["text"]))

    def _follow(self, event: dict[str, Any]) -> None:
        """Where the job is by now, and what need not be told again at its end."""
        match event["event"]:
            case "baseline":
                self._of, self._began = event["chunks"], self._clock()
            case "phase":
                self._phase = _PHASES.get(event["name"], event["name"])
            case "chunk":
                self._done, self._of, self._done_at = event["done"], event["of"], self._clock()
            case "attempt":
                self._restart()
            case "leak":
                self._leaks = True
            case "interrupted":
                self._told.add(event["words"])
            case "warning":
                self._told.add(event["text"])

    def ending(self, report: Report) -> Iterator[Line]:
        """The lines of a report: its warnings, then how it ended."""
        for warning in report.warnings:
            if warning not in self._told and not (self._leaks and warning.startswith("a leak of ")):
                yield Line("WARNING", "job.warning", warning, {})
        yield outcome(report)

    def _planned(self, plan: dict[str, Any]) -> Line:
        chunk = chunk_words(plan)
        words = f"{self._job.kind} job of {self._job.label}: projected peak {format_bytes(plan['projected_bytes'])}"
        words += f" of a limit of {format_bytes(plan['limit_bytes'])}" + (f", in chunks of {chunk}" if chunk else "")
        return Line("INFO", "job.planned", words, {name: plan[name] for name in _PLAN_FIELDS if plan.get(name)})

    def _progress(self, event: dict[str, Any]) -> Iterator[Line]:
        now = self._clock()
        tenth = self._done * _TENTHS // self._of if self._of else 0
        silent = now - self._told_at
        if not (silent >= _MOST_SECONDS or (tenth > self._tenth and silent >= _LEAST_SECONDS)):
            return
        self._tenth, self._told_at = tenth, now
        yield self._standing(event["resident_bytes"], now)

    def _standing(self, resident_bytes: int, now: float) -> Line:
        """Where the job is: of how many chunks, in what memory, and for how long still."""
        done, of, seconds = self._done, self._of, now - self._began
        fields: dict[str, Any] = {
            "done": done,
            "of": of or None,
            "resident_bytes": resident_bytes,
            "seconds": round(seconds, 3),
        }
        words = f"{done:,} of {of:,} chunks ({done / of:.0%})" if of else f"{done:,} chunks"
        words += f", {format_bytes(resident_bytes)} resident"
        if self._phase:
            words = f"{self._phase}, {format_bytes(resident_bytes)} resident"
            fields["phase"] = self._phase
        elif done and of > done:
            remaining = seconds * (of - done) / done
            fields["remaining_seconds"] = round(remaining, 1)
            words += f", about {format_seconds(remaining)} left"
        if (waited := now - self._done_at) >= _MOST_SECONDS:
            lasting = format_seconds(waited)
            words += f", for {lasting} so far" if self._phase else f"; nothing was done for {lasting}"
        return Line("INFO", "job.progress", words, fields)

    def _words(self, text: str) -> Iterator[Line]:
        for line in text.splitlines():
            if line not in self._said:  # libtiff says the same for each block that it cannot write
                yield Line("INFO", "child.said", line, {})
            self._said.append(line)


def outcome(report: Report) -> Line:
    """How a job ended: what was published where, how large, how long, in what memory; or what is wrong and what to do."""
    fields = _facts(report)
    if report.error is not None:
        error = report.error
        fields |= {"type": error.type, "hint": error.hint, "smallest_limit_mb": error.smallest_limit_mb}
        return Line(_ENDS.get(report.status, "ERROR"), f"job.{report.status}", error_words(report), fields)
    spent = f"in {format_seconds(report.seconds.total)}{_memory_words(report)}"
    if report.output is None:
        kind, source = report.job.get("kind", ""), report.job.get("source")
        return Line(
            "INFO",
            f"job.{report.status}",
            f"{kind} job{f' of {file_label(source)}' if source else ''} done {spent}",
            fields,
        )
    output = report.output
    verified = f"; verified: {report.verification.words}" if report.verification else ""
    words = f"published {output.path}: {format_bytes(output.bytes)} ({output.driver}) {spent}{verified}"
    return Line("INFO", "output.published", words, fields)


def error_words(report: Report) -> str:
    """The one line of a report that ended badly: what is wrong, and what to do; empty where it ended well."""
    error = report.error
    if error is None:
        return ""
    smallest = f" (smallest limit that would do: {error.smallest_limit_mb} MiB)" if error.smallest_limit_mb else ""
    return f"{report.status}: {error.message.rstrip('.')}{smallest}{f'; {error.hint}' if error.hint else ''}"


def _facts(report: Report) -> dict[str, Any]:
    """A report's facts, as fields of a line and of an event; those that there are."""
    plan, memory, output = report.plan or {}, report.memory, report.output
    facts = {
        "status": report.status,
        "exit_code": report.exit_code,
        "seconds": report.seconds.total or report.seconds.work or None,
        "peak_bytes": memory.peak_bytes,
        "projected_bytes": plan.get("projected_bytes"),
        "limit_bytes": memory.cap.bytes if memory.cap else report.job.get("resources", {}).get("limit_bytes"),
        "path": output.path if output else None,
        "bytes": output.bytes if output else None,
        "driver": output.driver if output else None,
        "verified": report.verification.level if report.verification and report.verification.passed else None,
        "attempts": len(report.attempts) if len(report.attempts) > 1 else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _memory_words(report: Report) -> str:
    memory = report.memory
    limit = f" of a limit of {format_bytes(memory.cap.bytes)}" if memory.cap else ""
    return f", peak {format_bytes(memory.peak_bytes)}{limit}" if memory.peak_bytes else ""


def _check(event: dict[str, Any]) -> Line:
    passed = event["passed"]
    words = f"check {event['name']!r} {'passed' if passed else 'FAILED'}: {event['detail']}"
    fields = {name: event[name] for name in ("name", "passed", "detail")}
    return Line("INFO" if passed else "ERROR", "job.check", words, fields)


def _leak(event: dict[str, Any]) -> Line:
    lines = ", ".join(str(each["location"]) for each in event["lines"])
    words = f"a leak is suspected: {format_bytes(round(event['bytes_per_chunk']))} stay per chunk, past the drift threshold "
    words += f"at chunk {event['crosses_at_chunk']}; it grows at {lines or 'no line of Python or NumPy that is known'}"
    return Line(
        "WARNING", "memory.leak-suspected", words, {name: value for name, value in event.items() if name != "event"}
    )


def _attempt(event: dict[str, Any]) -> Line:
    share, limit = f"{event['fraction']:.0%}", format_bytes(event["limit_bytes"])
    words = f"memory ran out: attempt {event['number']}, planned with {share} of {limit}"
    return Line("WARNING", "job.attempt", words, {name: event[name] for name in ("number", "fraction", "limit_bytes")})


def _waiting(event: dict[str, Any]) -> Line:
    return Line("INFO", "job.waiting", waiting_words(event), {name: event[name] for name in ("for", "bytes", "behind")})


def waiting_words(event: dict[str, Any]) -> str:
    """What a job waits for."""
    size, behind = format_bytes(event["bytes"]), f"behind {event['behind']} job(s)"
    if event["for"] == "disk":
        return f"waiting for {size} of its destination's disk, {behind} that may fill it"
    return f"waiting for {size} of the host's memory budget, {behind}"


def _interrupted(event: dict[str, Any]) -> Line:
    fields = {name: value for name, value in event.items() if name not in {"event", "words"}}
    return Line("WARNING", "run.interrupted", event["words"], fields)


def _warning(event: dict[str, Any]) -> Line:
    return Line("WARNING", "job.warning", event["text"], {})


_SENTENCES: dict[str, Callable[[dict[str, Any]], Line]] = {
    "waiting": _waiting,
    "attempt": _attempt,
    "check": _check,
    "leak": _leak,
    "interrupted": _interrupted,
    "warning": _warning,
}
