"""`expression` against whole-array NumPy, over dtypes, kinds of nodata, layouts and odd sizes; and what no expression may be."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import SourceError, SwathError, UsageError, VerificationFailed
from lib.jobs import RasterJob, VerifyJob
from lib.operations import Expression
from lib.raster import expression, verify
from lib.raster.formats import environment
from tests.raster.conftest import Workshop

Write = Callable[..., Path]
RANDOM = np.random.default_rng(18)
LAYOUTS: list[dict[str, Any]] = [
    {"tiled": True, "blockxsize": 64, "blockysize": 64},
    {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "pixel"},
    {"blockysize": 7},
    {},
]


def scene(dtype: str, bands: int = 3, height: int = 131, width: int = 203) -> np.ndarray:
    """Pixels from 0 to 120, of them many 0."""
    return RANDOM.integers(0, 120, (bands, height, width)).astype(dtype)


def result(shop: Workshop) -> tuple[np.ndarray, Any]:
    """The output's pixels, and its header."""
    with environment(), rasterio.open(shop.folder / "out.tif") as dataset:
        return dataset.read(), dataset.profile | {"descriptions": dataset.descriptions}


def compute(shop: Workshop, source: Path, expr: str, **choices: Any) -> np.ndarray:
    """Run an expression over a source; its first band."""
    sources = choices.pop("sources", ())
    shop.transform(source, operation=Expression(expr=expr, sources=sources), **choices)
    return result(shop)[0][0]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["tiled", "pixel", "strips", "default"])
@pytest.mark.parametrize(
    ("dtype", "wanted"), [("uint8", "float32"), ("int16", "float32"), ("float32", "float32"), ("int32", "float64")]
)
def test_an_index_is_what_numpy_computes(
    dtype: str, wanted: str, layout: dict[str, Any], shop: Workshop, write: Write
) -> None:
    """A normalised difference, bit by bit; where a band is nodata or the sum is 0 it is NaN, which is declared."""
    raw = scene(dtype)
    found = compute(shop, write(raw, nodata=7, **layout), "(b3 - b1) / (b3 + b1)")
    one, other = raw[2].astype(wanted), raw[0].astype(wanted)
    with np.errstate(all="ignore"):
        expected = (one - other) / (one + other)
    expected[(raw[2] == 7) | (raw[0] == 7) | ~np.isfinite(expected)] = np.nan
    assert found.dtype == wanted
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(result(shop)[1]["nodata"])
    assert result(shop)[1]["descriptions"] == ("(b3 - b1) / (b3 + b1)",)


@pytest.mark.parametrize("kind", ["mask", "nan", "alpha", "none"])
def test_a_pixel_is_valid_where_all_that_it_is_made_of_is(kind: str, shop: Workshop, write: Write) -> None:
    """A mask band, NaN, alpha, nothing at all; a band that is not named hides nothing."""
    raw, hidden = scene("float32" if kind == "nan" else "uint8"), RANDOM.random((131, 203)) < 0.2
    if kind == "mask":
        path = write(raw, mask=~hidden)
    elif kind == "nan":
        raw[1][hidden] = np.nan
        raw[0][0, 0] = np.nan  # not named
        path = write(raw)
    elif kind == "alpha":
        alpha = np.where(hidden, 0, 255).astype("uint8")
        path = write(np.concatenate([raw, [alpha]]), photometric="RGB", alpha="yes")
    else:
        hidden[:] = False
        path = write(raw)
    expected = raw[1] + raw[2].astype("float32")
    expected[hidden] = np.nan
    np.testing.assert_array_equal(compute(shop, path, "b2 + b3"), expected)


