"""The planner as properties, over facts that no file need have."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.errors import DiskRefused, MemoryRefused
from lib.jobs import Normalise, RasterJob, Resources
from lib.memory.work import BASELINE_SPREAD_BYTES, Room
from lib.raster import plan as planner
from lib.raster.blocks import Blocks
from lib.raster.facts import RasterFacts
from lib.raster.masks import MaskRules
from lib.raster.terms import chunk_bytes
from lib.units import MIB, format_bytes, mib

BASELINE = 70 * MIB


def facts_of(**given_facts: Any) -> RasterFacts:
    """Header facts: a tiled uint16 raster of one band, but for what is given."""
    bands = given_facts.pop("count", 1)
    height, width = given_facts.pop("block", (512, 512))
    interleaved = given_facts.pop("pixel_interleaved", False)
    compression = given_facts.pop("compression", "DEFLATE")
    itemsize = np.dtype(given_facts.get("dtype", "uint16")).itemsize
    size = height * width * itemsize * (bands if interleaved else 1)
    read = Blocks(
        block=(height, width),
        block_bytes=size,
        cached_bytes=size,
        pixel_interleaved=interleaved,
        compression=compression,
    )
    defaults: dict[str, Any] = {
        "path": "in.tif",
        "driver": "GTiff",
        "shape": (10_000, 10_000),
        "count": bands,
        "dtype": np.dtype("uint16"),
        "bands": tuple(range(1, bands + 1)),
        "read": read,
        "rules": MaskRules((None,) * bands, floating=False),
        "source_bytes": 50 * MIB,
        "opened_bytes": BASELINE + 15 * MIB,
    }
    return RasterFacts(**(defaults | given_facts))


def job_of(**choices: Any) -> RasterJob:
    """A normalise job with ample resources, but for what is given."""
    resources = {"limit_bytes": 2048 * MIB, "threads_max": 4} | choices.pop("resources", {})
    choices = {"operation": Normalise()} | choices
    return RasterJob(source="in.tif", destination="out.tif", resources=Resources(**resources), **choices)


def room_of(limit_bytes: int, budget_bytes: int | None = None) -> Room:
    """Room under a limit; the budget is all of it unless given."""
    return Room(limit_bytes, budget_bytes or limit_bytes, BASELINE)


FACTS = st.builds(
    facts_of,
    shape=st.tuples(st.integers(1, 60_000), st.integers(1, 60_000)),
    count=st.integers(1, 12),
    dtype=st.sampled_from([np.dtype(name) for name in ("uint8", "int16", "float32", "float64")]),
    block=st.sampled_from([(512, 512), (256, 256), (1, 60_000), (16, 60_000), (300, 200), (1024, 1024)]),
    pixel_interleaved=st.booleans(),
    compression=st.sampled_from(["", "LZW"]),
)
JOBS = st.builds(
    job_of,
    block_size=st.sampled_from([None, None, 64, 512, 1024]),
    compress=st.sampled_from(["none", "lzw", "zstd"]),
    resources=st.fixed_dictionaries(
        {},
        optional={
            "threads": st.integers(1, 4),
            "max_chunk_bytes": st.integers(1 * MIB, 64 * MIB),
            "gdal_cache_max_bytes": st.sampled_from([0, 8 * MIB, 512 * MIB]),
        },
    ),
)


def smallest_of(facts: RasterFacts, job: RasterJob) -> int | None:
    """The refusal's number under a limit of 1 byte; None where the chunk bound alone refuses."""
    with pytest.raises(MemoryRefused) as refused:
        planner.make_plan(facts, job, room_of(1))
    return refused.value.facts.get("smallest_limit_bytes")


@settings(max_examples=60)
@given(FACTS, JOBS, st.integers(0, 400))
def test_a_plan_keeps_every_bound(facts: RasterFacts, job: RasterJob, more_mb: int) -> None:
    """Terms sum to the projection, which fits; chunk, threads, cache and block keep what the job fixed."""
    smallest = smallest_of(facts, job)
    if smallest is None:
        return
    limit = mib(smallest) * MIB + more_mb * MIB
    plan = planner.make_plan(facts, job, room_of(limit))
    resources = job.resources
    assert sum(plan.terms.values()) == plan.projected_bytes <= limit
    assert all(size >= 0 for size in plan.terms.values())
    assert plan.smallest_limit_bytes == smallest
    assert plan.window[0] % plan.block_size == plan.window[1] % plan.block_size == 0
    assert plan.block_size in ([job.block_size] if job.block_size else range(16, 513, 16))
    assert plan.threads == (resources.threads or plan.threads) <= max(resources.threads or 0, resources.threads_max)
    assert plan.gdal_cache_bytes <= resources.gdal_cache_max_bytes
    if resources.max_chunk_bytes:
        assert chunk_bytes(facts, job, plan.window, plan.facts["bands_at_once"]) <= resources.max_chunk_bytes


