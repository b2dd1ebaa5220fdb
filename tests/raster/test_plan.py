"""The planner as properties, over facts that no file need have."""

import operator
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import DiskRefused, MemoryRefused
from lib.jobs import Resources
from lib.memory.work import BASELINE_SPREAD_BYTES, Room
from lib.operations import Normalise
from lib.raster import engine, windows
from lib.raster.layout import Facts, chunk_bytes
from lib.raster.plan import Choice, Held, Planner
from lib.raster.sinks.encode import Encoding
from lib.reports import Plan
from lib.units import MIB, format_bytes, mib
from tests.raster.conftest import Workshop

BASELINE = 70 * MIB
NEXT_TO_LEAST_BYTES = 3 * MIB  # within which the fastest layout's number is named
HELD = Held(BASELINE + 15 * MIB, 6 * MIB, 8 * MIB)


def facts_of(**given_facts: Any) -> Facts:
    """Header facts: a tiled uint16 raster of one band that becomes float32, but for what is given."""
    height, width = given_facts.pop("block", (512, 512))
    in_dtype = np.dtype(given_facts.pop("in_dtype", "uint16"))
    compress = given_facts.pop("compress", "zstd")
    bands = given_facts.get("bands", 1)
    interleaved = given_facts.get("pixel_interleaved", False)
    return Facts(
        label="in.tif",
        in_dtype=in_dtype,
        encoding=lambda block_size: Encoding(compress, np.dtype("float32"), block_size, level=_level(compress)),
        block=(height, width),
        block_bytes=height * width * in_dtype.itemsize * (bands if interleaved else 1),
        **{"shape": (10_000, 10_000), "bands": bands, "bands_out": bands, "file_bands": bands} | given_facts,
    )


def _level(compress: str) -> int | None:
    return {"zstd": 1, "deflate": 6}.get(compress)


def resources_of(**choices: Any) -> Resources:
    """Ample, but for what is given."""
    return Resources(**{"limit_bytes": 2048 * MIB, "threads_max": 4} | choices)


def planner_of(facts: Facts, resources: Resources, limit_bytes: int, budget_bytes: int | None = None) -> Planner:
    """A planner under a limit; the budget is all of it unless given."""
    return Planner(facts, resources, Room(limit_bytes, budget_bytes or limit_bytes, BASELINE))


def chosen(facts: Facts, resources: Resources, limit_bytes: int, budget_bytes: int | None = None) -> Choice:
    """What is chosen under a limit that is known to do."""
    planner = planner_of(facts, resources, limit_bytes, budget_bytes)
    found = planner.choose(planner.choices(HELD))
    assert found is not None
    return found


FACTS = st.builds(
    facts_of,
    shape=st.tuples(st.integers(1, 60_000), st.integers(1, 60_000)),
    bands=st.integers(1, 12),
    in_dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
    block=st.sampled_from([(512, 512), (256, 256), (1, 60_000), (16, 60_000), (300, 200), (1024, 1024)]),
    pixel_interleaved=st.booleans(),
    parallel=st.booleans(),
    all_bands=st.booleans(),
    overlap=st.sampled_from([0, 0, 7]),
    has_mask=st.booleans(),
    operation_memory=st.sampled_from([lambda *_: 0, operator.mul]),
    block_size=st.sampled_from([None, None, 64, 512, 1024]),
    compress=st.sampled_from(["none", "lzw", "zstd"]),
)
RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        "threads": st.integers(1, 4),
        "max_chunk_bytes": st.integers(1 * MIB, 64 * MIB),
        "gdal_cache_max_bytes": st.sampled_from([0, 8 * MIB, 512 * MIB]),
        "margin_bytes": st.sampled_from([0, 30 * MIB]),
    },
).map(lambda choices: resources_of(**choices))


def refusal(facts: Facts, resources: Resources, limit_bytes: int = 1) -> MemoryRefused:
    """What is said where nothing fits."""
    planner = planner_of(facts, resources, limit_bytes)
    choices = planner.choices(HELD)
    assert planner.choose(choices) is None
    try:
        return planner.refused(choices, HELD)
    except MemoryRefused as refused:
        return refused


