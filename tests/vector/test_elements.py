"""What a GeoJSON's collection holds beside features: found by a count of our own, and never lost in silence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
from conftest_vector import make_job, verified_again
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib.errors import DataError
from lib.vector.sources import geojson

_SHAPE = {"type": "Point", "coordinates": [1, 2]}
_FEATURE = {"type": "Feature", "properties": {"n": 1, "t": '"features": ['}, "geometry": _SHAPE}
_OTHERS: list[Any] = [_SHAPE, {"n": 3}, 5, None, [_FEATURE], "Feature", {"type": "FeatureCollection", "features": []}]
_TEXT = st.text(alphabet='ab"\\{}[],:é\n', max_size=6)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | _TEXT | st.just("FeatureCollection"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT | st.sampled_from(["features", "type"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@example(elements=[{"type": "FeatureCollection"}], more={}, indent=None, block=7, is_last=False, kind="Feature")
@given(
    elements=st.lists(_VALUES, max_size=6),
    more=st.dictionaries(_TEXT, _VALUES, max_size=3),
    indent=st.sampled_from([None, 1]),
    block=st.sampled_from([7, 64, 2**18]),
    is_last=st.booleans(),
    kind=st.sampled_from(["FeatureCollection", "Feature"]),
)
def test_elements_are_as_many_as_python_finds(
    elements: list[Any], more: dict[str, Any], indent: int | None, block: int, is_last: bool, kind: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """Whatever stands in them and beside them, wherever a block of the text ends; a text that is no collection has none."""
    named = {"features": elements}
    tree = {"type": kind} | more | named if is_last else named | more | {"type": kind}
    path = tmp_path_factory.mktemp("elements") / "a.geojson"
    path.write_text(json.dumps(tree, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geojson, "_BLOCK_BYTES", block)
        found = geojson.count(path, "a", "a")
    assert found == (len(elements) if kind == "FeatureCollection" else None)


@pytest.mark.parametrize("at", range(len(_OTHERS)))
def test_what_is_no_feature_is_an_error_or_skipped_and_listed(
    at: int, run_job: Callable[..., Any], tmp_path: Path
) -> None:
    """OGR leaves such out without a word: its number is named; skipped, the counts add up and the output verifies."""
    source = tmp_path / "s.geojson"
    features = [_FEATURE, _OTHERS[at], _FEATURE | {"properties": {"n": 2}}]
    source.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(DataError, match=r"^s\.geojson: row 2: it is no GeoJSON feature"):
        run_job(source)
    done = run_job(source, "skipped.gpkg", skip_bad=True)
    result = done.outcome.result
    assert (result["features_read"], result["features_kept"], result["features_bad"]) == (3, 2, 1)
    assert result["bad_rows"][0]["row"] == 2
    assert geopandas.read_file(done.output)["n"].tolist() == [1, 2]
    assert all(verified_again(source, done, make_job(source, done.output, skip_bad=True)).values())


@pytest.mark.parametrize("tree", [_FEATURE, _SHAPE, {"features": [_FEATURE], "type": "FeatureCollection"}])
def test_texts_that_are_whole(tree: dict[str, Any], run_job: Callable[..., Any], tmp_path: Path) -> None:
    """One feature, one geometry, and a collection that says last that it is one."""
    (tmp_path / "s.geojson").write_text(json.dumps(tree))
    result = run_job(tmp_path / "s.geojson").outcome.result
    assert (result["features_kept"], result["features_bad"]) == (1, 0)