EXPRESSIONS: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("-b1 + 2", lambda a, _: -a + 2),
    ("b1 // 7 + b2 % 5", lambda a, b: a // 7 + b % 5),
    ("b1 ** 2 - b2 ** 0.5", lambda a, b: a**2 - b**0.5),
    ("10 < b1 <= 50", lambda a, _: (a > 10) & (a <= 50)),
    ("b1 > 50 and not b2 == 3 or b1 < 2", lambda a, b: ((a > 50) & (b != 3)) | (a < 2)),
    ("(b1 > 50) & ~(b2 == 3) | (b1 < 2) ^ (b2 >= 9)", lambda a, b: ((a > 50) & (b != 3)) | ((a < 2) ^ (b >= 9))),
    ("where(b1 > b2, b1, b2) != b1", lambda a, b: np.maximum(a, b) != a),
    ("b1 if b2 > 60 else -1", lambda a, b: np.where(b > 60, a, -1)),
    ("min(b1, b2) + max(b1, 40)", lambda a, b: np.minimum(a, b) + np.maximum(a, 40)),
    ("clip(b1, 10, 50)", lambda a, _: np.clip(a, 10, 50)),
    ("round(b1 / 7) + floor(b2 / 7) + ceil(b2 / 9)", lambda a, b: np.rint(a / 7) + np.floor(b / 7) + np.ceil(b / 9)),
    ("bitand(b1, 12) + bitand(b2, b1)", lambda a, b: (np.int64(a) & 12) + (np.int64(b) & np.int64(a))),
    ("sqrt(b1) + abs(-b2) + sign(b1)", lambda a, b: np.sqrt(a) + b + np.sign(a)),
    ("exp(b1 / 99) + log(b2 + 1) + log10(b2 + 1) + log2(b1 + 1)",
     lambda a, b: np.exp(a / 99) + np.log(b + 1) + np.log10(b + 1) + np.log2(a + 1)),
    ("sin(b1) * cos(b2) + tan(b1 / 99)", lambda a, b: np.sin(a) * np.cos(b) + np.tan(a / 99)),
    ("arctan2(b1, b2 + 1) + hypot(b1, b2)", lambda a, b: np.arctan2(a, b + 1) + np.hypot(a, b)),
    ("degrees(arcsin(b1 / 120)) + radians(arccos(b2 / 120)) + atan(b1)",
     lambda a, b: np.degrees(np.arcsin(a / 120)) + np.radians(np.arccos(b / 120)) + np.arctan(a)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "plain"), EXPRESSIONS, ids=[text for text, _ in EXPRESSIONS])
def test_every_operator_and_function_is_numpys(text: str, plain: Callable[[Any, Any], Any]) -> None:
    """What a tree makes of arrays is what NumPy makes of the same formula in the same precision."""
    one, other = scene("float32", 2)
    [tree] = expression.parse(text)
    bands = {expression.Band("", 1): one, expression.Band("", 2): other}
    found = tree(bands, np.float32)
    np.testing.assert_allclose(found, plain(one, other).astype("float32"), rtol=3e-7)
    assert found.dtype == np.float32


def test_functions_that_are_offered_are_all_tried() -> None:
    """The list above has every function, by its own or its short name."""
    used = " ".join(text for text, _ in EXPRESSIONS)
    names = set(expression._FUNCTIONS)
    short = {meant for name, meant in expression._SHORT.items() if f"{name}(" in used}
    assert {name for name in names if f"{name}(" not in used} - short == set()


def test_several_expressions_are_bands(shop: Workshop, write: Write) -> None:
    """In their order; each is hidden by its own bands alone; a further band is no larger a read."""
    raw = scene("uint16")
    _, outcome = shop.transform(write(raw, nodata=0), operation=Expression(expr="b1 + b2; b3 * 2"))
    found, header = result(shop)
    wanted = raw.astype("float32")
    np.testing.assert_array_equal(found[0], np.where((raw[0] == 0) | (raw[1] == 0), np.nan, wanted[0] + wanted[1]))
    np.testing.assert_array_equal(found[1], np.where(raw[2] == 0, np.nan, wanted[2] * 2))
    assert header["descriptions"] == ("b1 + b2", "b3 * 2")
    assert outcome.result["bands"] == 2
    assert outcome.result["nodata_pixels"] == np.isnan(found).sum()


def test_bands_are_those_selected_in_their_order(shop: Workshop, write: Write) -> None:
    """With --bands 3,1 b1 is the file's third."""
    raw = scene("uint8")
    np.testing.assert_array_equal(compute(shop, write(raw), "b1 - b2", bands=(3, 1)), raw[2].astype("f4") - raw[0])


