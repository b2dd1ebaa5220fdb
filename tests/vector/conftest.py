"""Makes this folder's helpers importable by name, for tests and for the child processes that they start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest_vector import run_job  # noqa: F401 - a fixture
