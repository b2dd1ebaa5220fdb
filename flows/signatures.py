"""A function's parameters from knobs: what flows and commands have in common. `inspect` and what stands on it see them."""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import MISSING, Field

from lib.knobs import Knob

PROFILE = Knob(name="profile", type=bool, sentence="read and measure a sample of the source first", default=True)


def with_signature(work: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> Callable[..., Any]:
    """The function under another signature; it gets everything as keywords, defaults applied."""
    signature = inspect.signature(work).replace(parameters=parameters)

    @functools.wraps(work)
    def run(*args: Any, **given: Any) -> Any:
        bound = signature.bind(*args, **given)
        bound.apply_defaults()
        return work(**bound.arguments)

    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def call_parameters(knobs: Iterable[Knob], more: Iterable[str] = ()) -> list[inspect.Parameter]:
    """A flow's parameters as it is called, all of which may be left out, and `more` names that it does not know.

    Without types: the flow checks what it was given, in its own words.
    """
    named = [
        inspect.Parameter(each.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=_default(each)) for each in knobs
    ]
    return [*named, *(inspect.Parameter(_Name(each), inspect.Parameter.KEYWORD_ONLY, default=None) for each in more)]


def form_parameters(knobs: Iterable[Knob]) -> list[inspect.Parameter]:
    """A flow's parameters as its form shows them: titles with units, bounds, choices, real defaults; empty where there is none.

    A default of None would be sent by each custom run, and shown as that word.
    """
    return [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=_field(each), annotation=each.form_type)
        for each in knobs
    ]


def description(knob: Knob) -> str:
    """What a form says below a parameter's title."""
    words = f"{knob.words[0].upper()}{knob.words[1:]}."
    said = knob.default_words(in_flows=True)
    if not said:
        return words
    unit = f" {knob.unit}" if knob.is_setting and knob.default is not None and knob.unit else ""
    return f"{words} {'Left empty' if _default(knob) is None else 'Default'}: {said}{unit}."


class _Name(str):
    """A name as some run gave it, which need be none of Python's."""

    __slots__ = ()

    def isidentifier(self) -> bool:
        return True


def _default(knob: Knob) -> Any:
    """The default in flows; None where it may be left out, or must not be, which the flow says itself."""
    default = knob.default if knob.in_flows is None else knob.in_flows
    return None if default is ... or knob.is_setting else default


def _field(knob: Knob) -> Any:
    default = _default(knob)
    unit = "" if knob.unit in {"", "no unit"} else f" ({knob.unit})"
    return Field(
        ... if knob.default is ... else MISSING if default is None else default,
        description=description(knob),
        json_schema_extra={"title": f"{knob.name}{unit}"},
    )
