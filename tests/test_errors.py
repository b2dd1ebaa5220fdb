"""The error tree: exit codes by kind, one line each, whole through pickle and JSON."""

import inspect
import json
import pickle
import re

import pytest

from lib import errors
from lib.errors import (
    MOST_CHARACTERS,
    MOST_LINES,
    JobFailed,
    MemoryRefused,
    SettingsError,
    SwathError,
    from_record,
    shown_lines,
)
from lib.reports import ErrorRecord, Report
from lib.units import MIB

ALL = sorted(SwathError.known().values(), key=lambda each: each.__name__)

# The design's table, written down again on purpose.
EXIT_CODES = {
    "usage": (2, "failed", "UsageError SettingsError SourceError DestinationError HostLimitError"),
    "refused memory": (137, "refused", "MemoryRefused"),
    "refused": (1, "refused", "Refused DiskRefused DestinationBusy"),
    "exceeded": (137, "exceeded", "Exceeded MemoryExceeded DriftExceeded"),
    "failed": (
        1,
        "failed",
        "SwathError JobFailed DataError OutputError FunctionError VerificationFailed ChildDied ChildStalled TimedOut BatchFailed",
    ),
    "interrupted": (130, "cancelled", "Interrupted"),
    "terminated": (143, "cancelled", "Terminated"),
}


def test_every_error_has_the_designs_exit_code_and_status() -> None:
    """Exit codes and statuses are those of the design's table, and no error is outside of it."""
    wanted = {name: (code, status) for code, status, names in EXIT_CODES.values() for name in names.split()}
    found = {each.__name__: (each.exit_code, each.status) for each in ALL if each is not errors.Cancelled}
    assert found == wanted


def test_the_docstrings_tree_names_every_error() -> None:
    """The tree drawn at the top of the module is the tree that exists."""
    drawn = set(re.findall(r"^\s*(?:[│├└─ ]*)([A-Z]\w+)", inspect.getdoc(errors).split("::")[1], re.MULTILINE))  # type: ignore[union-attr]
    names = {each.__name__ for each in ALL}
    assert names <= drawn


@pytest.mark.parametrize("kind", ALL, ids=lambda each: each.__name__)
def test_an_error_survives_pickle_and_json(kind: type[SwathError]) -> None:
    """Type, message, hint and facts come through a pickle and through the child's pipe as they were."""
    error = kind("scene.tif is damaged", hint="fetch it again", smallest_limit_bytes=7 * MIB, names=["a", "b"])
    for again in (pickle.loads(pickle.dumps(error)), from_record(json.loads(json.dumps(error.to_record())))):  # noqa: S301 - our own
        assert type(again) is kind
        assert (again.message, again.hint, again.facts) == (error.message, error.hint, error.facts)
        assert again.smallest_limit_bytes == 7 * MIB
        assert str(again) == "scene.tif is damaged"


def test_a_message_is_one_line() -> None:
    """What a library says in several lines is told in one."""
    assert SwathError("no such file:\n  scene.tif\n").message == "no such file: scene.tif"


def test_a_message_is_cut_and_obeyed_by_no_terminal() -> None:
    """Five megabytes, an escape sequence, a lone surrogate: the beginning and the end, with nothing in it but text."""
    error = SwathError("\x1b[31mred\x07\udcff " + "z" * 5_000_000 + " the end")
    assert len(error.message) <= MOST_CHARACTERS
    assert error.message.startswith("\ufffd[31mred\ufffd\ufffd z")
    assert error.message.endswith("z the end")
    assert error.message.isprintable()
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert again.message == error.message


def test_lines_are_cut_and_keep_their_indent() -> None:
    """A traceback of a deep recursion, with a long line in it."""
    text = "\n".join(["Traceback:", *["  File x\x1b[0m"] * 1000, "ValueError: " + "z" * 10_000])
    lines = shown_lines(text).split("\n")
    assert lines[:2] == ["Traceback:", "  File x\ufffd[0m"]
    assert len(lines) == 2 * MOST_LINES + 1
    assert len(lines[-1]) <= MOST_CHARACTERS
    assert shown_lines("\n".join(lines)) == "\n".join(lines)


def test_every_error_has_a_hint_unless_its_cause_must_be_seen() -> None:
    """Where a message gives no hint, the kind does; one line. What cannot be read or written says nothing that nobody saw."""
    for kind in ALL:
        hint = kind("x").hint
        assert bool(hint) is (kind.__name__ not in {"DataError", "OutputError"})
        assert "\n" not in hint
    assert JobFailed("x", hint="").hint == ""


def test_a_fact_that_is_not_there_is_an_attribute_error() -> None:
    """Facts are attributes; a missing one names the error and the attribute."""
    with pytest.raises(AttributeError, match="SettingsError has no 'layer'"):
        _ = SettingsError("x").layer


def test_an_unknown_type_of_record_is_still_an_error() -> None:
    """A record of another version becomes the base of the tree, with its words kept."""
    error = from_record({"type": "OfTomorrow", "message": "new", "hint": None})
    assert type(error) is SwathError
    assert error.message == "new"


def test_a_reports_smallest_limit_is_enough_when_typed_back() -> None:
    """`error.smallest_limit_mb` is the smallest limit in bytes, rounded up to MiB."""
    record = ErrorRecord.of(MemoryRefused("too small", smallest_limit_bytes=100 * MIB + 1))
    assert record.smallest_limit_mb == 101
    assert ErrorRecord.of(SettingsError("x")).smallest_limit_mb is None


def test_a_report_of_an_error_carries_its_status_and_exit_code() -> None:
    """A job that never got as far as a child has a report of the same shape."""
    report = Report.of_error(MemoryRefused("too small", smallest_limit_bytes=MIB))
    assert (report.status, report.exit_code, report.ok) == ("refused", 137, False)
    assert report.error is not None
    assert json.loads(report.model_dump_json())["error"]["type"] == "MemoryRefused"
