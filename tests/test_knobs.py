"""Knobs: what a model declares once is a flag with its help, a flow parameter with its description, and a line of the README."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import BaseModel, BeforeValidator

from flows.demo import demo
from flows.filter_vector import filter_vector
from flows.flags import flag_table, flags
from flows.forms import job_flow
from flows.profile_memory import profile_memory
from flows.signatures import PROFILE
from flows.transform_raster import transform_raster
from flows.verify_output import verify_output
from lib.errors import UsageError
from lib.jobs import COMMON_SETTINGS, ProfileJob, RasterJob, VectorJob, VerifyJob
from lib.knobs import Knob, knob, knobs_of
from lib.operations import OPERATIONS
from lib.parameters import take_parameters
from lib.request import AnyKind, job_knobs, raster_job
from lib.settings import Settings, settings_knobs

KINDS: dict[AnyKind, Any] = {
    RasterJob: transform_raster,
    VectorJob: filter_vector,
    VerifyJob: verify_output,
    ProfileJob: profile_memory,
}


class Shrink(BaseModel):
    """Every pixel smaller. And more about it."""

    name: Literal["shrink"] = "shrink"
    by: float = knob("how much smaller", 2.0, unit="no unit", gt=1)


class Colour(BaseModel):
    """Another colour."""

    name: Literal["colour"] = "colour"
    by: float = knob("how much smaller", 2.0, unit="no unit", gt=1)
    hue: str = knob("which one", pattern="^[a-z]+$")


class Invented(BaseModel):
    """A kind of job that there is not, with one knob of each sort."""

    settings: Any = ()
    source: str = knob("what to read", positional=True, common=True)
    count: int = knob("how many", 3, unit="pieces", ge=1)
    places: Annotated[tuple[int, ...] | None, BeforeValidator(lambda text: text)] = knob(
        "where", None, unset="all over"
    )
    work: Shrink | Colour = knob("what is done", Shrink(), discriminator="name")
    secret: int = 0


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A source that exists (nothing opens it here), and a destination that does not."""
    (tmp_path / "a.tif").touch()
    return {"source": str(tmp_path / "a.tif"), "destination": str(tmp_path / "b.tif")}


def _form(flow: Any) -> dict[str, dict[str, Any]]:
    """A flow's parameters as Prefect's form gets them, in its order."""
    found = parameter_schema(flow).model_dump()["properties"]
    return dict(sorted(found.items(), key=lambda each: each[1]["position"]))


def _by_name(kind: Any) -> dict[str, Knob]:
    return {each.name: each for each in knobs_of(kind)}


def test_a_model_s_knobs_are_its_marked_fields_with_a_union_spread_flat() -> None:
    """A discriminated union is a choice of names with their first sentences, then the members' knobs, shared ones once."""
    knobs = _by_name(Invented)
    assert list(knobs) == ["source", "count", "places", "work", "by", "hue"]
    assert knobs["work"].bare_type == Literal["shrink", "colour"]
    assert knobs["work"].words == "what is done: shrink, every pixel smaller. And more about it; colour, another colour"
    assert (knobs["work"].default, knobs["by"].operations, knobs["by"].default) == ("shrink", ("shrink", "colour"), 2.0)
    assert knobs["by"].words == "shrink or colour: how much smaller, no unit, above 1"
    assert (knobs["hue"].default, knobs["source"].default) == (None, ...)
    assert (knobs["count"].words, knobs["count"].default_words()) == ("how many, pieces, at least 1", "3")
    assert (knobs["places"].reads_text, knobs["count"].reads_text) == (True, False)
    assert knobs["places"].default_words() == "all over"


def test_a_knob_that_is_added_to_a_model_appears_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One field of a model: flow parameter with default, bound and description; flag with help; line of the README's table."""
    monkeypatch.setitem(RasterJob.__pydantic_fields__, "sharpness", knob("how sharp it gets", 7, unit="stripes", le=9))
    RasterJob.__pydantic_fields__["sharpness"].annotation = int

    @job_flow("work", job_knobs(RasterJob), kind="raster", verb="operation")
    def work(**given: Any) -> Any:
        """Do it."""
        return given["sharpness"]

    assert _form(work)["sharpness"] == {
        "default": 7,
        "description": "How sharp it gets, stripes, at most 9. Default: 7.",
        "maximum": 9,
        "position": list(_form(work)).index("sharpness"),
        "title": "sharpness (stripes)",
        "type": "integer",
    }
    assert (work.fn("a.tif", "b.tif"), work.fn("a.tif", destination="b.tif", sharpness=2)) == (7, 2)
    from cyclopts import App

    app = App(name="swath", help_format="plaintext", result_action="return_value")

    @app.command
    @flags(RasterJob)
    def command(**given: Any) -> int:
        """Do it."""
        return int(given["sharpness"] or 0)

    assert app(["command", "a.tif", "b.tif", "--sharpness", "5"]) == 5
    assert app(["command", "a.tif", "b.tif"]) == 0
    app(["command", "--help"])
    assert "how sharp it gets, stripes, at most 9 (default: 7)." in _joined(capsys.readouterr().out)
    assert "| `--sharpness` | raster | how sharp it gets, stripes, at most 9 | 7 |" in flag_table()