@settings(max_examples=60)
@given(FACTS, RESOURCES, st.integers(0, 400))
def test_a_choice_keeps_every_bound(facts: Facts, resources: Resources, more_mb: int) -> None:
    """Terms sum to the projection, which fits; chunk, threads, cache and block keep what the job fixed."""
    smallest = refusal(facts, resources).facts.get("smallest_limit_bytes")
    if smallest is None:
        return
    limit = mib(smallest) * MIB + more_mb * MIB
    planner = planner_of(facts, resources, limit)
    choice = chosen(facts, resources, limit)
    layout, terms = choice.layout, planner.terms(choice, HELD)
    assert sum(terms.values()) == choice.projected_bytes <= limit
    assert all(size >= 0 for size in terms.values())
    assert layout.window[0] % layout.block_size == layout.window[1] % layout.block_size == 0
    assert layout.block_size in ([facts.block_size] if facts.block_size else range(16, 513, 16))
    chunks = windows.count(facts.shape, layout.window) * windows.steps(facts.bands, layout.bands_at_once)
    assert layout.threads == min(resources.threads or layout.threads, chunks)
    assert layout.threads <= max(resources.threads or 0, resources.threads_max)
    assert 1 <= layout.readers <= (layout.threads if facts.parallel else 1)
    assert layout.cache_bytes <= resources.gdal_cache_max_bytes
    assert layout.bands_at_once == facts.bands or not (facts.all_bands or facts.pixel_interleaved)
    if resources.max_chunk_bytes:
        assert choice.chunk_bytes == chunk_bytes(planner.facts, layout) <= resources.max_chunk_bytes


@settings(max_examples=60)
@given(FACTS, RESOURCES, st.integers(1, 300))
def test_the_smallest_number_is_the_border(facts: Facts, resources: Resources, more_mb: int) -> None:
    """At the refusal's number a plan is made, above it too; a little below it none is, and the number stays the same."""
    smallest = refusal(facts, resources).facts.get("smallest_limit_bytes")
    if smallest is None:
        return
    for limit in (smallest, smallest + more_mb * MIB):
        assert chosen(facts, resources, limit).projected_bytes <= limit
    below = refusal(facts, resources, smallest - BASELINE_SPREAD_BYTES - NEXT_TO_LEAST_BYTES - MIB)
    assert below.smallest_limit_bytes == smallest


@settings(max_examples=40)
@given(FACTS, RESOURCES, st.integers(0, 100), st.integers(1, 400))
def test_more_memory_is_never_slower(facts: Facts, resources: Resources, some_mb: int, more_mb: int) -> None:
    """With a larger budget the chosen layout costs no more time by the planner's own measure."""
    smallest = refusal(facts, resources).facts.get("smallest_limit_bytes")
    if smallest is None:
        return
    less, more = (chosen(facts, resources, smallest + extra * MIB) for extra in (some_mb, some_mb + more_mb))
    assert more.cost <= less.cost


@settings(max_examples=40)
@given(FACTS, RESOURCES, st.integers(1, 64))
def test_what_libraries_hold_counts_for_each_reader(facts: Facts, resources: Resources, more_mb: int) -> None:
    """A reader that holds more raises a layout's projection by at least that, for each reader, and by at most 16 % more."""
    planner = planner_of(facts, resources, 2048 * MIB)
    more = HELD._replace(reader_bytes=HELD.reader_bytes + more_mb * MIB)
    for less, grown in zip(planner.choices(HELD), planner.choices(more), strict=True):
        added, readers = grown.projected_bytes - less.projected_bytes, less.layout.readers
        assert less.layout == grown.layout
        assert more_mb * MIB * readers * 0.99 - 8 * MIB <= added <= more_mb * MIB * readers * 1.16


def test_a_retry_plans_within_its_budget() -> None:
    """After a death of memory the plan keeps the smaller budget although the limit stays, and a refusal says so."""
    roomy = chosen(facts_of(), resources_of(), 512 * MIB)
    tight = chosen(facts_of(), resources_of(), 512 * MIB, roomy.projected_bytes - 1)
    assert tight.projected_bytes < roomy.projected_bytes
    planner = planner_of(facts_of(), resources_of(), 512 * MIB, 80 * MIB)
    refused = planner.refused(planner.choices(HELD), HELD)
    assert "80 MiB are granted of the limit of 512 MiB after a death of memory" in str(refused)


