"""Flags of the command line, made from knobs: what they mean is said in the models of jobs and settings, once.

What a knob's own validator reads comes as text, so that a unit where MiB is expected can be answered with what to write.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from cyclopts import Parameter

from flows import terminal
from flows.signatures import with_signature
from lib.batch import BATCH_KNOBS
from lib.jobs import ProfileJob, RasterJob, VectorJob, VerifyJob
from lib.knobs import Knob
from lib.request import AnyKind, job_knobs, settings_of
from lib.settings import settings_knobs

_COMMANDS: dict[str, AnyKind] = {"raster": RasterJob, "vector": VectorJob, "verify": VerifyJob, "profile": ProfileJob}

FLOW = Knob(
    name="flow",
    type=bool,
    sentence="run as a Prefect flow run: on the server in PREFECT_API_URL, else of `make up`, else on an embedded one",
    default=False,
)
HISTORY = Knob(
    name="history",
    type=bool,
    sentence="show past runs' projected and measured peaks instead of reading anything",
    default=False,
)
FOLDER = Knob(name="folder", type=str, sentence="where to look, subfolders included", default=..., positional=True)
OLDER_THAN = Knob(
    name="older_than",
    type=str | None,
    sentence="remove other hosts' leftovers too, if untouched for so long: 90s, 30m, 24h, 7d",
    unset="they are left alone",
)
DRY_RUN = Knob(name="dry_run", type=bool, sentence="list only", default=False)
PLAN = Knob(
    name="plan",
    type=bool,
    sentence="show what each file would take, and what is refused; nothing is written",
    default=False,
)
DEMO_FOLDER = Knob(name="folder", type=str, sentence="where the sample data and the outputs go", default=".demo")
_DISPLAY = (
    Knob(name="json", type=bool, sentence="print exactly one JSON object on stdout, errors included", default=False),
    Knob(name="debug", type=bool, sentence="show tracebacks", default=False),
    *settings_knobs(["log_format"]),
)


class Display(NamedTuple):
    """How a command's end is shown: as one JSON object, with tracebacks."""

    json: bool = False
    debug: bool = False


def flags(
    kind: AnyKind | None = None, *more: Knob, without: Sequence[str] = (), **defaults: Any
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command the knobs of a kind of job (None: those of every job), `more`, and those of its display.

    It gets them all as keywords, None where one was left out. `defaults` are of what another command must be told, `without`
    are names of knobs that it has not.
    """
    knobs = [*(each for each in job_knobs(kind) if each.name not in without), *more, *_DISPLAY]

    def decorate(work: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(work)
        def run(*, json: bool, debug: bool, log_format: str | None, **given: Any) -> int:
            settings = settings_of({"config": given.get("config"), "log_format": log_format}).settings
            terminal.listen(settings.log_format, settings.log_path)
            return work(display=Display(json, debug), **given)

        parameters = [_parameter(each, defaults) for each in knobs]
        return with_signature(run, sorted(parameters, key=lambda each: each.kind))

    return decorate


def flag_table() -> str:
    """Every flag of a job or of batches with its commands, unit, bounds and default, as the README has it."""
    rows: dict[str, list[str]] = {}
    knobs = {command: job_knobs(kind) for command, kind in _COMMANDS.items()} | {"batch": [*BATCH_KNOBS, PLAN]}
    for command, of_command in knobs.items():
        for each in of_command:
            if not each.positional:
                choices = "\\|".join(get_args(each.bare_type) if get_origin(each.bare_type) is Literal else ())
                flag = f"`{each.as_flag} {choices}`".replace(" `", "`")
                rows.setdefault(f"{each.words} | {_default(each)} |", [flag]).append(command)
    lines = [f"| {flag} | {', '.join(commands)} | {said}" for said, (flag, *commands) in rows.items()]
    return "\n".join(["| flag | of | what it is | default |", "|---|---|---|---|", *lines])


def _parameter(knob: Knob, defaults: Mapping[str, Any]) -> inspect.Parameter:
    kind: Any = inspect.Parameter.POSITIONAL_ONLY if knob.positional else inspect.Parameter.KEYWORD_ONLY
    default = defaults.get(knob.name, inspect.Parameter.empty if knob.default is ... else None)
    type_: Any = str if knob.reads_text else knob.bare_type
    if knob.positional and get_origin(type_) is tuple:
        kind, default, type_ = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.empty, get_args(type_)[0]
    elif type_ is bool:
        default = False
    elif default is None:
        type_ |= None
    said = f" (default: {_default(knob)})" if _default(knob) and type_ is not bool else ""
    name = None if knob.positional else knob.as_flag
    about = Parameter(
        name=name, help=f"{knob.words}{said}.", allow_leading_hyphen=not knob.positional, show_default=False
    )
    return inspect.Parameter(knob.name, kind, default=default, annotation=Annotated[type_, about])


def _default(knob: Knob) -> str:
    both = [knob.default_words(), knob.default_words(in_flows=True)]
    return both[0] if both[0] == both[1] else f"{both[0]}; {both[1]} in flows"
