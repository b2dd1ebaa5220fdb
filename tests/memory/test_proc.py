"""What is counted of a process's descendants."""

import os
import subprocess
import sys
import time

from lib.memory.proc import MARK, jobs_below


def test_only_children_that_do_jobs_are_counted() -> None:
    """With what they start; not one that was forked and runs no program yet, whose size is its parent's, and no server."""
    ours, theirs = os.pipe()
    forked = os.fork()
    if forked == 0:  # pragma: no cover - the process that only waits
        os.read(ours, 1)
        os._exit(0)
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], check=False)"
    server, job = (
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=os.environ | more)
        for more in ({}, {MARK: "1"})
    )
    try:
        deadline = time.monotonic() + 30
        while len(found := jobs_below(os.getpid())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found[0] == job.pid
        assert len(found) == 2
        assert not {forked, server.pid} & set(found)
    finally:
        os.write(theirs, b"x")
        os.waitpid(forked, 0)
        for each in (server, job):
            each.communicate(b"\n")
        os.close(ours)
        os.close(theirs)
