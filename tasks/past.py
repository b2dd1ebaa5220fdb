"""Runs of one artifact key over the nights: what is kept of each with its page, and how this run compares with the last.

They travel in the page's metadata, a text of less than 500 characters each, as that is all that Prefect keeps of one.
"""

import datetime as dt
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lib.reports import Report
from lib.units import format_bytes, format_seconds

MOST = 14
_PREFIX = "swath.run."
# Within so much of the last run it was alike.
_ALIKE = 0.05


class Past(BaseModel):
    """One run: when it ended (seconds since the epoch), how, and in what time and memory; `run` is its flow run's name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: int
    status: str
    seconds: float | None = None
    peak_bytes: int | None = None
    limit_bytes: int | None = None
    output_bytes: int | None = None
    input_bytes: int | None = None
    verified: str | None = None
    run: str | None = None
    run_id: str | None = None

    @property
    def when(self) -> str:
        """The time as people read it."""
        return dt.datetime.fromtimestamp(self.at, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def past_of(report: Report, *, run: str | None, run_id: str | None) -> Past:
    """What is kept of a run that has just ended."""
    memory, plan, resources = report.memory, report.plan or {}, report.job.get("resources", {})
    return Past(
        at=round(time.time()),
        status=report.status,
        seconds=report.seconds.total or None,
        peak_bytes=memory.peak_bytes,
        limit_bytes=memory.cap.bytes if memory.cap else plan.get("limit_bytes") or resources.get("limit_bytes"),
        output_bytes=report.output.bytes if report.output else None,
        input_bytes=plan.get("facts", {}).get("decoded_bytes"),
        verified=report.verification.level if report.verification else None,
        run=run and run[:80],
        run_id=run_id,
    )


def to_metadata(runs: Sequence[Past]) -> dict[str, str]:
    """Runs, latest first, as an artifact's metadata."""
    return {
        f"{_PREFIX}{number:02d}": each.model_dump_json(exclude_none=True) for number, each in enumerate(runs[:MOST])
    }


def from_metadata(metadata: Mapping[str, Any] | None) -> list[Past]:
    """Runs that an artifact's metadata has, latest first; what is none of ours is left out."""
    found = []
    for name in sorted(metadata or {}):
        if name.startswith(_PREFIX):
            with suppress(ValidationError, ValueError):
                found.append(Past.model_validate(json.loads((metadata or {})[name])))
    return found


def compared(now: Past, before: Sequence[Past]) -> str:
    """This run against the last one that completed: faster or slower, heavier or lighter, by how much; empty without one."""
    last = next((each for each in before if each.status == "completed"), None)
    if last is None:
        return ""
    if now.status != "completed":
        peak = f", peak {format_bytes(last.peak_bytes)}" if last.peak_bytes else ""
        limit = f" of a limit of {format_bytes(last.limit_bytes)}" if last.limit_bytes else ""
        time_words = f" in {format_seconds(last.seconds)}" if last.seconds else ""
        return f"that completed ({last.when}{time_words}{peak}{limit})"
    parts = [
        _change(now.seconds, last.seconds, ("slower", "faster", "as fast"), format_seconds),
        _change(
            now.peak_bytes, last.peak_bytes, ("heavier", "lighter", "as heavy"), lambda size: format_bytes(round(size))
        ),
        _change(
            now.input_bytes, last.input_bytes, ("more input", "less input", ""), lambda size: format_bytes(round(size))
        ),
    ]
    if any(parts) and now.verified != last.verified:
        parts.append(f"that one verified: {last.verified or 'not at all'}")
    return f"({last.when}): {', '.join(filter(None, parts))}" if any(parts) else ""


def _change(now: float | None, last: float | None, words: tuple[str, str, str], shown: Any) -> str:
    """A quantity's change in words with both numbers; its last word where it is alike."""
    if not now or not last:
        return ""
    more, less, alike = words
    if abs(now - last) <= _ALIKE * last:
        return f"{alike} ({shown(now)} after {shown(last)})" if alike else ""
    return f"{shown(abs(now - last))} {more if now > last else less} ({shown(now)} after {shown(last)})"
