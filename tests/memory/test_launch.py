"""What a child says, in whatever pieces it comes."""

import json
import time

from lib.jobs import Resources
from lib.memory.launch import Child


def test_a_line_of_megabytes_is_put_together_once() -> None:
    """16 MiB in pieces of 64 KiB, with a short line before and behind: three events, in the time that one joining takes."""
    child = Child("drivers", "x", Resources(limit_bytes=1))
    try:
        line = json.dumps({"event": "a", "text": "z" * 2**24}).encode()
        said = b'{"event": "b"}\n' + line + b'\n{"event": "c"}\n{"eve'
        began = time.process_time()
        events = [event for at in range(0, len(said), 65536) for event in child._split(said[at : at + 65536])]
        assert time.process_time() - began < 2
        assert [event["event"] for event in events] == ["b", "a", "c"]
        assert [event["event"] for event in child._split(b'nt": "d"}\n')] == ["d"]
    finally:
        child.stop()
        child.close()
