"""Many files under one memory budget: what there is to do, what each will take, and which of it is done already."""

from typing import Literal

from lib.knobs import Knob
from lib.settings import settings_knobs

BATCH_KNOBS = (
    Knob(
        name="inputs", type=tuple[str, ...], default=..., positional=True, common=True,
        sentence="files, URLs, globs, folders, manifests: a CSV or JSON lines with a source in each row, and choices of its own",
    ),
    Knob(
        name="into", type=str, default=..., common=True,
        sentence="the folder of the outputs and of the reports; made where it is missing",
    ),
    Knob(
        name="template", type=str | None, common=True, unset="{stem}.tif, or {stem}.gpkg",
        sentence="an output's name below that folder, with {stem}, {name}, {suffix}, {folder} or {number} of its source",
    ),
    Knob(
        name="force", type=bool, default=False,
        sentence="do again what is done: outputs that are there as they were made, of the same source by the same choices",
    ),
    Knob(name="fail_fast", type=bool, default=False, sentence="stop at the first file that fails"),
    *settings_knobs(["host_budget_mb"]),
)  # fmt: skip
ENGINE = Knob(
    name="engine",
    type=Literal["threads", "dask"],
    sentence="where files are done: in threads of the flow's process, each with its capped child, or by workers of Dask",
    default="threads",
)
DASK_ADDRESS = Knob(
    name="dask_address",
    type=str | None,
    sentence="the address of a Dask scheduler whose workers see the same storage, such as tcp://host:8786",
    unset="a cluster on this host for the run",
)
# What a batch's files have each of their own.
WITHOUT = ("source", "destination", "append")
