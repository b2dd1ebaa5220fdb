"""The list of odd rasters: what counts as broken, and that its jobs run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.odd_rasters import cases, summary, verdict

ROOT = Path(__file__).resolve().parents[2]


def _report(status: str, peak: int = 90, attempts: int = 1, **error: Any) -> dict[str, Any]:
    return {
        "status": status, "memory": {"peak_bytes": peak << 20}, "plan": {"projected_bytes": 100 << 20},
        "attempts": [{}] * attempts, "error": error or None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("report", "word"),
    [
        (_report("completed"), "fine"),
        (_report("completed", attempts=2), "healed"),
        (_report("completed", peak=101), "above"),
        (_report("completed", peak=101, attempts=2), "above"),
        (_report("exceeded"), "stopped"),
        (_report("refused", smallest_limit_mb=130), "refused"),
        (_report("refused"), "failed"),
        (_report("failed"), "failed"),
        ({"status": "no report"}, "failed"),
    ],
)
def test_a_report_in_a_word(report: dict[str, Any], word: str) -> None:
    """A refusal counts as one in words only where it names a limit; a peak above the projection counts however it was reached."""
    assert verdict(report) == word


def test_a_refusal_with_a_larger_limit_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ample, then the limit that was named, then the one that its refusal names."""
    from tests.benchmarks import odd_rasters

    answers = {
        1024: _report("completed") | {"plan": {"projected_bytes": 100 << 20, "smallest_limit_bytes": 120 << 20}},
        120: _report("refused", smallest_limit_mb=140),
        140: _report("completed"),
    }
    monkeypatch.setattr(odd_rasters, "made", lambda *_: (tmp_path / "odd.tif", ""))
    monkeypatch.setattr(odd_rasters, "job", lambda _swath, _source, _folder, limit: answers[limit])
    told = [
        (one["case"], one["limit"], one["verdict"], one["steps"]) for one in cases("any", tmp_path, tmp_path, "small")
    ]
    assert told == [("ample", 1024, "fine", 0), ("tight", 140, "fine", 1)]


@pytest.mark.slow
def test_odd_jobs_run_once(tmp_path: Path) -> None:
    """Two jobs of a small source are told and kept; a second call sums them up without running them."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.odd_rasters",
        "tiles-packbits",
        "--size",
        "small",
        "--results",
        tmp_path,
    ]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    results = [json.loads(text) for text in (tmp_path / "small.jsonl").read_text().splitlines()]
    assert [one["case"] for one in results] == ["ample", "tight"], first.stdout + first.stderr
    assert all(one["limit"] and one["projected"] and one["verdict"] in {"fine", "healed"} for one in results), results
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert second.stdout.strip() == summary(results)