@settings(max_examples=60)
@given(FACTS, JOBS, st.integers(1, 300))
def test_the_smallest_number_is_the_border(facts: RasterFacts, job: RasterJob, more_mb: int) -> None:
    """At the refusal's number a plan is made, above it too; just below it, less the spread, it is refused with that number."""
    smallest = smallest_of(facts, job)
    if smallest is None:
        return
    for limit in (smallest, smallest + more_mb * MIB):
        assert planner.make_plan(facts, job, room_of(limit)).projected_bytes <= limit
    with pytest.raises(MemoryRefused) as refused:
        planner.make_plan(facts, job, room_of(smallest - BASELINE_SPREAD_BYTES - MIB))
    assert refused.value.smallest_limit_bytes == smallest


@settings(max_examples=40)
@given(FACTS, JOBS, st.integers(0, 100), st.integers(1, 400))
def test_more_memory_is_never_slower(facts: RasterFacts, job: RasterJob, some_mb: int, more_mb: int) -> None:
    """With a larger budget the chosen layout costs no more time by the planner's own measure."""
    smallest = smallest_of(facts, job)
    if smallest is None:
        return
    costs = []
    for limit in (smallest + some_mb * MIB, smallest + (some_mb + more_mb) * MIB):
        room = room_of(limit)
        costs.append(planner.choose(planner._choices(facts, job, room), job, facts, room).cost)
    assert costs[1] <= costs[0]


def test_a_retry_plans_within_its_budget() -> None:
    """After a death of memory the plan keeps the smaller budget although the limit stays."""
    roomy = planner.make_plan(facts_of(), job_of(), room_of(512 * MIB))
    tight = planner.make_plan(facts_of(), job_of(), room_of(512 * MIB, roomy.projected_bytes - 1))
    assert tight.projected_bytes < roomy.projected_bytes
    assert tight.limit_bytes == 512 * MIB


@pytest.mark.parametrize(
    ("choices", "named"),
    [({"block_size": 4096}, "block_size=4096"), ({"resources": {"threads": 16}}, "threads=16")],
)
def test_a_fixed_setting_in_the_way_is_named(choices: dict[str, Any], named: str) -> None:
    """A refusal says which setting of the user's keeps the job from fitting."""
    with pytest.raises(MemoryRefused, match=named):
        planner.make_plan(facts_of(), job_of(**choices), room_of(110 * MIB))


def test_a_chunk_bound_too_small_is_named() -> None:
    """No limit would do where one chunk of the smallest block is above max_chunk_mb."""
    with pytest.raises(MemoryRefused, match="max_chunk_mb") as refused:
        planner.make_plan(facts_of(), job_of(block_size=1024, resources={"max_chunk_bytes": MIB}), room_of(2048 * MIB))
    assert refused.value.smallest_chunk_bytes > MIB


def test_a_chunk_a_little_too_small_is_told_apart() -> None:
    """Two numbers that both round to 1.0 MiB are said in bytes."""
    with pytest.raises(
        MemoryRefused, match=r"allows 1,048,576 bytes for a chunk, the smallest takes 1,\d{3},\d{3}"
    ) as refused:
        planner.make_plan(facts_of(), job_of(block_size=368, resources={"max_chunk_bytes": MIB}), room_of(2048 * MIB))
    assert refused.value.smallest_chunk_bytes < 1.1 * MIB


def test_the_encoder_holds_no_more_jobs_than_tiles() -> None:
    """Tiles larger than the raster are one each: threads have nothing to queue."""
    shapes = {"one": (2000, 2000), "many": (20_000, 20_000)}
    job = job_of(block_size=2048, compress="lzw", resources={"threads": 4})
    held = {
        name: planner.make_plan(facts_of(shape=shape), job, room_of(2048 * MIB)).terms["encoder"]
        for name, shape in shapes.items()
    }
    assert held["one"] < 2.5 * 2048**2 * 4
    assert held["many"] > 5 * 4 * 2048**2 * 4


