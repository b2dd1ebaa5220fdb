"""Knobs: what a user may turn. Each is declared once, with `knob`, as a field of its job's model or of the settings.

Flags with their help, flow parameters with their descriptions and the README's table are all made from `knobs_of`; what is no
knob (a job's resources, its driver) is a plain field.
"""

import functools
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field
from pydantic.fields import FieldInfo

_MARK = "knob"
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most", "multiple_of": "a multiple of"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One knob.

    Attributes:
        name: of the flow parameter, and of the flag unless `flag` names that.
        type: the annotation, with its bounds and validators.
        sentence: what it is, in lower case, without a full stop.
        default: `...` where there must be a value; None where it may be left out and `unset` says what holds then.
        unit: of the value.
        in_flows: the default in flows, where that is another one.
        key: the field that it is of its model.
        positional: True for what the terminal takes without a flag.
        common: True for what comes first in forms and help.
        operations: the operations whose parameter it is; empty for a job's own.
        is_setting: left out it is "as configured".
        in_forms: the type that forms show, where the one that is validated would make a poor input.
        path_at: of one that names files: where in a value the path begins; None of a value that is none.
    """

    name: str
    type: Any
    sentence: str
    default: Any = None
    unit: str = ""
    unset: str = "none"
    flag: str = ""
    in_flows: Any = None
    key: str = ""
    positional: bool = False
    common: bool = False
    operations: tuple[str, ...] = ()
    is_setting: bool = False
    in_forms: Any = None
    path_at: Callable[[str], int | None] | None = None

    @property
    def as_flag(self) -> str:
        """The flag that it is in the terminal."""
        return "--" + (self.flag or self.name).replace("_", "-")

    @property
    def words(self) -> str:
        """What it is, with its owner, unit and bounds."""
        bounds = [
            f"{word} {as_words(getattr(each, name))}"
            for each in _facts(self.type)
            for name, word in _BOUNDS.items()
            if getattr(each, name, None) is not None
        ]
        owner = f"{' or '.join(self.operations)}: " if self.operations else ""
        return owner + ", ".join(filter(None, [self.sentence, self.unit, *bounds]))

    def default_words(self, *, in_flows: bool = False) -> str:
        """What holds where it is left out; empty where it must not be."""
        default = self.in_flows if in_flows and self.in_flows is not None else self.default
        if default is ...:
            return ""
        said = self.unset if default in {None, ()} else as_words(default)
        return f"as configured, else {said}" if self.is_setting else said

    @property
    def form_type(self) -> Any:
        """The type as a form's one input: without None, which a form leaves empty; with bounds and choices."""
        return self.in_forms or _for_forms(self.type)

    @property
    def bare_type(self) -> Any:
        """The type without bounds, validators and None."""
        return _bare(self.type)

    @property
    def reads_text(self) -> bool:
        """True where its own validator reads what a user types."""
        return self.is_setting or _reads_text(self.type)


def knob(sentence: str, default: Any = ..., **facts: Any) -> Any:
    """A field that is a knob; `facts` are a Knob's, and what pydantic's Field takes (bounds, `pattern`, `default_factory`)."""
    ours = {name: facts.pop(name) for name in Knob.__dataclass_fields__ if name in facts}
    if "default_factory" not in facts:
        facts["default"] = default
    return Field(description=sentence, json_schema_extra={_MARK: ours}, **facts)


def knobs_of(model: type[BaseModel], names: Iterable[str] | None = None) -> list[Knob]:
    """A model's knobs in its order, or those fields that are named; a union of models is its choice and their knobs, flat."""
    return list(_knobs(model, tuple(model.model_fields if names is None else names)))


@functools.cache  # asked for thousands of times where each file of a batch has choices of its own
def _knobs(model: type[BaseModel], names: tuple[str, ...]) -> tuple[Knob, ...]:
    found: dict[str, Knob] = {}
    for key in names:
        info = model.model_fields[key]
        extra = info.json_schema_extra
        if isinstance(extra, dict) and _MARK in extra:
            for each in _choice(key, info) if info.discriminator else [_knob(key, info)]:
                same = found.get(each.name)
                found[each.name] = replace(same, operations=same.operations + each.operations) if same else each
    return tuple(found.values())


