"""Every error that a user may see, in one tree.

::

    SwathError                       exit 1
    ├── UsageError                   exit 2    bad usage or unusable input, known before any work
    │   ├── SettingsError                      a setting, with its layer and key
    │   ├── SourceError                        the source is missing, of the wrong kind, damaged in its header
    │   ├── DestinationError                   the destination exists, is the source, cannot be written
    │   └── HostLimitError                     an explicit limit above what the host leaves
    ├── Refused                                said beforehand, nothing written
    │   ├── MemoryRefused            exit 137  the limit is too small; carries the smallest that would do
    │   ├── DiskRefused              exit 1    the disk is too small
    │   └── DestinationBusy          exit 1    another job is writing this destination
    ├── Exceeded                     exit 137
    │   ├── MemoryExceeded                     the cap, the watchdog or an allocator said no
    │   └── DriftExceeded                      memory grew past its threshold and its projection
    ├── JobFailed                    exit 1    failed under way
    │   ├── DataError                          a block, a row or a page does not decode
    │   ├── OutputError                        writing failed: a full disk, a file-size limit
    │   ├── FunctionError                      the user's own function raised
    │   ├── VerificationFailed                 the output is not what the plan expected
    │   ├── ChildDied                          a signal or an exit code without evidence of memory
    │   ├── ChildStalled                       no progress before the stall deadline
    │   ├── TimedOut                           the user's own --timeout
    │   └── BatchFailed                        some files of a batch are not done
    └── Cancelled
        ├── Interrupted              exit 130  SIGINT
        └── Terminated               exit 143  SIGTERM, or a cancelled flow run

Errors carry their facts as attributes, survive pickling and cross the child's pipe as JSON (`to_record`,
`from_record`). What libraries raise is translated where it is raised, not here.
"""

import re
from typing import Any, ClassVar, Self

from lib.redact import redacted

# A user function's error may be megabytes long, and carry what a terminal would obey.
MOST_CHARACTERS = 2000
MOST_LINES = 100
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def shown(text: str) -> str:
    """A text in one line that a terminal shows and does not obey: cut to `MOST_CHARACTERS`, no control characters, no secrets."""
    text = redacted(text)
    if len(text) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2 - 2
        text = f"{text[:half]} … {text[-half:]}"
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))


def shown_lines(text: str) -> str:
    """A text of many lines likewise, such as a traceback: the first and the last `MOST_LINES`, each with its indent."""
    lines = text.split("\n")
    if len(lines) > 2 * MOST_LINES + 1:
        lines = [*lines[:MOST_LINES], "…", *lines[-MOST_LINES:]]
    return "\n".join(line[: len(line) - len(line.lstrip(" "))] + shown(line) for line in lines)


class SwathError(Exception):
    """Base of the tree: one line of what is wrong, a hint of what to do, facts as attributes.

    Args:
        message: what is wrong and with which file or setting, one line.
        hint: what to do about it, one line; empty where nobody knows.
        traceback: for `--debug`: no fact, so in neither record nor pickle.
        **facts: JSON-able values, each an attribute of the error.
    """

    status: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "run again with --debug for the traceback"
    # Where a job's error leaves a flow: the job's Report. Not a fact, either.
    report: Any = None

    def __init__(self, message: str, *, hint: str | None = None, traceback: str | None = None, **facts: Any) -> None:
        self.message = shown(message)
        self.hint = shown(self.default_hint if hint is None else hint)
        self.traceback = traceback
        self.facts = facts
        super().__init__(self.message)

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self).__name__, self.message, self.hint, self.facts)

    def to_record(self) -> dict[str, Any]:
        """The error as a JSON object: type, message, hint, facts."""
        return {"type": type(self).__name__, "message": self.message, "hint": self.hint, "facts": self.facts}

    @classmethod
    def known(cls) -> dict[str, type[Self]]:
        """This class and all below it, by name."""
        found: dict[str, type[Self]] = {cls.__name__: cls}
        for sub in cls.__subclasses__():
            found |= sub.known()
        return found