def test_aligned_sources_are_read_together(shop: Workshop, write: Write) -> None:
    """Of other types and layouts, each with its own nodata."""
    now, before = scene("uint8"), scene("int16", 2) - 50
    path = write(now, "now.tif", nodata=0, **LAYOUTS[0])
    other = write(before, "before.tif", nodata=-50, **LAYOUTS[2])
    found = compute(shop, path, "b2 - before.b2 + before.b1", sources=(f"before={other}",))
    expected = now[1].astype("f4") - before[1] + before[0]
    expected[(now[1] == 0) | (before == -50).any(axis=0)] = np.nan
    np.testing.assert_array_equal(found, expected)


def test_sources_of_a_single_band_each(shop: Workshop, write: Write) -> None:
    """More bands are named than the job's own file has: what the others have is asked of them."""
    now, before = scene("uint8", 1), scene("int16", 1)
    other = write(before, "before.tif")
    found = compute(shop, write(now, "now.tif"), "b1 + o.b1", sources=(f"o={other}",))
    np.testing.assert_array_equal(found, now[0].astype("f4") + before[0])


def test_a_source_of_its_own_may_be_left_out(shop: Workshop, write: Write) -> None:
    """An expression over further sources only; the job's own says nothing but its name."""
    path, other = write(scene("uint8"), "a.tif"), write(scene("uint8", 1), "b.tif")
    with environment(), rasterio.open(other) as dataset:
        expected = dataset.read(1) * np.float32(2)
    np.testing.assert_array_equal(compute(shop, path, "o.b1 * 2", sources=(f"o={other}",)), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 130}, "203 x 130 pixels, not 203 x 131"),
        ({"crs": "EPSG:32634"}, "its CRS is EPSG:32634, not EPSG:32633"),
        ({"shift": 4.0}, "0.4 pixels away"),
    ],
)
def test_sources_that_do_not_align_say_how(change: dict[str, Any], words: str, shop: Workshop, write: Write) -> None:
    """Size, CRS, place; what to do about it is in the hint."""
    path = write(scene("uint8"), "a.tif")
    other = write(scene("uint8", 1, change.get("height", 131)), "b.tif")
    with rasterio.open(other, "r+") as dataset:
        dataset.crs = change.get("crs", dataset.crs)
        dataset.transform = dataset.transform * dataset.transform.translation(change.get("shift", 0) / 10, 0)
    with pytest.raises(SourceError, match="does not lie on the grid") as caught:
        compute(shop, path, "b1 + o.b1", sources=(f"o={other}",))
    assert words in caught.value.message
    assert "warp" in caught.value.hint


WRONG = [
    ("b9", "names band b9, which in.tif has not", "b1 to b3"),
    ("other.b1 + b1", "a source 'other' that is not given", "--source other=FILE"),
    ("sqr(b1)", "unknown function sqr", "did you mean sqrt?"),
    ("b1.__class__", "may not have 'b1.__class__'", "and functions"),
    ("__import__('os').b1", "may not have", "and functions"),
    ("__import__('os')", "unknown function __import__", "it may call"),
    ("(lambda: b1)()", "may not have", "and functions"),
    ("[b1 for b1 in b2]", "may not have", "and functions"),
    ("b1[0]", "may not have 'b1[0]'", "and functions"),
    ("'text' + b1", "may not have \"'text'\"", "and functions"),
    ("b1 := 3", "is no expression", "and functions"),
    ("b1 ** ", "is no expression", "and functions"),
    ("b1 @ b2", "may not have 'b1 @ b2'", "and functions"),
    ("b1 in b2", "may not have 'b1 in b2'", "and functions"),
    ("min(b1)", "min takes 2 arguments, not 1", "and functions"),
    ("abs(b1, out=b2)", "may not have", "and functions"),
    ("band1", "names band1, which is no band", "b1, b2"),
    ("1 + 1", "names no band", "b1, b2"),
    ("b1;;b2", "an empty part", "and functions"),
    (" ", "is empty", "and functions"),
    ("(" * 5000 + "b1" + ")" * 5000, "10,002 characters", "split it"),
    ("(" * 250 + "b1" + ")" * 250, "is no expression", "and functions"),
    ("-" * 150 + "b1", "nested deeper than 100", "split it"),
    ("b1 + 1" + "0" * 400, "too large", "1.8e308"),
    ("b1 + 1e400", "too large", "1.8e308"),
    ("b1 ** 9 ** 9 ** 9", "a power that is no finite number: 9 ** 9 ** 9", "1.8e308"),
    ("b1 + (-1) ** 0.5", "a power that is no finite number", "1.8e308"),
    ("b1 + 1j", "may not have '1j'", "and functions"),
    ("b1 if b2", "is no expression", "and functions"),
]


