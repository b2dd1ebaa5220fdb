"""Real jobs over odd raster formats: do they end within their projection? `python -m tests.benchmarks.odd_rasters [NAME …]`.

Each source of `odd_sources.py` is rescaled by whole processes: at an ample limit, and at the smallest limit that was named
then. Where that limit is refused with a larger one, the larger one is tried, and counted as a step. One line a job; lines of
earlier runs are kept in build/odd/SIZE.jsonl and not run again without --again. A name may be a pattern: 'jp2*'.
"""

import argparse
import fnmatch
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
AMPLE_MIB = 1024
STEPS = 3
# Completed above its projection, or stopped at its own limit: what should not happen.
BROKEN = ("above", "stopped")


def made(name: str, folder: Path, size: str) -> tuple[Path | None, str]:
    """The source, made in a process of its own so that this one stays small; None and why where it cannot be made."""
    command = [sys.executable, "-m", "tests.benchmarks.odd_sources", name, str(folder), "--size", size]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no words"])[-1]
    return Path(done.stdout), ""


def job(swath: Path, source: Path, folder: Path, limit_mib: int) -> dict[str, Any]:
    """The report of one job at a limit."""
    out = folder / "out.tif"
    command = [swath, "raster", source, out, "--operation", "rescale", "--multiply", "2", "--json", "--overwrite"]
    done = subprocess.run(
        [*map(str, command), "--memory-limit-mb", str(limit_mib)],
        cwd=folder, env=os.environ | {"XDG_STATE_HOME": str(folder / "state")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    out.unlink(missing_ok=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"status": "no report", "exit_code": done.returncode, "error": {"message": done.stderr[-300:]}}


def verdict(report: dict[str, Any]) -> str:
    """What came of a job, in a word: fine, healed, above, stopped, refused, or failed."""
    error, memory, plan = (report.get(key) or {} for key in ("error", "memory", "plan"))
    match report["status"]:
        case "completed" if memory["peak_bytes"] > plan["projected_bytes"]:
            return "above"
        case "completed":
            return "healed" if len(report.get("attempts") or ()) > 1 else "fine"
        case "exceeded":
            return "stopped"
        case "refused" if error.get("smallest_limit_mb"):
            return "refused"
        case _:
            return "failed"


def record(name: str, case: str, limit_mib: int, report: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One line of the results; sizes in MiB."""
    error, memory, plan = (report.get(key) or {} for key in ("error", "memory", "plan"))
    projected, peak = plan.get("projected_bytes"), memory.get("peak_bytes")
    return {
        "name": name, "case": case, "verdict": verdict(report), "status": report["status"], "exit": report.get("exit_code"),
        "limit": limit_mib, "projected": projected and round(projected / MIB, 1), "peak": peak and round(peak / MIB, 1),
        "padding": round((projected - peak) / MIB, 1) if projected and peak else None,
        "attempts": len(report.get("attempts") or ()), "smallest": smallest_mib(report), "seconds": round(seconds, 1),
        "words": f"{error.get('type', '')}: {error.get('message', '')}"[:300] if error else "",
    }  # fmt: skip


def smallest_mib(report: dict[str, Any]) -> int | None:
    """The smallest limit that a report names: its error's, else its plan's."""
    named = (report.get("error") or {}).get("smallest_limit_mb")
    planned = (report.get("plan") or {}).get("smallest_limit_bytes")
    return named or (math.ceil(planned / MIB) if planned else None)


def cases(name: str, swath: Path, folder: Path, size: str) -> Iterator[dict[str, Any]]:
    """The jobs of one source: ample, then tight, one step up for each refusal that names a larger limit."""
    source, why = made(name, folder, size)
    if source is None:
        yield {"name": name, "case": "source", "verdict": "not made", "words": why}
        return
    limit, case, before = AMPLE_MIB, "ample", 0
    for step in range(STEPS + 2):
        began = time.monotonic()
        report = job(swath, source, folder, limit)
        done = record(name, case, limit, report, time.monotonic() - began)
        smallest = done["smallest"]
        last = step == STEPS + 1 or smallest is None or (case != "ample" and done["verdict"] != "refused")
        if last or case == "ample" or smallest <= limit:
            yield done | {"steps": before}
        if last or (case != "ample" and smallest <= limit):
            return
        before += case != "ample"
        limit, case = smallest, "tight"


def line(done: dict[str, Any]) -> str:
    """One job as the screen shows it."""
    figures = " ".join(
        f"{key} {done[key]}" for key in ("limit", "projected", "peak", "padding") if done.get(key) is not None
    )
    more = f" attempts {done['attempts']}" if done.get("attempts", 0) > 1 else ""
    more += f" after {done['steps']} refusals" if done.get("steps") else ""
    words = (
        ""
        if done["verdict"] in {"fine", "healed"}
        else f" | {done['words'].splitlines()[0][:110] if done['words'] else ''}"
    )
    return (
        f"{done['name']:<26} {done['case']:<6} {done['verdict']:<8} {figures}{more} {done.get('seconds', '')} s{words}"
    )


def summary(results: list[dict[str, Any]]) -> str:
    """The counts, and the names of what should not be."""
    jobs = [done for done in results if done["case"] != "source"]
    counts = Counter(done["verdict"] for done in jobs)
    paddings = sorted(done["padding"] for done in jobs if done["verdict"] in {"fine", "healed"})
    lines = [
        f"{len(jobs)} jobs over {len({done['name'] for done in jobs})} sources: "
        + ", ".join(f"{counts[word]} {word}" for word in ("fine", "healed", "refused", "above", "stopped", "failed")),
        f"above their projection or at their own limit: {sum(counts[word] for word in BROKEN)} of {len(jobs)}",
    ]
    if paddings:
        lines.append(
            f"padding of those that completed, MiB: median {paddings[len(paddings) // 2]}, most {paddings[-1]}"
        )
    lines += [f"  {line(done)}" for done in results if done["verdict"] not in {"fine", "healed"}]
    return "\n".join(lines)


def kept(path: Path, *, again: bool) -> dict[str, list[dict[str, Any]]]:
    """Results of earlier runs by the source's name."""
    earlier: dict[str, list[dict[str, Any]]] = {}
    if path.exists() and not again:
        for text in path.read_text(encoding="utf-8").splitlines():
            done = json.loads(text)
            earlier.setdefault(done["name"], []).append(done)
    return earlier


def main() -> int:
    """Run what was not run yet, and sum up; 1 where a job is broken or failed."""
    listed = [sys.executable, "-c", "from tests.benchmarks.odd_sources import SOURCES; print(*SOURCES, sep='\\n')"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"], help="names or patterns (default: all)")
    parser.add_argument("--size", choices=("small", "medium", "full"), default="full")
    parser.add_argument("--again", action="store_true", help="forget earlier results")
    parser.add_argument("--list", action="store_true", help="only print the names")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "odd")
    parser.add_argument("--swath", type=Path, default=Path(sys.executable).with_name("swath"))
    given = parser.parse_args()
    wanted = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in given.names)]
    if given.list:
        print(*wanted, sep="\n")
        return 0
    results = given.results.absolute()
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{given.size}.jsonl"
    earlier = kept(path, again=given.again)
    done: list[dict[str, Any]] = []
    with path.open("w" if given.again else "a", encoding="utf-8") as log:
        for name in wanted:
            if name in earlier:
                done += earlier[name]
                continue
            folder = results / f"{name}.tmp"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            finished = []
            for one in cases(name, given.swath.absolute(), folder, given.size):
                finished.append(one)
                print(line(one), flush=True)
            log.writelines(json.dumps(one) + "\n" for one in finished)
            log.flush()
            done += finished
            shutil.rmtree(folder)
    print(summary(done))
    return 1 if any(one["verdict"] in {*BROKEN, "failed"} for one in done) else 0


if __name__ == "__main__":
    raise SystemExit(main())