def test_one_huge_block_is_refused_with_its_size() -> None:
    """A header with one block of 2 GB is refused, with the limit that it would need."""
    facts = facts_of(block=(32_768, 32_768), shape=(32_768, 32_768))
    with pytest.raises(MemoryRefused, match=r"one source block of 32768 x 32768 pixels") as refused:
        planner.make_plan(facts, job_of(), room_of(2048 * MIB))
    assert refused.value.smallest_limit_bytes > 2 * 32_768**2


def test_windows_are_whole_tiles_of_some_megabytes() -> None:
    """The reference raster is read in windows of 2 to 4 MB, once, with hardly any cache and two encoder threads."""
    plan = planner.make_plan(facts_of(), job_of(), room_of(512 * MIB))
    assert plan.block_size == 512
    assert 2 * MIB <= plan.window[0] * plan.window[1] * 4 <= 4 * MIB
    assert plan.facts["decodes"] == 1
    assert plan.gdal_cache_bytes < MIB
    assert plan.threads == 2


def test_strips_get_a_cache_for_a_row_of_windows() -> None:
    """Strips are cached for a row of windows where memory allows, else decoded again or read in whole rows."""
    strips = facts_of(block=(1, 10_000))
    ample = planner.make_plan(strips, job_of(), room_of(512 * MIB))
    assert ample.gdal_cache_bytes >= 1.3 * ample.window[0] * 10_000 * 2
    bounded = planner.make_plan(strips, job_of(resources={"gdal_cache_max_bytes": 0}), room_of(512 * MIB))
    assert bounded.gdal_cache_bytes == 0
    assert bounded.window[1] >= 10_000


def test_two_hundred_bands_need_no_two_hundred_buffers() -> None:
    """Band-interleaved, many bands take about what one takes."""
    one, many = (
        planner.make_plan(facts_of(count=count), job_of(), room_of(512 * MIB)).projected_bytes for count in (1, 200)
    )
    assert many - one < 8 * MIB


def with_knob(job: RasterJob, knob: str, value: str) -> RasterJob:
    """A job with a setting typed in as `lower_by` names it."""
    if knob in {"block_size", "compress"}:
        return job.model_copy(update={knob: value if knob == "compress" else int(value)})
    name, unit = {
        "threads": ("threads", 1),
        "max_chunk_mb": ("max_chunk_bytes", MIB),
        "gdal_cachemax": ("gdal_cache_max_bytes", MIB),
    }[knob]
    return job.model_copy(update={"resources": job.resources.model_copy(update={name: int(value) * unit})})


STRIPS = {"block": (1, 10_000)}


@pytest.mark.parametrize("facts", [{}, STRIPS, {"shape": (40, 150_000), "block": (27, 150_000)}])
@pytest.mark.parametrize("limit_mb", [200, 512])
def test_the_knob_that_lowers_the_peak_most_keeps_its_promise(facts: dict[str, Any], limit_mb: int) -> None:
    """`lower_by` names one setting and value; typed in, they save what was promised, and no other saves more."""
    job, room = job_of(), room_of(limit_mb * MIB)
    plan = planner.make_plan(facts_of(**facts), job, room)
    found = re.fullmatch(r"(\w+) (\w+) saves (.+)", plan.lower_by)
    assert found

    def saved(knob: str, value: str) -> int:
        again = planner.make_plan(facts_of(**facts), with_knob(job, knob, value), room)
        return plan.projected_bytes - again.projected_bytes

    assert format_bytes(saved(found[1], found[2])) == found[3]
    others = [
        ("threads", "1"),
        ("compress", "none"),
        ("block_size", "128"),
        ("gdal_cachemax", "1"),
        ("max_chunk_mb", "2"),
    ]
    assert saved(found[1], found[2]) >= max(saved(*each) for each in others)


def test_a_disk_too_small_is_refused() -> None:
    """An uncompressed output must fit whole; a compressed one only as far as its source shows."""
    room, free_bytes = room_of(512 * MIB), 30 * MIB
    raw, packed = job_of(compress="none"), job_of()
    with pytest.raises(DiskRefused, match="free"):
        planner.check_disk(facts_of(), raw, planner.make_plan(facts_of(), raw, room), free_bytes)
    planner.check_disk(facts_of(), packed, planner.make_plan(facts_of(), packed, room), free_bytes)
    large = facts_of(source_bytes=200 * MIB)
    with pytest.raises(DiskRefused, match="at least 101"):
        planner.check_disk(large, packed, planner.make_plan(large, packed, room), free_bytes)
