"""Flows of jobs: a form made from knobs, a run that says what it is, and one that names what is wrong with its parameters.

Prefect ends a run whose parameters its flow does not have (a misspelt one, a schedule of another version) before it starts, as
"Crashed". So the function that a flow calls takes whatever its run was given, and checks it in our words (lib/parameters.py).
"""

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from prefect import runtime
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.flows import Flow

from flows.signatures import call_parameters, description, form_parameters
from lib.errors import UsageError, shown
from lib.knobs import Knob
from lib.parameters import take_parameters
from lib.units import file_label
from tasks.run_page import page_of_refusal
from tasks.states import named_end
from tasks.tagging import tagged

_NAME_LONG = 200
R = TypeVar("R")


class JobFlow(Flow[..., R | State[Any]], Generic[R]):
    """A flow with a form of knobs.

    Args:
        work: gets every parameter as a keyword, checked, defaults applied.
        name: of the flow.
        knobs: its parameters.
        kind: of its jobs, the first tag of its runs.
        verb: what it does, as its runs' names begin, and their second tag; a parameter's name where that says it.
    """

    def __init__(self, work: Callable[..., R], name: str, knobs: Sequence[Knob], kind: str, verb: str) -> None:
        self._called: Callable[..., Any] | None = None
        self._is_made, self.knobs = False, tuple(knobs)
        arguments = "\n".join(f"    {each.name}: {description(each)}" for each in knobs)
        about = inspect.cleandoc(work.__doc__ or "")

        @functools.wraps(work)
        def run(*given_in_order: Any, **given: Any) -> R:
            named = dict(zip([each.name for each in knobs], given_in_order, strict=False))
            given = named | given
            with page_of_refusal(kind, given):
                try:
                    taken = take_parameters(given, knobs, name)
                    given.update(taken)
                except UsageError:
                    with tagged(kind):  # so that it is found among its like
                        raise
                with tagged(kind, taken.get(verb, verb)):
                    return work(**taken)

        run.__doc__ = f"{about}\n\nArgs:\n{arguments}\n"
        run.__signature__ = inspect.Signature(call_parameters(knobs))  # type: ignore[attr-defined]
        run.__annotations__ = {}
        super().__init__(
            named_end(run),
            name=name,
            description=about,
            flow_run_name=lambda: chosen_name(runtime.flow_run.name) or run_name(verb, runtime.flow_run.parameters),
            validate_parameters=False,
        )
        # What a form and a deployment's schema are made from.
        self.__signature__ = inspect.Signature(form_parameters(knobs))
        self._is_made = True

    @property
    def fn(self) -> Callable[..., Any]:
        """The function; in a process that is a run's own, it takes the names that the run was given, too."""
        made = self._called
        assert made is not None  # noqa: S101
        if self._is_made and "PREFECT__FLOW_RUN_ID" in os.environ and FlowRunContext.get() is None:
            self._is_made = False
            self._called = made = _taking(made, runtime.flow_run.parameters)
        return made

    @fn.setter
    def fn(self, work: Callable[..., Any]) -> None:
        self._called = work


def job_flow(name: str, knobs: Sequence[Knob], *, kind: str, verb: str) -> Callable[[Callable[..., R]], JobFlow[R]]:
    """Make a function a flow; see `JobFlow`."""
    return lambda work: JobFlow(work, name, knobs, kind, verb)


def chosen_name(has: str | None) -> str:
    """A run's name where a person gave it: server and form make up two words, such as `generic-nutria`; else empty."""
    return "" if not has or re.fullmatch(r"[A-Za-z]+(-[A-Za-z]+)+", has) else has


def run_name(verb: str, given: Mapping[str, Any]) -> str:
    """What a run is: `normalise T32UQD.tif → scaled.tif`, of what there is; wrong parameters are not its business."""

    def label(name: str) -> str:
        return file_label(str(given[name])) if given.get(name) else ""

    source, destination, output = map(label, ("source", "destination", "output"))
    way = f"{output} against {source}" if output else " → ".join(filter(None, [source, destination]))
    return shown(f"{given.get(verb) or verb} {way or label('folder') or label('into')}".strip())[:_NAME_LONG]


def _taking(work: Callable[..., Any], given: Mapping[str, Any]) -> Callable[..., Any]:
    """The function under a signature that has all names that were given."""
    signature = inspect.signature(work)
    unknown = [name for name in given if name not in signature.parameters]
    if not unknown:
        return work

    @functools.wraps(work)
    def run(*args: Any, **named: Any) -> Any:
        return work(*args, **{str(name): value for name, value in named.items()})

    more = call_parameters([], unknown)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *more])  # type: ignore[attr-defined]
    return run
