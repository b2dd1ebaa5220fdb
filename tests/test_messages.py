"""What users are told where they are wrong: near suggestions only, the command they typed, words of their own door."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import cli, terminal
from flows.run_batch import KNOBS
from lib.errors import DestinationError, SwathError
from lib.jobs import ProfileJob, RasterJob, VectorJob, VerifyJob
from lib.knobs import as_parameters
from lib.operations import Custom
from lib.reports import Report
from lib.request import job_knobs
from lib.units import MIB
from tasks.states import failed


def _said(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", ["swath", *words.split(), "--log-format", "text"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("raster a.tif b.tif --where x", "Unknown option: --where; see `swath raster --help`"),
        ("raster a.tif b.tif --compres lzw", "Did you mean --compress?; see `swath raster --help`"),
        ("plan vector a.gpkg --quux x", "Unknown option: --quux; see `swath plan vector --help`"),
        ("vectr a.gpkg", 'Did you mean "vector"?; see `swath --help`'),
        ("raster", "see `swath raster --help`"),
    ],
)
def test_bad_words_name_the_command_and_what_is_near(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A suggestion that is not near is none; the hint is a command that can be typed."""
    found = _said(words, monkeypatch, capsys)
    assert found.rstrip().endswith(said)
    assert "COMMAND" not in found


@pytest.mark.parametrize("function", ["a", "a:b:c", "a b:c", ":f", "m:"])
def test_a_function_that_is_no_name_is_told_what_one_is(function: str) -> None:
    """In words, not as a pattern."""
    with pytest.raises(ValueError, match="write module:name, such as filters:keep_large"):
        Custom(function=function)


@pytest.mark.parametrize(
    ("flag", "parameter"),
    [
        ("replace it with --overwrite", "replace it by setting overwrite"),
        ("raise --memory-limit-mb or lower --threads", "raise memory_limit_mb or lower threads"),
        ("run `swath clean DIR --older-than 0`", "run `swath clean DIR --older-than 0`"),
        ("a range 1--2 and an em -- dash", "a range 1--2 and an em -- dash"),
    ],
)
def test_flows_name_parameters(flag: str, parameter: str) -> None:
    """Commands to be typed stay as they are typed."""
    assert as_parameters(flag) == parameter


def test_a_flows_end_names_its_parameters() -> None:
    """The state's message is read where there are no flags."""
    message = failed(DestinationError("out.tif exists", hint="replace it with --overwrite")).message
    assert message == "exit 2: out.tif exists (replace it by setting overwrite)"


def _flags_in(text: str) -> list[str]:
    """Flags outside of commands to be typed."""
    return re.findall(r"(?<![^\s(\"'])--[a-z][a-z-]*", "".join(text.split("`")[::2]))


@pytest.mark.parametrize("kind", SwathError.known().values(), ids=SwathError.known())
def test_no_error_of_a_flow_speaks_of_flags(kind: type[SwathError]) -> None:
    """Neither of any flag, nor of running again with tracebacks, nor of the terminal's help: a flow has none of them."""
    message = str(failed(kind("it went wrong")).message)
    assert message.startswith(f"exit {kind.exit_code}: it went wrong")
    assert _flags_in(message) == []
    for words in ("--debug", "--help", "--json", "run again with"):
        assert words not in message


def _texts() -> Iterator[tuple[str, str]]:
    """Every text in `lib` and `tasks` that names a flag, with its file; docstrings apart."""
    root = Path(__file__).parents[1]
    for path in [*root.glob("lib/**/*.py"), *root.glob("tasks/*.py")]:
        if "--" not in (source := path.read_text(encoding="utf-8")):
            continue
        nodes = list(ast.walk(ast.parse(source)))
        parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        documents = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            text = _text(node) if id(node) not in parts | documents else ""
            if _flags_in(text) and path.name not in _NOT_TOLD:
                yield path.name, text


def _text(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or "X" for part in parts)
    return ""


# pip's flags; the flags that are replaced.
_NOT_TOLD = {"samples.py", "knobs.py"}


def test_every_flag_in_a_message_is_a_parameter_of_a_flow() -> None:
    """What is said with a flag can be said with a parameter: it exists, and nothing else of the terminal is left."""
    parameters = {each.name for kind in (RasterJob, VectorJob, VerifyJob, ProfileJob) for each in job_knobs(kind)}
    parameters |= {each.name for each in KNOBS}
    found = list(_texts())
    assert len(found) > 10
    for name, text in found:
        assert _flags_in(as_parameters(text)) == [], (name, text)
        named = {flag.removeprefix("--").replace("-", "_") for flag in _flags_in(text)}
        assert named - {"debug", "json"} <= parameters, (name, text)


@pytest.mark.parametrize(
    ("terminal", "flow"),
    [
        ("run again with --debug for the function's traceback", "the run's log has the function's traceback"),
        ("see `swath raster --help`", "the deployment's form says what each parameter is"),
        ("choose another, or replace it with --overwrite", "choose another, or replace it by setting overwrite"),
        ("it is in the report (--json)", "it is in the report"),
        ("/data/scene--final.tif does not exist", "/data/scene--final.tif does not exist"),
        ("/data/--odd.tif does not exist", "/data/--odd.tif does not exist"),
    ],
)
def test_what_the_terminal_says_otherwise(terminal: str, flow: str) -> None:
    """Whole hints of the terminal's door have their own words in flows; names of files stay what they are."""
    assert as_parameters(terminal) == flow


def test_a_plan_shows_limits_as_the_flag_takes_them_and_no_empty_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole MiB, rounded up; what is 0 B is not there."""
    plan = {
        "terms": {"baseline": 70 * MIB}, "projected_bytes": 70 * MIB, "limit_bytes": 2048 * MIB, "chunks": 1, "threads": 1,
        "smallest_limit_bytes": 101 * MIB + 1, "disk_bytes": 0, "disk_free_bytes": 0, "gdal_cache_bytes": 0,
        "window": [16, 16], "batch_rows": None, "lower_by": "",
    }  # fmt: skip
    terminal.show_plan(Report(status="planned", exit_code=0, job={"source": "a.tif"}, plan=plan))
    shown = capsys.readouterr().out
    assert "2048 MiB" in shown
    assert "102 MiB" in shown
    assert " 0 B" not in shown
    assert "disk" not in shown


def test_an_error_without_a_hint_ends_with_its_message() -> None:
    """Nothing is made up where the cause was not seen."""
    assert failed(SwathError("it broke", hint="")).message.startswith("exit 1: it broke")
