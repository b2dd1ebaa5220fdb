"""What a flow run was given: every name known, nothing missing that is needed, each value of its type.

Forms and the server check against the same knobs; schedules, automations, runs of another version's deployment and clients that
switch that off come here unchecked.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lib import __version__
from lib.errors import UsageError
from lib.knobs import Knob

# How alike a suggestion must be to what was given.
_NEAR = 0.75


def take_parameters(given: Mapping[str, Any], knobs: Sequence[Knob], owner: str) -> dict[str, Any]:
    """A flow's parameters by name, those that were left out (None, or an empty list) at their defaults.

    Settings pass as they are: what merges them checks them, too.

    Args:
        given: the run's parameters.
        knobs: what there is to give.
        owner: the flow's name, for the message.

    Raises:
        UsageError: a name that is not known, one that is needed and missing, or a value of the wrong type.
    """
    _check_names(given, knobs, owner)
    return {each.name: _taken(each, given.get(each.name)) for each in knobs}


def _check_names(given: Mapping[str, Any], knobs: Sequence[Knob], owner: str) -> None:
    known = [each.name for each in knobs]
    unknown = [name for name in given if name not in known]
    missing = [each.name for each in knobs if each.default is ... and given.get(each.name) is None]
    problems = []
    if unknown:
        problems.append(f"{owner} has no parameter {_listed(map(repr, unknown))}")
    if missing:
        problems.append(f"{owner} needs a value of {_listed(missing)}")
    if not problems:
        return
    near = {name: found[0] for name in unknown if (found := difflib.get_close_matches(name, known, 1, _NEAR))}
    meant = [f"{found} for {name}" if len(unknown) > 1 else found for name, found in near.items()]
    hints = [f"did you mean {_listed(meant)}?" if meant else "", f"known are {', '.join(known)}"]
    if unknown:
        hints.append(f"what was made for another version than {__version__} is to be deployed again or edited")
    raise UsageError("; ".join(problems), hint="; ".join(filter(None, hints)).replace("?;", "?"))


def _taken(knob: Knob, value: Any) -> Any:
    if value is None or value == []:
        default = knob.default if knob.in_flows is None else knob.in_flows
        return None if knob.is_setting else default
    if knob.is_setting:
        return value
    try:
        return TypeAdapter(knob.type).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        shown = "" if repr(value) in problem else f" (it is {value!r})"
        raise UsageError(f"{knob.name}: {problem}{shown}", hint=f"it is: {knob.words}") from error


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