# What the terminal's door says otherwise than a flow: there a run's log, its form and its parameters are at hand.
_IN_FLOWS = (
    (r"run again with --debug for (the (?:function's )?traceback)", r"the run's log has \1"),
    (r"see `swath[^`]*--help`", "the deployment's form says what each parameter is"),
    (r"^`swath config` shows", "`swath config` on the worker's host shows"),
    (r"with --overwrite\b", "by setting overwrite"),
    (r" \(--json\)", ""),
)


def as_parameters(text: str) -> str:
    """A sentence for the terminal as flows say it: `--memory-limit-mb` is `memory_limit_mb`; commands in backticks stay."""
    for flags, parameters in _IN_FLOWS:
        text = re.sub(flags, parameters, text)
    parts = text.split("`")
    parts[::2] = [
        re.sub(r"(?<![^\s(])--([a-z][a-z-]*)", lambda flag: flag[1].replace("-", "_"), part) for part in parts[::2]
    ]
    return "`".join(parts)


def as_a_flow_says(text: str) -> str:
    """A sentence for the terminal by the names of a flow's parameters, the limit's among them."""
    return as_parameters(text).replace("raise the memory limit", "raise memory_limit_mb")


def as_words(value: Any) -> str:
    """A value as a user would type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return " ".join(map(as_words, value))
    return str(value).removesuffix(".0")


def _knob(key: str, info: FieldInfo) -> Knob:
    extra: Any = info.json_schema_extra
    facts: dict[str, Any] = {
        "name": key,
        "key": key,
        "type": Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation,
        "sentence": info.description,
        "default": ... if info.is_required() else info.get_default(),
    }
    return Knob(**facts | extra[_MARK])


def _choice(key: str, info: FieldInfo) -> list[Knob]:
    """A discriminated union as a knob of its names, each with its model's first sentence, and the models' own knobs."""
    models = {each.model_fields[info.discriminator].default: each for each in get_args(info.annotation)}
    meanings = "; ".join(f"{name}, {_meaning(each)}" for name, each in models.items())
    chosen = replace(
        _knob(key, info),
        type=Literal[tuple(models)],
        sentence=f"{info.description}: {meanings}",
        default=getattr(info.get_default(call_default_factory=True), str(info.discriminator)),
    )
    of_models = [(name, each) for name, model in models.items() for each in knobs_of(model)]
    return [chosen, *(replace(_optional(each), operations=(name,)) for name, each in of_models)]


def _meaning(model: type[BaseModel]) -> str:
    first = str(model.__doc__).partition("\n")[0].rstrip(".").replace("`", "")
    return first[0].lower() + first[1:]


def _optional(needed: Knob) -> Knob:
    """A parameter that its own operation needs is one that others leave out."""
    return needed if needed.default is not ... else replace(needed, default=None, type=needed.type | None)


def _bare(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return tuple[tuple(each if each is ... else _bare(each) for each in get_args(annotation))]  # type: ignore[misc]
    if get_origin(annotation) not in {Union, UnionType}:
        return annotation
    return functools.reduce(operator.or_, [_bare(each) for each in get_args(annotation) if each is not NoneType])


def _for_forms(annotation: Any) -> Any:
    """Without None, and without what reads texts: pydantic shows no bounds behind that."""
    if get_origin(annotation) is Annotated:
        inner, *facts = get_args(annotation)
        kept = [each for each in facts if not isinstance(each, BeforeValidator)]
        return Annotated[(_for_forms(inner), *kept)] if kept else _for_forms(inner)
    if get_origin(annotation) not in {Union, UnionType}:
        return annotation
    return functools.reduce(operator.or_, [_for_forms(each) for each in get_args(annotation) if each is not NoneType])


def _facts(annotation: Any) -> list[Any]:
    """What is annotated of a type that may be None: bounds among it."""
    if get_origin(annotation) is Annotated:
        inner, *facts = get_args(annotation)
        spread = [fact for each in facts for fact in (each.metadata if isinstance(each, FieldInfo) else [each])]
        return [*_facts(inner), *spread]
    if get_origin(annotation) in {Union, UnionType}:
        return [fact for each in get_args(annotation) if each is not NoneType for fact in _facts(each)]
    return []


def _reads_text(annotation: Any) -> bool:
    return isinstance(annotation, BeforeValidator) or any(map(_reads_text, get_args(annotation)))