@pytest.mark.parametrize(("text", "words", "hint"), WRONG, ids=[text[:30] for text, *_ in WRONG])
def test_what_no_expression_may_be(text: str, words: str, hint: str, shop: Workshop, write: Write) -> None:
    """Bad input is told before any work, exit 2, with what to do; nothing is ever evaluated as Python."""
    with pytest.raises(UsageError) as caught:
        compute(shop, write(scene("uint8")), text)
    assert words in caught.value.message
    assert hint in caught.value.hint
    assert not (shop.folder / "out.tif").exists()


def test_huge_powers_are_not_computed_for_hours(shop: Workshop, write: Write) -> None:
    """Python's integers would grow without bound; of pixels it is infinite, which is nodata; of numbers it is refused."""
    assert np.isnan(compute(shop, write(scene("uint8")), "(b1 + 10) ** 9999")).all()
    with pytest.raises(UsageError, match=r"a power that is no finite number: 9 \*\* 9"):
        compute(shop, write(scene("uint8")), "9 ** 9 ** 9 ** 9 * b1")


@given(st.text(alphabet="b123.()+-*/<>=!&|~ ,andotrif\"'[]{}_;", max_size=40))
def test_no_text_is_more_than_an_expression_or_an_error(text: str) -> None:
    """Whatever is typed, either trees come of it or a UsageError."""
    with contextlib.suppress(UsageError):
        assert all(tree.bands() for tree in expression.parse(text))


def test_verification_recomputes_it(shop: Workshop, write: Write) -> None:
    """By the output's own record, further sources found beside the source; a changed pixel is seen."""
    path, other = write(scene("uint8"), "a.tif"), write(scene("uint8"), "b.tif")
    plan, _ = shop.transform(path, operation=Expression(expr="b1 * o.b3", sources=(f"o={other}",)))
    output = shop.folder / "out.tif"
    record = verify.read_provenance(output)
    assert record is not None
    assert record["operation"]["sources"] == ["o=b.tif"]
    work = RasterJob.model_validate(record | {"source": str(path), "resources": shop.job(path).resources})
    job = VerifyJob(source=str(path), output=str(output), work=work, expected=plan.expected, resources=work.resources)

    def checked() -> None:
        bench = shop.bench(None)
        work = verify.prepare(job, shop.room(job))
        try:
            work.run(bench)
        finally:
            work.close()
        bench.conclude("out.tif")

    checked()
    with environment(), rasterio.open(output, "r+") as dataset:
        pixels = dataset.read(1)
        pixels[:3] += 1
        dataset.write(pixels, 1)
    with pytest.raises(SwathError) as caught:
        checked()
    assert isinstance(caught.value, VerificationFailed)


@pytest.mark.parametrize("expr", ["b1 & 8", "b1 > 10 & b1 < 50", "~b1", "b1 > 3 | b2", "where(b1 ^ b2, 1, 0)"])
def test_bits_of_numbers_are_asked_for_by_name(expr: str) -> None:
    """`&` and its like join truths; of numbers they would be taken for what other tools mean by them."""
    with pytest.raises(UsageError, match="of numbers") as caught:
        expression.parse(expr)
    assert "bitand" in caught.value.hint


def test_bits_of_a_pixel(shop: Workshop, write: Write) -> None:
    """As NumPy has them, of integers of any sign."""
    raw = scene("int16") - 60
    assert compute(shop, write(raw), "bitand(b1, 8 + 16) != 0").tolist() == ((raw[0] & 24) != 0).tolist()
