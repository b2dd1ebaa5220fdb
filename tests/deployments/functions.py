"""What runs in tests beside the product's own flows: a slow user function, and many tasks at once."""

import sys
import time
from typing import Any


def linger(pixels: Any, _valid: Any) -> Any:
    """The pixels as they are, a second later: four windows take four seconds."""
    time.sleep(1)
    return pixels


def run_many(count: int) -> None:
    """A flow of `count` tasks that are all under way at once."""
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    @task
    def add_one(number: int) -> int:
        return number + 1

    @flow(name="many-tasks", task_runner=ThreadPoolTaskRunner(max_workers=count))  # type: ignore[arg-type]
    def many() -> int:
        return sum(add_one.map(range(count)).result())

    assert many() == count * (count + 1) // 2


if __name__ == "__main__":
    run_many(int(sys.argv[1]))
