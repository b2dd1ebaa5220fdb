"""Which failures another try may heal, and how a flow run is kept from trying again after the others.

Prefect 3.9 has a condition for the retries of tasks and none for those of flows: a run that must end the same gives up
its retries before it says that it failed.
"""

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from lib.errors import DataError, DestinationBusy, FunctionError, JobFailed, SwathError, VerificationFailed


def passes(error: object) -> bool:
    """Whether a failure may pass by itself: memory has its own ladder in lib, bad input stays bad, wrong output too."""
    if isinstance(error, DestinationBusy):
        return True
    return isinstance(error, JobFailed) and not isinstance(error, (DataError, FunctionError, VerificationFailed))


def give_up_retries(error: SwathError) -> None:
    """Let this flow run's retries be over, where it has any and the error is none that passes."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or not run.empirical_policy.retries or passes(error):
        return
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, empirical_policy=run.empirical_policy.model_copy(update={"retries": 0}))
