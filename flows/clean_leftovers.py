"""The flow `clean-leftovers`: what dead jobs left below a folder, removed and told in a table: `swath clean`, scheduled."""

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.housekeeping import SWEEP_COLUMNS, sweep_rows, sweep_title, swept
from tasks.states import named_end


@flow(name="clean-leftovers")
@named_end
def clean_leftovers(
    folder: str, older_than: str | None = None, *, dry_run: bool = False
) -> State[list[dict[str, Any]]]:
    """Remove what dead jobs left below a folder; outputs and the staging folders of living jobs are never touched.

    Args:
        folder: The folder of the destinations, a path on the worker's host; its subfolders are looked through too.
        older_than: Remove only what is older, other hosts' leftovers too: 90s, 30m, 24h or 7d. Default: of any age, those whose
            owner on the worker's host is dead.
        dry_run: List, remove nothing. Default: false.
    """
    leftovers = swept(folder, older_than, word="older_than", dry_run=dry_run)
    title = f"{sweep_title(leftovers)}, below {folder}"
    rows = [dict(zip(SWEEP_COLUMNS, row, strict=True)) for row in sweep_rows(leftovers)]
    nothing = dict.fromkeys(SWEEP_COLUMNS, "-") | {"folder": "(nothing was left)"}
    create_table_artifact(rows or [nothing], key="leftovers", description=title)
    get_run_logger().info(title)
    return Completed(message=title, data=leftovers)
