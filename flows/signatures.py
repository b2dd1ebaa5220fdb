"""A function's parameters from knobs: what flows and commands have in common. `inspect` and what stands on it see them."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from lib.knobs import Knob
from lib.request import AnyKind, job_knobs

PROFILE = Knob(name="profile", type=bool, sentence="read and measure a sample of the source first", default=True)


def flow_parameters(kind: AnyKind, *more: Knob) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a flow function the knobs of a kind of job, as parameters and as the `Args:` of its docstring.

    Prefect's forms show no other description. The function gets them all as keywords.
    """
    knobs = [*job_knobs(kind), *more]

    def decorate(work: Callable[..., Any]) -> Callable[..., Any]:
        run = with_signature(work, [_parameter(each) for each in knobs])
        arguments = "\n".join(f"    {each.name}: {_description(each)}" for each in knobs)
        run.__doc__ = f"{inspect.cleandoc(work.__doc__ or '')}\n\nArgs:\n{arguments}\n"
        return run

    return decorate


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


def _parameter(knob: Knob) -> inspect.Parameter:
    default = knob.default if knob.in_flows is None else knob.in_flows
    annotation = knob.type
    if knob.is_setting:  # checked by the settings, which name the parameter in what they say
        annotation, default = knob.bare_type | None, None
    return inspect.Parameter(
        knob.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=inspect.Parameter.empty if default is ... else default,
        annotation=annotation,
    )


def _description(knob: Knob) -> str:
    default = knob.default_words(in_flows=True)
    return f"{knob.words[0].upper()}{knob.words[1:]}.{f' Default: {default}.' if default else ''}"