def test_a_fixed_block_size_in_the_way_is_named() -> None:
    """A refusal says that tiles of the user's size keep the job from fitting, and what it would need without."""
    refused = refusal(facts_of(block_size=4096), resources_of(), 130 * MIB)
    found = re.search(r"without block_size=4096 it would need (\d+) MiB", str(refused))
    assert found
    assert chosen(facts_of(), resources_of(), int(found[1]) * MIB)


def test_a_chunk_bound_too_small_is_named() -> None:
    """No limit would do where one chunk of the smallest block is above max_chunk_mb."""
    refused = refusal(facts_of(block_size=1024), resources_of(max_chunk_bytes=MIB))
    assert "max_chunk_mb" in str(refused)
    assert refused.smallest_chunk_bytes > MIB


def test_a_chunk_a_little_too_small_is_told_apart() -> None:
    """Two numbers that both round to 1.0 MiB are said in bytes."""
    refused = refusal(facts_of(block_size=352), resources_of(max_chunk_bytes=MIB))
    assert re.search(r"allows 1,048,576 bytes for a chunk, the smallest takes 1,\d{3},\d{3}", str(refused))
    assert refused.smallest_chunk_bytes < 1.2 * MIB


def test_one_huge_block_is_refused_with_its_size() -> None:
    """A header with one block of 2 GB is refused, with the limit that it would need."""
    facts = facts_of(block=(32_768, 32_768), shape=(32_768, 32_768))
    planner = planner_of(facts, resources_of(), 1024 * MIB)
    held = HELD._replace(reader_bytes=2 * facts.block_bytes)
    refused = planner.refused(planner.choices(held), held)
    assert re.search(r"one source block of 32768 x 32768 pixels alone is 2\.0 GiB", str(refused))
    assert refused.smallest_limit_bytes > 2 * 32_768**2


def test_windows_are_whole_tiles_of_some_megabytes() -> None:
    """The reference raster is read in windows of at most 4 MB, once, with hardly any cache and all threads that there are."""
    layout = chosen(facts_of(parallel=True), resources_of(), 512 * MIB).layout
    assert layout.block_size == 512
    assert MIB <= layout.window[0] * layout.window[1] * 4 <= 4 * MIB
    assert layout.decodes == 1
    assert layout.cache_bytes < MIB
    assert (layout.threads, layout.readers) == (4, 4)


def test_strips_get_a_cache_for_a_row_of_windows() -> None:
    """Strips are cached for a row of windows where memory allows, else decoded again or read in whole rows."""
    strips = facts_of(block=(1, 10_000))
    for bound in (0, 512 * MIB):
        layout = chosen(strips, resources_of(gdal_cache_max_bytes=bound), 512 * MIB).layout
        whole_rows = layout.window[1] >= 10_000
        assert whole_rows or layout.cache_bytes >= 1.3 * layout.window[0] * 10_000 * 2
        assert layout.decodes == 1
        assert layout.cache_bytes <= bound


def test_two_hundred_bands_need_no_two_hundred_buffers() -> None:
    """Band-interleaved, many bands take about what one takes, but for the tables of their tiles."""
    one, many = (chosen(facts_of(bands=count), resources_of(), 512 * MIB) for count in (1, 200))
    tables = many.own["tile tables"] - one.own["tile tables"]
    assert many.projected_bytes - one.projected_bytes - tables < 8 * MIB


def test_a_raster_smaller_than_a_tile_has_small_tiles() -> None:
    """One pixel is not stored as 512 x 512 of them."""
    assert chosen(facts_of(shape=(1, 1), block=(1, 1)), resources_of(), 512 * MIB).layout.block_size == 16


@pytest.mark.parametrize("facts", [{}, {"block": (1, 10_000)}, {"shape": (40, 150_000), "block": (27, 150_000)}])
@pytest.mark.parametrize("limit_mb", [200, 512])
def test_the_knob_that_lowers_the_peak_most_keeps_its_promise(facts: dict[str, Any], limit_mb: int) -> None:
    """`lower_by` names one setting and value; typed in, they save what was promised, and no other saves more."""
    resources, limit = resources_of(), limit_mb * MIB
    planner = planner_of(facts_of(**facts), resources, limit)
    before = chosen(facts_of(**facts), resources, limit)
    found = re.fullmatch(r"(\w+) (\w+) saves (.+)", planner.lower_by(before, planner.choices(HELD)))
    assert found

    def saved(knob: str, value: int) -> int:
        fixed, asked = facts_of(**facts), resources
        if knob == "block_size":
            fixed = replace(fixed, block_size=value)
        else:
            name, unit = {"threads": ("threads", 1), "max_chunk_mb": ("max_chunk_bytes", MIB)}[knob]
            asked = resources.model_copy(update={name: value * unit})
        return before.projected_bytes - chosen(fixed, asked, limit).projected_bytes

    assert format_bytes(saved(found[1], int(found[2]))) == found[3]
    others = [("threads", 1), ("block_size", 128), ("max_chunk_mb", 2)]
    assert saved(found[1], int(found[2])) >= max(saved(*each) for each in others)


