"""With this folder on PYTHONPATH a child takes `small.py` for the engine of `profile`."""

from lib.memory import work

work.ENGINES["profile"] = "tests.memory.engines.small"