def _joined(help_page: str) -> str:
    """The words of a help page, its boxes and line breaks taken out."""
    return " ".join(help_page.replace("│", " ").split())


@pytest.mark.parametrize("command", ["raster", "vector", "verify", "profile", "plan raster", "plan vector"])
def test_help_has_every_knob_with_its_unit_and_default(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each flag, its sentence with unit and bounds, and what holds where it is left out."""
    from flows import cli

    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("sys.argv", ["swath", *command.split(), "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    page = _joined(capsys.readouterr().out)
    kind = {"raster": RasterJob, "vector": VectorJob, "verify": VerifyJob, "profile": ProfileJob}[
        command.rsplit(maxsplit=1)[-1]
    ]
    for each in job_knobs(kind):
        assert (each.name.upper() if each.positional else f"{each.as_flag} ") in page
        assert each.words in page
        if each.bare_type is not bool and each.default_words():
            assert f"(default: {each.default_words()}" in page


@pytest.mark.parametrize("kind", KINDS)
def test_a_form_has_every_knob_with_its_default_and_description(kind: AnyKind) -> None:
    """Each parameter: its unit, its sentence, common ones first; the model's own default, or none where it may be left empty.

    A default of None would be a word in the form, and sent by each custom run; a setting's would freeze what is configured.
    """
    form = _form(KINDS[kind])
    knobs = job_knobs(kind)
    assert list(form)[: len(knobs)] == [each.name for each in knobs]
    for each in knobs:
        described = form[each.name]["description"].lower()
        assert each.words.lower() in described
        assert each.default_words(in_flows=True).lower() in described
        expected = None if each.is_setting else each.in_flows or each.default
        if expected in {..., None}:
            assert "default" not in form[each.name]
        else:
            found = form[each.name]["default"]
            assert (tuple(found) if isinstance(found, list) else found) == expected
        assert (f"({each.unit})" in form[each.name]["title"]) is (each.unit not in {"", "no unit"})
        assert form[each.name]["title"].startswith(each.name)
        assert '"null"' not in json.dumps(form[each.name])
    first = [each.common for each in knobs]
    assert first == sorted(first, reverse=True)


def test_a_raster_form_shows_plain_values_and_drop_downs() -> None:
    """Numbers with defaults, not switches between a number and None; the registry's operations as a drop-down."""
    form = _form(transform_raster)
    assert list(form)[:5] == ["source", "destination", "operation", "overwrite", "memory_limit_mb"]
    assert (form["operation"]["enum"], form["operation"]["default"]) == (list(OPERATIONS), "copy")
    assert (form["scale"]["type"], form["scale"]["default"]) == ("number", 10000)
    assert (form["clip"]["type"], form["clip"]["default"]) == ("array", [0, 1])
    assert (form["multiply"]["default"], form["add"]["default"]) == (1, 0)
    assert (form["compress"]["enum"], form["compress"]["default"]) == (
        ["none", "lzw", "deflate", "zstd", "lerc"],
        "zstd",
    )
    assert (form["verify"]["default"], form["profile"]["default"]) == ("full", True)
    assert {"minimum": 16, "multipleOf": 16, "type": "integer"}.items() <= form["block_size"].items()
    assert (form["memory_limit_mb"]["type"], form["memory_limit_mb"]["exclusiveMinimum"]) == ("integer", 0)
    assert "Left empty: as configured, else 2048 MiB." in form["memory_limit_mb"]["description"]
    assert [each["title"] for each in form["nodata"]["anyOf"]] == ["number", "nan"]


def test_a_flow_takes_what_its_form_sends() -> None:
    """All defaults spelt out, lists for tuples, as a custom run sends them: validated to the model's types."""
    sent = {
        "source": "a.tif",
        "destination": "b.tif",
        "clip": [0, 2],
        "bands": [4, 3],
        "nodata": "nan",
        "memory_limit_mb": "512",
    }
    found = take_parameters(sent, [*job_knobs(RasterJob), PROFILE], "transform-raster")
    assert (found["clip"], found["bands"], found["nodata"], found["memory_limit_mb"]) == (
        (0.0, 2.0),
        (4, 3),
        "nan",
        "512",
    )
    assert (found["scale"], found["threads"], found["operation"], found["profile"]) == (10000.0, None, "copy", True)


_UNKNOWN = "did you mean memory_limit_mb? known are source, destination,"


@pytest.mark.parametrize(
    ("given", "says", "hint"),
    [
        ({"memory_limt_mb": 5}, "work has no parameter 'memory_limt_mb'", _UNKNOWN),
        ({"memory-limit-mb": 5}, "work has no parameter 'memory-limit-mb'", _UNKNOWN),
        ({"colour": 5}, "work has no parameter 'colour'", "known are source, destination,"),
        (
            {"memory_limit": 1, "sorce": 2},
            "work has no parameter 'memory_limit' and 'sorce'",
            "did you mean memory_limit_mb for",
        ),
        ({"source": None}, "work needs a value of source", "known are source, destination,"),
        ({"source": None, "src": "a"}, "work has no parameter 'src'; work needs a value of source", "known are source"),
        ({"source": 5}, "source: Input should be a valid string (it is 5)", "it is: the raster to read"),
        ({"profile": "perhaps"}, "profile: Input should be a valid boolean", "it is: read and measure"),
        ({"operation": "sharpen"}, "operation: Input should be 'copy'", "it is: what is done"),
        ({"clip": [1]}, "clip: ", "it is: normalise"),
    ],
)
def test_parameters_that_are_wrong_are_named(given: dict[str, Any], says: str, hint: str) -> None:
    """A misspelt one with what is near and what is known, a missing one, one of the wrong type; of any version's run."""
    with pytest.raises(UsageError) as caught:
        take_parameters({"source": "a", "destination": "b"} | given, [*job_knobs(RasterJob), PROFILE], "work")
    assert caught.value.message.startswith(says)
    assert caught.value.hint.startswith(hint)
    assert ("another version than" in caught.value.hint) is ("no parameter" in says)


@pytest.mark.parametrize("flow", [*KINDS.values(), demo])
def test_what_a_form_sends_is_taken_again(flow: Any) -> None:
    """All defaults spelt out, and again with null for what was left empty: the server's own check passes both, and so do we.

    So "Copy to new run" works, of runs that an older form sent, too.
    """
    schema = parameter_schema(flow).model_dump()
    needed = dict.fromkeys(schema.get("required") or [], "a.tif")
    sent = needed | {name: each["default"] for name, each in schema["properties"].items() if "default" in each}
    nulls = {name: None for name, each in schema["properties"].items() if "type" in each and "default" not in each}
    for parameters in (needed, sent, nulls | sent):
        assert validate(parameters, schema) == []
        assert set(take_parameters(parameters, flow.knobs, flow.name)) == set(schema["properties"])


def test_operations_that_share_a_parameter_agree_on_it() -> None:
    """Flags and forms are flat: one name, one meaning and one default; and none is a setting's name."""
    said: dict[str, set[tuple[str, str]]] = {}
    for model in OPERATIONS.values():
        for each in knobs_of(model):
            said.setdefault(each.name, set()).add((each.words, each.default_words()))
    assert [name for name, ways in said.items() if len(ways) > 1] == []
    settings = {each.name for each in settings_knobs(Settings.model_fields)}
    assert [each.name for kind in KINDS for each in knobs_of(kind) if each.name in settings] == []


def test_every_setting_is_a_knob() -> None:
    """`swath config` describes each; those of a job's kind exist."""
    assert [each.key for each in settings_knobs(Settings.model_fields)] == list(Settings.model_fields)
    for kind in KINDS:
        assert set(COMMON_SETTINGS) <= set(kind.settings) <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, None),
        ({"scale": 10000, "clip": (0.0, 1.0), "multiply": 1, "add": 0, "function": None}, None),
        ({"operation": "rescale", "scale": 10000, "multiply": 3}, None),
        ({"scale": 9999}, "scale belongs to operation normalise, not to copy"),
        ({"operation": "normalise", "add": 1}, "add belongs to operation rescale, not to normalise"),
        ({"operation": "rescale", "function": "a:b"}, "function belongs to operation custom, not to rescale"),
        ({"operation": "sharpen"}, "unknown operation 'sharpen'"),
    ],
)
def test_a_flow_refuses_what_was_changed_of_another_operation(
    given: dict[str, Any], says: str | None, files: dict[str, str]
) -> None:
    """A form sends every default: those of other operations pass in silence, another value does not."""
    if says is None:
        made = raster_job(**files, word="parameter", **given)
        assert made.operation.name == given.get("operation", "copy")
        return
    with pytest.raises(UsageError) as caught:
        raster_job(**files, word="parameter", **given)
    assert caught.value.message == says


def test_in_the_terminal_any_flag_of_another_operation_is_refused(files: dict[str, str]) -> None:
    """Even at its default: it was typed."""
    with pytest.raises(UsageError, match="--add belongs to operation rescale, not to copy") as caught:
        raster_job(**files, add=0.0)
    assert caught.value.hint == "write --operation rescale --add 0"


def test_a_field_can_be_needed_by_its_own_operation_alone(files: dict[str, str]) -> None:
    """`function` has no default and custom needs it; the flat parameter may be left out."""
    assert _by_name(RasterJob)["function"].default is None
    with pytest.raises(UsageError, match="function: is needed"):
        raster_job(**files, operation="custom")


def test_a_knob_that_names_files_says_so() -> None:
    """A manifest's row has its paths from the manifest's folder: those of all knobs whose words speak of a file to be read."""
    for kind in (RasterJob, VectorJob):
        spoken = {
            each.name for each in job_knobs(kind) if re.search(r"\b(YAML file|vector file|FILE)\b", each.sentence)
        }
        declared = {each.name for each in job_knobs(kind) if each.path_at}
        assert declared == spoken - {"config", "operation"}
        assert declared