def test_a_disk_too_small_is_refused(shop: Workshop, write: Callable[..., Path]) -> None:
    """An uncompressed output must fit whole; a compressed one only as far as its source shows."""
    noise = np.random.default_rng(1).integers(0, 65_535, (1, 1500, 1500), dtype="uint16")
    plain, packed = write(noise, "plain.tif"), write(noise, "packed.tif", compress="deflate")

    def first(source: Path, compress: str, free_bytes: int) -> None:
        job = shop.job(source, operation=Normalise(), compress=compress)
        with closing(engine.prepare(job, replace(shop.room(job), disk_free_bytes=free_bytes))) as work:
            work.first()

    with pytest.raises(DiskRefused, match="free"):
        first(plain, "none", 8 * MIB)  # 9 MB of float32
    first(plain, "none", 12 * MIB)
    first(plain, "zstd", 2 * MIB)
    with pytest.raises(DiskRefused, match="the output takes at least 3"):
        first(packed, "zstd", 2 * MIB)
    first(packed, "zstd", 4 * MIB)


def test_what_a_prepared_job_says_is_its_smallest_limit(shop: Workshop, write: Callable[..., Path]) -> None:
    """Under a limit that is too small the number is measured; under an ample one, guessed, and final where it is settled."""
    source = write(np.ones((1, 900, 900), "uint16"), tiled=True, blockxsize=256, blockysize=256)
    plan, _ = shop.transform(source)
    assert plan.smallest_limit_bytes <= plan.projected_bytes + BASELINE_SPREAD_BYTES
    job = shop.job(source)
    room = shop.room(job)
    with closing(engine.prepare(job, Room(MIB, MIB, room.baseline_bytes, room.disk_free_bytes))) as work:
        with pytest.raises(MemoryRefused) as refused:
            work.first()
        assert work.smallest() == refused.value.smallest_limit_bytes
        assert work.smallest(margin_bytes=0) == work.smallest()


def test_no_worker_is_planned_without_a_chunk() -> None:
    """Five threads for a raster of two chunks are two workers."""
    planner = planner_of(
        facts_of(shape=(1, 5000), block=(1, 5000), block_size=4096), resources_of(threads=5), 2048 * MIB
    )
    assert {each.layout.threads for each in planner.choices(HELD)} <= {1, 2}


@pytest.mark.parametrize("beside_mb", [60, 120])
def test_one_huge_block_is_tried_under_the_cap_where_it_may_fit(
    beside_mb: int, shop: Workshop, write: Callable[..., Path]
) -> None:
    """It is decoded into the cache, and counts once; the limit that a refusal names is one that the next try takes."""
    source = write(
        np.zeros((1, 8_000, 8_000), np.uint8), compress="zstd", tiled=True, blockxsize=8_000, blockysize=8_000
    )
    block_bytes = 8_000**2

    def first(limit_bytes: int) -> Plan:
        room = Room(limit_bytes, limit_bytes, 60 * MIB, None)  # as in a child: what pytest holds is no part of it
        with closing(engine.prepare(shop.job(source), room)) as work:
            work._held = work._held._replace(opened_bytes=60 * MIB)
            return work.first()

    limit_bytes = block_bytes + beside_mb * MIB
    if beside_mb == 60:
        with pytest.raises(MemoryRefused) as raised:
            first(limit_bytes)
        limit_bytes = mib(raised.value.smallest_limit_bytes) * MIB
        assert limit_bytes < 1.25 * (block_bytes + 80 * MIB)
    plan = first(limit_bytes)
    assert block_bytes + 60 * MIB < plan.projected_bytes <= limit_bytes
