"""What a batch is to read: globs, folders, manifests; each thing that is wrong with one said in one line, with its place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.batch.inputs import Inputs, gather
from lib.errors import SourceError, UsageError


def _touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return [folder / name for name in names]


def _names(found: Inputs) -> list[str]:
    return [Path(each.source).name for each in found.items]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three rasters in two folders, which is where we are."""
    _touch(tmp_path, "a.tif", "b.TIF", "sub/c.tif", "notes.txt", "a.tfw")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_globs_and_folders_are_files_in_order(here: Path) -> None:
    """A glob's files and a folder's, sorted, each in the place of its word; `**` goes below; of a folder rasters alone."""
    assert _names(gather(["*.tif"], "raster")) == ["a.tif"]
    assert _names(gather(["**/*.tif"], "raster")) == ["a.tif", "c.tif"]
    assert _names(gather(["sub", "."], "raster")) == ["c.tif", "a.tif", "b.TIF"]
    assert _names(gather(["sub/c.tif", "a.tif"], "raster")) == ["c.tif", "a.tif"]


def test_a_file_whose_name_is_a_glob_is_that_file(here: Path) -> None:
    """What exists is taken literally."""
    _touch(here, "scene[1].tif")
    assert _names(gather(["scene[1].tif"], "raster")) == ["scene[1].tif"]


def test_a_geodatabase_is_a_source_and_no_folder_of_sources(here: Path) -> None:
    """A folder that is itself a dataset is done as one."""
    _touch(here, "parcels.gdb/a00000001.gdbtable")
    assert _names(gather(["parcels.gdb"], "vector")) == ["parcels.gdb"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (["*.jp2"], ["no file matches *.jp2", "looked for it from"]),
        (["empty"], ["folder empty has no file of .tif, .tiff", "looked for it from"]),
        (["a.tif", "sub/../a.tif"], ["source sub/../a.tif appears twice", "name it once"]),
        (["*.tif", "a.tif"], ["source a.tif appears twice"]),
        ([], ["a batch needs files", "name files, globs, folders or a manifest"]),
    ],
)
def test_inputs_that_are_none_are_told(here: Path, inputs: list[str], words: list[str]) -> None:
    """Nothing found, or found twice: exit 2, with what was looked for."""
    (here / "empty").mkdir()
    with pytest.raises(UsageError) as raised:
        gather(inputs, "raster")
    assert raised.value.exit_code == 2
    said = f"{raised.value.message} {raised.value.hint}"
    assert all(each in said for each in words), said


def test_a_file_that_is_not_there_is_told(here: Path) -> None:
    """Exit 2, before anything is done."""
    with pytest.raises(SourceError, match=r"source nowhere\.tif does not exist"):
        gather(["a.tif", "nowhere.tif"], "raster")


def test_a_url_is_taken_as_it_is(here: Path) -> None:
    """What is not local is opened by the child alone."""
    assert [each.source for each in gather(["https://example.org/a.tif"], "raster").items] == [
        "https://example.org/a.tif"
    ]


def _csv(here: Path, text: str) -> Inputs:
    (here / "list.csv").write_text(text, encoding="utf-8-sig")
    return gather(["list.csv"], "raster")


def test_a_csv_has_a_source_and_choices_in_each_row(here: Path) -> None:
    """Sources are from the manifest's folder; an empty cell is none; values are as a flag's."""
    found = _csv(
        here,
        'source,destination,scale,bands,clip,bbox\r\na.tif,x/one.tif,5000,"2,1",0 2,\r\nsub/c.tif,,,,,"1,2,3,4"\r\n',
    )
    first, second = found.items
    assert (first.source, first.destination) == ("a.tif", "x/one.tif")
    assert first.options == {"scale": "5000", "bands": "2,1", "clip": ["0", "2"]}
    assert (second.destination, second.options) == (None, {"bbox": "1,2,3,4"})
    assert first.where == "manifest list.csv, line 2"


