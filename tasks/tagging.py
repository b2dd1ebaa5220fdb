"""What a run is, as tags: its kind and its operation, beside those of its deployment; on the flow run and on its tasks."""

import contextlib
from collections.abc import Iterator

from prefect import get_run_logger, tags
from prefect.client.orchestration import SyncPrefectClient
from prefect.context import FlowRunContext


@contextlib.contextmanager
def tagged(*words: str) -> Iterator[None]:
    """Tag the flow run under way and the tasks that it calls; a server that does not answer costs a warning."""
    _tag_run(words)
    with tags(*words):
        yield


def _tag_run(words: tuple[str, ...]) -> None:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not isinstance(context.client, SyncPrefectClient):
        return
    run, has = context.flow_run, set(context.flow_run.tags)
    if has.issuperset(words):
        return
    try:
        context.client.update_flow_run(run.id, tags=sorted(has.union(words)))
    except Exception as error:  # noqa: BLE001 - whatever the API's client raises: a run without tags is a run
        get_run_logger().warning("this run has no tags: %s", error)