class UsageError(SwathError):
    """Bad usage or unusable input, known before any work."""

    exit_code = 2
    default_hint = "see `swath --help`"


class SettingsError(UsageError):
    """A setting that cannot be used; facts `layer` and `key` name it."""

    default_hint = "`swath config` shows every setting, its value and where it came from"


class SourceError(UsageError):
    """The source is missing, of the wrong kind, or damaged in a way that its header shows."""

    default_hint = "check the path and that GDAL can open it (`gdalinfo` or `ogrinfo`)"


class DestinationError(UsageError):
    """The destination exists, equals the source, or cannot be written."""

    default_hint = "choose another destination, or replace it with --overwrite"


class HostLimitError(UsageError):
    """An explicit limit above what the host leaves."""

    default_hint = "lower the limit, or run it on a larger host"


class Refused(SwathError):
    """Said beforehand; nothing was written."""

    status = "refused"


class MemoryRefused(Refused):
    """The limit is too small; fact `smallest_limit_bytes` is the smallest that would do."""

    exit_code = 137
    default_hint = "raise the memory limit"


class DiskRefused(Refused):
    """The disk is too small for the output and its temporary files."""

    default_hint = "free space there, or choose a destination on another disk"


class DestinationBusy(Refused):
    """Another job is writing this destination."""

    default_hint = "wait for the other job, or choose another destination"


class Exceeded(SwathError):
    """Memory went past its limit under way; the job was stopped."""

    status = "exceeded"
    exit_code = 137
    default_hint = "raise the memory limit; `swath plan` shows what the job needs"


class MemoryExceeded(Exceeded):
    """The cap, the watchdog or an allocator said no."""


class DriftExceeded(Exceeded):
    """Memory grew past its threshold and past its projection."""

    default_hint = "the report's top allocators name the lines that hold the memory"


class JobFailed(SwathError):
    """Failed under way; nothing was published."""


class DataError(JobFailed):
    """A block, a row or a page of the source does not decode; the hint is whoever's saw why."""

    default_hint = ""


class OutputError(JobFailed):
    """Writing the output failed; the hint is whoever's saw why."""

    default_hint = ""


class FunctionError(JobFailed):
    """The user's own function raised."""

    default_hint = "run again with --debug for the function's traceback"


class VerificationFailed(JobFailed):
    """The output is not what the plan expected; it was not published."""

    default_hint = "the report's verification names the check that failed"


class ChildDied(JobFailed):
    """The child ended by a signal or an exit code, without evidence of memory."""

    default_hint = "not a matter of memory: what it printed last, if anything, is in the report (--json)"


class ChildStalled(JobFailed):
    """No progress before the stall deadline."""

    default_hint = "raise stall_seconds if the source is that slow"


class TimedOut(JobFailed):
    """The user's own time limit passed."""

    default_hint = "raise --timeout"


class BatchFailed(JobFailed):
    """Some files of a batch are not done; the others are."""

    default_hint = "its reports say why of each; a rerun does only what is missing"


class Cancelled(SwathError):
    """Stopped by somebody."""

    status = "cancelled"
    default_hint = "run it again"


class Interrupted(Cancelled):
    """SIGINT: Ctrl-C in a terminal."""

    exit_code = 130


class Terminated(Cancelled):
    """SIGTERM, or a cancelled flow run."""

    exit_code = 143


def from_record(record: dict[str, Any]) -> SwathError:
    """The error that `to_record` described; an unknown type becomes a plain `SwathError`."""
    return _rebuild(record["type"], record["message"], record.get("hint"), record.get("facts") or {})


def _rebuild(name: str, message: str, hint: str | None, facts: dict[str, Any]) -> SwathError:
    return SwathError.known().get(name, SwathError)(message, hint=hint, **facts)