def test_a_manifest_elsewhere_names_its_neighbours(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative sources are beside the manifest, wherever the command runs."""
    (here / "list.csv").write_text("source\na.tif\n", encoding="utf-8")
    monkeypatch.chdir(here / "sub")
    [item] = gather(["../list.csv"], "raster").items
    assert Path(item.source).resolve() == here / "a.tif"


def test_files_that_a_row_names_are_the_manifests_neighbours(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All choices that name files, wherever the command runs; URLs, absolute paths and what is written out stay as they are."""
    (here / "list.jsonl").write_text(
        '{"source": "a.tif", "destination": "1.tif", '
        '"sources": ["nir=sub/c.tif", "b.tif", "./x=y.tif", "red=https://h/r.tif", "/abs/z.tif"]}\n'
        '{"source": "a.tif", "destination": "2.tif", "mask": "m.gpkg", "table": "t.yaml", "kernel": "k.yaml"}\n'
        '{"source": "a.tif", "destination": "3.tif", '
        '"mask": "s3://b/m.gpkg", "table": "0:1=2", "kernel": "0 1 0; 1 -4 1; 0 1 0"}\n',
        encoding="utf-8",
    )
    (here / "layers.csv").write_text("source,intersects,where\na.tif,p.gpkg,a = 'p.gpkg'\n", encoding="utf-8")
    monkeypatch.chdir(here / "sub")
    first, second, third = (dict(item.options) for item in gather(["../list.jsonl"], "raster").items)
    named = [each.replace("/sub/..", "") for each in first["sources"]]
    assert named == [f"nir={here}/sub/c.tif", f"{here}/b.tif", f"{here}/x=y.tif", "red=https://h/r.tif", "/abs/z.tif"]
    assert {name: Path(value).resolve() for name, value in second.items()} == {
        "mask": here / "m.gpkg", "table": here / "t.yaml", "kernel": here / "k.yaml",
    }  # fmt: skip
    assert third == {"mask": "s3://b/m.gpkg", "table": "0:1=2", "kernel": "0 1 0; 1 -4 1; 0 1 0"}
    [layer] = gather(["../layers.csv"], "vector").items
    assert Path(layer.options["intersects"]).resolve() == here / "p.gpkg"
    assert layer.options["where"] == "a = 'p.gpkg'"


def test_json_lines_have_numbers_and_lists(here: Path) -> None:
    """JSON's own types are taken; an empty line and a null are none."""
    rows: list[dict[str, Any]] = [
        {"source": "a.tif", "scale": 5000, "clip": [0, 2]},
        {"source": "sub/c.tif", "cog": True, "scale": None},
    ]
    (here / "list.jsonl").write_text("\n\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    first, second = gather(["list.jsonl"], "raster").items
    assert first.options == {"scale": 5000, "clip": [0, 2]}
    assert second.options == {"cog": True}
    assert second.where.endswith("line 3")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source,scal\na.tif,1\n", ["unknown column 'scal'", "did you mean scale?"]),
        ("source,zzz\na.tif,1\n", ["unknown column 'zzz'", "columns are source, destination, operation"]),
        ("sources\na.tif\n", ["line 2: it names no source"]),
        ("Source\na.tif\n", ["unknown column 'Source'", "did you mean source?"]),
        ("source\na.tif\nnowhere.tif\n", ["line 3: source nowhere.tif does not exist"]),
        ("source,scale\na.tif,1\nsub/c.tif,many\n", ["line 3: scale:", "it is: normalise: what a pixel"]),
        ("source,scale\na.tif,1,2\n", ["line 2: more values than columns"]),
        ("source,scale\na.tif\n", ["line 2: fewer values than columns"]),
        ('source,scale\na.tif,"1\n', ["line 2", "quote"]),
        ("source,scale,scale\na.tif,1,2\n", ["column 'scale' is there twice"]),
        ("source,scale\na.tif,1\n,2\n", ["line 3: it names no source"]),
        ("source\n", ["has no row"]),
        ("", ["has no row"]),
        ("source\na.tif\na.tif\n", ["appears twice", "line 2 and", "line 3", "need a destination"]),
    ],
)
def test_a_bad_csv_is_told_by_its_line(here: Path, text: str, words: list[str]) -> None:
    """An unknown column with the nearest, a bad row with its number: exit 2."""
    with pytest.raises(UsageError) as raised:
        _csv(here, text)
    said = f"{raised.value.message} {raised.value.hint}"
    assert all(each in said for each in words), said
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"source": "a.tif"}\n{"source": \n', ["line 2: no JSON"]),
        ('{"source" "a.tif"}\n', ["line 1: no JSON"]),
        ('{"source": "a.tif"}\n["sub/c.tif"]\n', ["line 2: no JSON object"]),
        ('{"source": "a.tif", "destination": 5}\n', ["line 1: destination 5 is no path"]),
        ('{"source": 5}\n', ["line 1: it names no source"]),
        ('{"source": "a.tif", "cog": "perhaps"}\n', ["line 1: cog:"]),
    ],
)
def test_bad_json_lines_are_told_by_their_line(here: Path, text: str, words: list[str]) -> None:
    """Likewise."""
    (here / "list.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        gather(["list.jsonl"], "raster")
    assert all(each in raised.value.message for each in words), raised.value.message


def test_a_manifest_that_is_no_text_is_told(here: Path) -> None:
    """Bytes that are no UTF-8."""
    (here / "list.csv").write_bytes(b"source\n\xff\xfe.tif\n")
    with pytest.raises(SourceError, match=r"manifest list\.csv cannot be read"):
        gather(["list.csv"], "raster")


def test_a_csv_of_points_is_a_layer(here: Path) -> None:
    """A CSV without a column source is itself a vector source."""
    (here / "points.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    assert _names(gather(["points.csv"], "vector")) == ["points.csv"]


def test_rows_of_one_source_have_destinations(here: Path) -> None:
    """A source may be done in two ways where each row says where to."""
    found = _csv(here, "source,destination,scale\na.tif,one.tif,1\na.tif,two.tif,2\n")
    assert [each.destination for each in found.items] == ["one.tif", "two.tif"]


def test_ten_thousand_rows_are_read_at_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns' types are looked up once, not for each row."""
    from lib.batch import inputs

    calls: list[str] = []
    original: Callable[..., Any] = inputs.job_knobs
    monkeypatch.setattr(inputs, "job_knobs", lambda kind: calls.append("") or original(kind))
    rows = "".join(f"a.tif,o{n}.tif,{n + 1}\n" for n in range(500))
    assert len(_csv(here, f"source,destination,scale\n{rows}").items) == 500
    assert len(calls) == 1
