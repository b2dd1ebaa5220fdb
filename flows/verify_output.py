"""The flow `verify-output`: check an output against its source, on its own."""

from typing import Any

from flows.forms import job_flow
from lib.jobs import VerifyJob
from lib.reports import Report
from lib.request import job_knobs, verify_job
from tasks.states import settled
from tasks.verification import verify


@job_flow("verify-output", job_knobs(VerifyJob), kind="verify", verb="verify")
def verify_output(**given: Any) -> Report:
    """Check an output against its source: structure, counts, decoded blocks or rows, recomputed samples.

    Paths are those of the worker's host.
    """
    return settled(verify(verify_job(**given, word="parameter")))
