"""The flow `verify-output`: check an output against its source, on its own."""

from typing import Any

from prefect import flow

from flows.signatures import flow_parameters
from lib.jobs import VerifyJob
from lib.reports import Report
from lib.request import verify_job
from tasks.states import named_end, settled
from tasks.verification import verify


@flow(name="verify-output")
@named_end
@flow_parameters(VerifyJob)
def verify_output(**given: Any) -> Report:
    """Check an output against its source: structure, counts, decoded blocks or rows, recomputed samples.

    Paths are those of the worker's host.
    """
    return settled(verify(verify_job(**given, word="parameter")))
