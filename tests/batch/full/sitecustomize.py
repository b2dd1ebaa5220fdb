"""A child whose disk is full as soon as there is a file `full` beside its destination."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_real = shutil.disk_usage


def _usage(path: Any) -> Any:
    return SimpleNamespace(free=0) if (Path(path).parent / "full").exists() else _real(path)


shutil.disk_usage = _usage
