"""What a child says, in whatever pieces it comes."""

import json
import time
from collections.abc import Iterator

import pytest

from lib.jobs import Resources
from lib.memory.launch import Child


@pytest.fixture
def child() -> Iterator[Child]:
    """A child without a job."""
    child = Child("drivers", "x", Resources(limit_bytes=1))
    yield child
    child.stop()
    child.close()


@pytest.mark.parametrize("line", [b"garbage", b"[1, 2]", b'"x"', b'{"a": 1}', b'{"event": ', b"\xff"])
def test_what_is_no_event_is_heard_as_words(line: bytes, child: Child) -> None:
    """A user's function may write to any descriptor: that is no event, and no error of ours."""
    (event,) = child._split(line + b"\n")
    assert event == {"event": "stderr", "text": line.decode("utf-8", "replace")}


def test_a_line_of_megabytes_is_put_together_once(child: Child) -> None:
    """16 MiB in pieces of 64 KiB, with a short line before and behind: three events, in the time that one joining takes."""
    line = json.dumps({"event": "a", "text": "z" * 2**24}).encode()
    said = b'{"event": "b"}\n' + line + b'\n{"event": "c"}\n{"eve'
    began = time.process_time()
    events = [event for at in range(0, len(said), 65536) for event in child._split(said[at : at + 65536])]
    assert time.process_time() - began < 2
    assert [event["event"] for event in events] == ["b", "a", "c"]
    assert [event["event"] for event in child._split(b'nt": "d"}\n')] == ["d"]
