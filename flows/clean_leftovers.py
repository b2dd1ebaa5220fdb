"""The flow `clean-leftovers`: what dead jobs left below a folder, removed and told in a table: `swath clean`, scheduled."""

from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.flags import DRY_RUN, FOLDER, OLDER_THAN
from flows.forms import job_flow
from flows.housekeeping import SWEEP_COLUMNS, sweep_rows, sweep_title, swept


@job_flow("clean-leftovers", (FOLDER, OLDER_THAN, DRY_RUN), kind="clean", verb="clean")
def clean_leftovers(*, folder: str, older_than: str | None, dry_run: bool) -> State[list[dict[str, Any]]]:
    """Remove what dead jobs left below a folder; outputs and the staging folders of living jobs are never touched.

    Paths are those of the worker's host.
    """
    leftovers = swept(folder, older_than, word="older_than", dry_run=dry_run)
    title = f"{sweep_title(leftovers)}, below {folder}"
    rows = [dict(zip(SWEEP_COLUMNS, row, strict=True)) for row in sweep_rows(leftovers)]
    nothing = dict.fromkeys(SWEEP_COLUMNS, "-") | {"folder": "(nothing was left)"}
    create_table_artifact(rows or [nothing], key="leftovers", description=title)
    get_run_logger().info(title)
    return Completed(message=title, data=leftovers)
