"""The cap, from inside the child: death signal and what it does not reach, start-up ceiling, RLIMIT_AS, a cgroup v2 leaf.

What a user's function starts belongs to the job: the child adopts orphans, and a guard ends all of it when the child is killed.
Resident memory is held by the parent (`watch.py`). Elsewhere than on Linux nothing here holds, and says so.
"""

import contextlib
import ctypes
import functools
import os
import resource
import signal
import sys
from pathlib import Path

from lib.memory.proc import MARK, kill_all, process_memory, tree
from lib.units import MIB

# A child with every library imported maps 1.5 GiB and holds 180 MiB: this is for run-away imports only.
STARTUP_CEILING_BYTES = 1024 * MIB
_STARTUP_ADDRESS_SPACE = 8 * 1024 * MIB
_SLACK_BYTES = 64 * MIB
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Ends those who bear our mark, itself last with the group; `-s` and `2>` are for processes that end meanwhile.
_GUARD = f"""read _
for each in $(grep -lsazx "{MARK}=${MARK}" /proc/[0-9]*/environ); do
    each=${{each#/proc/}}; each=${{each%/environ}}
    [ "$each" = $$ ] || kill -9 "$each"
done
kill -9 0"""
_LINUX = sys.platform == "linux"


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the thread that spawned us ends; end now if it already has."""
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of what our descendants leave behind (prctl(2), PR_SET_CHILD_SUBREAPER), where the kernel can."""
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@functools.cache
def end_with_us() -> int:
    """Let what a user's function starts end with this process, whoever kills it: the death signal is not inherited.

    A shell waits on a pipe that closes when we are gone, then kills who bears our mark, and our process group (ours alone: the
    child has a session of its own). Costs 1 MiB, once a child.

    Returns:
        The shell's process id.
    """
    reader, descriptor = os.pipe()
    writer = os.fdopen(descriptor, "wb", buffering=0)  # a file, because closing one twice is harmless
    os.register_at_fork(after_in_child=writer.close)  # a fork without exec would hold the pipe open
    quiet = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    waiting = [(os.POSIX_SPAWN_DUP2, reader, 0), *quiet]
    guard = os.posix_spawn("/bin/sh", ["sh", "-c", _GUARD], os.environ, file_actions=waiting)
    os.close(reader)
    return guard


def end_descendants(spared: int) -> int:
    """Kill every descendant but the one `spared`, reap them, and return how many were alive."""

    def living() -> set[int]:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return set(tree(os.getpid())[1:]) - {spared}

    return kill_all(living, until_gone=True)


def apply_startup_ceiling() -> None:
    """A fixed address-space ceiling until the plan is there."""
    _set_soft(_STARTUP_ADDRESS_SPACE)


def apply_address_space_cap(limit_bytes: int, threads: int) -> int | None:
    """Cap the address space: size now + what the limit leaves + stacks + slack.

    Returns:
        The soft RLIMIT_AS in bytes; None where the kernel does not hold one.
    """
    now = process_memory()
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    stack = 8 * MIB if stack == resource.RLIM_INFINITY else stack
    cap = now.virtual_bytes + max(0, limit_bytes - now.resident_bytes) + threads * stack + _SLACK_BYTES
    return _set_soft(cap)


def lift_address_space_cap() -> bool:
    """Room to build an error report, or for the next job's plan; True where a cap held until now."""
    with contextlib.suppress(ValueError, OSError):
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        return soft != hard
    return False


def is_near_address_space_cap(near_bytes: int) -> bool:
    """Whether this process's virtual size is within so many bytes of its soft RLIMIT_AS."""
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return soft != resource.RLIM_INFINITY and process_memory().virtual_bytes >= soft - near_bytes


def _set_soft(cap: int) -> int | None:
    """Set the soft limit, no higher than the hard one; what was set, or None where the kernel holds none."""
    if not _LINUX:
        return None
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        cap = min(cap, hard)
    resource.setrlimit(resource.RLIMIT_AS, (cap, hard))
    return cap


def enter_leaf(leaf: str | None) -> None:
    """Move this process into its cgroup v2 leaf, if it gets one, before anything is imported and so charged elsewhere."""
    if leaf:
        Path(leaf, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def limit_leaf(leaf: Path, limit_bytes: int) -> None:
    """Set the leaf's limit: no swap, and the whole group is killed at once."""
    with contextlib.suppress(FileNotFoundError):  # a kernel without swap accounting has none
        (leaf / "memory.swap.max").write_text("0", encoding="ascii")
    (leaf / "memory.oom.group").write_text("1", encoding="ascii")
    (leaf / "memory.max").write_text(str(limit_bytes), encoding="ascii")


def trim() -> None:
    """Give malloc's free pages back to the kernel, where the C library can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
