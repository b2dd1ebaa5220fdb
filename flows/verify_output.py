"""The flow `verify-output`: check an output against its source, on its own."""

from typing import Literal

from prefect import flow

from lib.reports import Report
from lib.request import Choices, read_report, verify_job
from tasks.states import named_end, settled
from tasks.verification import verify

__all__ = ["verify_output"]


@flow(name="verify-output")
@named_end
def verify_output(
    source: str,
    output: str,
    report: str | None = None,
    level: Literal["basic", "full"] = "full",
    memory_limit_mb: int | None = None,
    memory_limit_max_mb: int | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    config: str | None = None,
) -> Report:
    """Check an output against its source: structure, counts, decoded blocks or rows, recomputed samples.

    Args:
        source: What the output was made from, a path on the worker's host.
        output: The output to check, a path on the worker's host.
        report: A file with the JSON report of the job that wrote the output, on the worker's host. Default: what the output's own
            metadata says; where it says nothing, structure alone is checked.
        level: How thoroughly: basic, structure, counts and a few samples; full, every block or row decoded too. Default full.
        memory_limit_mb: Resident memory that the job may use, everything included, MiB. Default: as configured, 2048 where
            nothing is.
        memory_limit_max_mb: How far the limit may be raised after a death of memory, MiB. Default: as configured, not at all.
        threads: Threads of the job. Default: planned.
        timeout: Time limit of the job, seconds. Default: none.
        config: A YAML file of settings on the worker's host. Default: what BATCH_CONFIG names, else none.
    """
    choices = Choices(
        config=config,
        memory_limit_mb=memory_limit_mb,
        memory_limit_max_mb=memory_limit_max_mb,
        threads=threads,
        timeout=timeout,
        layer="parameter",
    )
    said = read_report(report) if report else None
    return settled(verify(verify_job(source, output, choices=choices, level=level, report=said)))
