"""Where outputs go: by template or by row, inside the folder, each its own, none an input of the next run."""

from pathlib import Path

import pytest

from lib.batch.inputs import Inputs, Item, is_taken
from lib.batch.naming import destinations
from lib.errors import DestinationError, UsageError

INTO = Path("/out")


def _named(template: str, *sources: str, patterns: tuple[str, ...] = (), into: Path = INTO) -> list[str]:
    inputs = Inputs([Item(each) for each in sources], list(patterns))
    return [str(each) for each in destinations(inputs, into, template)]


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{stem}_norm.tif", "/out/a.b_norm.tif"),
        ("{name}.tif", "/out/a.b.tiff.tif"),
        ("{folder}/{stem}.{suffix}", "/out/2024/a.b.tiff"),
        ("{number:04d}.tif", "/out/0001.tif"),
        ("{{{stem}}}.tif", "/out/{a.b}.tif"),
        ("./x/../{stem}.tif", "/out/a.b.tif"),
    ],
)
def test_a_template_names_outputs(template: str, named: str) -> None:
    """Each field is its source's."""
    assert _named(template, "/data/2024/a.b.tiff") == [named]


def test_a_url_has_a_name_without_its_query() -> None:
    """What is in a query is no part of a name."""
    assert _named("{stem}.tif", "https://example.org/x/scene.tif?token=abc") == ["/out/scene.tif"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{stm}.tif", "has no field {stm}"),
        ("{}.tif", "has no field {}"),
        ("{stem.tif", "expected '}'"),
        ("{stem:d}.tif", "Unknown format code 'd'"),
        ("{stem:{wide}}.tif", "wide"),
        ("{stem.upper}.tif", "has no field {stem.upper}"),
    ],
)
def test_a_bad_template_is_told_with_its_fields(template: str, words: str) -> None:
    """Exit 2, and the hint says which fields there are."""
    with pytest.raises(UsageError) as raised:
        _named(template, "/data/a.tif")
    assert words in raised.value.message
    assert "{stem}, {name}, {suffix}, {folder}, {number}" in raised.value.hint
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("template", ["../{stem}.tif", "/elsewhere/{stem}.tif", ".", "{stem}\0.tif"])
def test_an_output_stays_in_its_folder(template: str) -> None:
    """No template and no row leads out of it."""
    with pytest.raises(DestinationError, match="lies outside /out"):
        _named(template, "/data/a.tif")
    with pytest.raises(DestinationError, match=r"list\.csv, line 2.*lies outside"):
        destinations(Inputs([Item("/a.tif", destination="../b.tif", where="list.csv, line 2")], []), INTO, "{stem}.tif")


def test_two_outputs_of_one_name_are_told() -> None:
    """Two folders with a file of one name: both are named, and what would tell them apart."""
    with pytest.raises(UsageError) as raised:
        _named("{stem}.tif", "/x/a.tif", "/y/a.tif")
    assert "/x/a.tif and /y/a.tif would both be written to /out/a.tif" in raised.value.message
    assert "{folder}_{stem}.tif" in raised.value.hint
    assert _named("{folder}_{stem}.tif", "/x/a.tif", "/y/a.tif") == ["/out/x_a.tif", "/out/y_a.tif"]


@pytest.mark.parametrize(
    ("pattern", "is_found"),
    [
        ("/d/*.tif", False),
        ("/d/*/*.tif", True),
        ("/d/**/*.tif", True),
        ("/d/**", True),
        ("/d/out/**/*.tif", True),
        ("/d/o?t/*.tif", True),
        ("/d/[!n]*/*.tif", True),
        ("/d/[!o]*/*.tif", False),
        ("/d/**/in/*.tif", False),
        ("/d/out/*.jp2", False),
        ("/d/out/*a*.t*f", True),
    ],
)
def test_outputs_are_not_found_as_inputs_the_next_time(pattern: str, is_found: bool) -> None:
    """An output folder inside the glob is an error beforehand, where its outputs would match."""
    assert (is_taken(Path("/d/out/a.tif"), [pattern]) == pattern) is is_found
    if not is_found:
        assert _named("{stem}.tif", "/d/a.tif", patterns=(pattern,), into=Path("/d/out")) == ["/d/out/a.tif"]
        return
    with pytest.raises(DestinationError, match="would be found by"):
        _named("{stem}.tif", "/d/a.tif", patterns=(pattern,), into=Path("/d/out"))


@pytest.mark.parametrize(
    ("pattern", "into", "found"),
    [
        ("/d/*", "/d/out", "/d/out, a folder of outputs,"),
        ("/d/*", "/d/made/out", "/d/made, a folder of outputs,"),
        ("/d/*.csv", "/d", "/d/swath-reports.csv, reports,"),
        ("/d/*.jsonl", "/d", "/d/swath-reports.jsonl, reports,"),
    ],
)
def test_what_a_batch_makes_is_not_found_the_next_time(pattern: str, into: str, found: str) -> None:
    """Neither a folder of outputs, which would be taken for a mosaic of its rasters, nor the reports, for a layer."""
    with pytest.raises(DestinationError) as raised:
        _named("{stem}.tif", "/d/a.csv", patterns=(pattern,), into=Path(into))
    assert raised.value.message.startswith(f"{found} would be found by {pattern}")


def test_no_output_has_the_name_of_the_reports() -> None:
    """They would be written over each other."""
    with pytest.raises(DestinationError, match=r"swath-reports\.csv of /d/a\.gpkg is the batch's own file"):
        _named("swath-reports.csv", "/d/a.gpkg")


def test_a_pattern_agrees_with_glob(tmp_path: Path) -> None:
    """Whatever `glob` finds is taken, for each kind of pattern."""
    import glob

    names = ["a.tif", "x/a.tif", "x/y/a.tif", "x/y/b.jp2", "out/a.tif", "out/z/a.tif"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern in ("*.tif", "*/*.tif", "**/*.tif", "x/**/*.tif", "**/y/*", "*/**/a.*", "[xo]*/?.tif", "**/z/**/*.tif"):
        whole = str(tmp_path / pattern)
        found = {each for each in glob.glob(whole, recursive=True) if Path(each).is_file()}  # noqa: PTH207
        taken = {str(tmp_path / name) for name in names if is_taken(tmp_path / name, [whole])}
        assert found == taken, pattern


def test_an_output_is_no_source(tmp_path: Path) -> None:
    """An output over an input is an error, without a glob, too."""
    with pytest.raises(DestinationError, match="is a source"):
        _named("{stem}.tif", str(tmp_path / "a.tif"), into=tmp_path)
