"""The planner as a pure function: within its budget, monotone, honest about the least."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lib.errors import MemoryRefused
from lib.jobs import Resources
from lib.memory.work import BASELINE_SPREAD_BYTES, Room
from lib.units import MIB
from lib.vector import plan as planning
from lib.vector.plan import Task, choose
from lib.vector.sinks import SINKS
from lib.vector.sources import LayerFacts, Sizes

BASELINE = 120 * MIB
AMPLE = 4096 * MIB


def _facts(
    driver: str, features: int, mean: int, largest: int, runs: tuple[tuple[int, int, int], ...] = ()
) -> LayerFacts:
    return LayerFacts(
        source="a",
        label="a",
        driver=driver,
        layer="a",
        fields=("n",),
        field_types=("OFTInteger",),
        geometry_type="Polygon",
        geometry_name="geom",
        fid_column="",
        crs="EPSG:4326",
        features=features,
        source_bytes=features * mean,
        sizes=Sizes(mean, largest, count=features, runs=runs),
    )


facts = st.builds(
    _facts,
    st.sampled_from(["GPKG", "FlatGeobuf", "ESRI Shapefile", "GML"]),
    st.integers(0, 5_000_000),
    st.integers(20, 5000),
    st.integers(0, 40 * MIB),
)
sinks = st.sampled_from([*SINKS, ""])


def _task(layer: LayerFacts, sink: str = "GPKG", **choices: int | bool) -> Task:
    chosen = {"limit_bytes": AMPLE, "threads_max": 2, **choices}
    return Task(layer, SINKS[sink].of(layer) if sink else None, (), Resources.model_validate(chosen))


@given(layer=facts, sink=sinks, probed=st.integers(0, 200 * MIB), margin=st.sampled_from([0, 20 * MIB]))
def test_the_smallest_limit_fits_what_was_measured(layer: LayerFacts, sink: str, probed: int, margin: int) -> None:
    """With the limit that is named, the smallest layout is chosen again or a better one, and what was measured fits in."""
    task = _task(layer, sink, margin_bytes=margin)
    least = choose(task, 0)
    ample = Room(AMPLE, AMPLE, BASELINE)
    smallest = planning.smallest_of(task, least, ample, probed, 0)
    terms = planning.terms_of(task, least, Room(smallest, smallest, BASELINE), probed, 0)
    assert sum(terms.values()) <= smallest - BASELINE_SPREAD_BYTES
    assert min(terms.values()) >= 0
    assert terms["margin"] == margin
    assert smallest <= planning.smallest_of(task, least, ample, probed + MIB, 0)


@example(layer=_facts("GPKG", 2, 20, 0), sink="GPKG", left=0, more=33_554_664)  # one row fits, all are nearly as little
@given(layer=facts, sink=sinks, left=st.integers(0, 2048 * MIB), more=st.integers(0, 1024 * MIB))
def test_more_memory_is_never_fewer_rows(layer: LayerFacts, sink: str, left: int, more: int) -> None:
    """Rows grow, or stay, with what is left; where nothing fits, whatever is left, one layout is named."""
    task = _task(layer, sink)
    small, large = choose(task, left), choose(task, left + more)
    assert small.rows >= 1
    if planning.needs(task, small) <= left:
        assert large.rows >= small.rows
    else:
        assert small == choose(task, 0)


@given(layer=facts, left=st.integers(0, 2048 * MIB))
def test_the_margin_gives_way_to_the_limit_and_no_further(layer: LayerFacts, left: int) -> None:
    """A limit that cuts into the probe's margin is still planned with; one that leaves less than a part of it is not."""
    task = _task(layer)
    layout = choose(task, left)
    room = Room(BASELINE + left, BASELINE + left, BASELINE)
    terms = planning.terms_of(task, layout, room, 10 * MIB, 0)
    own = sum(terms.values()) - terms["probe margin"]
    assert (sum(terms.values()) <= room.budget_bytes) == (own + 3 * MIB <= room.budget_bytes)


def test_fixed_rows_are_kept() -> None:
    """Rows that the user fixed are not lowered in silence."""
    layer = _facts("GPKG", 1_000_000, 2000, 4000)
    assert choose(_task(layer, chunk_rows=50_000, chunk_rows_fixed=True), 60 * MIB).rows == 50_000
    assert choose(_task(layer, chunk_rows=50_000), 60 * MIB).rows < 50_000


def test_a_chunk_bound_lowers_the_rows() -> None:
    """max_chunk_mb bounds a batch's bytes where the format tells them, and is refused where no batch is so small."""
    layer = _facts("FlatGeobuf", 100_000, 1000, 2000, ((10000, 10 * MIB, 0), (2500, 3 * MIB, 0), (1, 2000, 0)))
    layout = choose(_task(layer, max_chunk_bytes=5 * MIB), AMPLE)
    assert (layout.rows, layout.batch_bytes) == (2500, 3 * MIB)
    with pytest.raises(MemoryRefused, match="max_chunk_mb allows") as caught:
        choose(_task(layer, max_chunk_bytes=1000, chunk_rows_fixed=True), AMPLE)
    assert caught.value.facts["smallest_chunk_bytes"] == 10 * MIB


@pytest.mark.parametrize("driver", ["GPKG", "FlatGeobuf", "GeoJSON"])
def test_memory_that_makes_it_no_faster_is_not_taken(driver: str) -> None:
    """Wide rows are read in batches of some MiB however much there is; rows that were asked for stay."""
    layer = _facts(driver, 30_000, 14_000, 500)
    assert MIB < choose(_task(layer), 2048 * MIB).rows * 14_000 <= 16 * MIB
    assert choose(_task(layer, chunk_rows=5000, chunk_rows_fixed=True), 2048 * MIB).rows == 5000


def test_a_few_huge_geometries_do_not_make_all_batches_small() -> None:
    """Twenty thousand small rows and three of 15 MiB: batches stay as long as the small ones would have them."""
    runs = ((10_000, 46 * MIB, 0), (2500, 46 * MIB, 0), (625, 16 * MIB, 0), (1, 15 * MIB, 0))
    layer = _facts("ESRI Shapefile", 20_003, 2500, 15 * MIB, runs)
    assert choose(_task(layer), 2048 * MIB).rows == 2500


def test_a_thread_reads_ahead_where_there_may_be_two() -> None:
    """With one thread asked for, or memory for one batch only, nothing is read ahead."""
    layer = _facts("GPKG", 1_000_000, 300, 400)
    assert choose(_task(layer), 1024 * MIB).is_ahead
    assert not choose(_task(layer, threads=1), 1024 * MIB).is_ahead
    assert not choose(_task(layer, threads_max=1), 1024 * MIB).is_ahead
    assert not choose(_task(layer), 0).is_ahead


@example(layer=_facts("GPKG", 87_382, 20, 0), sink="ESRI Shapefile", margin=0)  # a GeoPackage's index takes more
@given(layer=facts, sink=st.sampled_from(list(SINKS)), margin=st.sampled_from([0, 20 * MIB]))
def test_the_knob_that_lowers_the_peak_is_one_that_does(layer: LayerFacts, sink: str, margin: int) -> None:
    """`lower_by` names one setting; with it set, the plan is lower."""
    task = _task(layer, sink, margin_bytes=margin)
    layout, room = choose(task, AMPLE), Room(AMPLE, AMPLE, BASELINE)
    knob, _, saved = planning.lower_by(task, layout, choose(task, 0)).partition(" saves ")
    if not knob:
        return
    assert saved
    changes = {"margin_mb": {"margin_bytes": 0}, "writing": {}}
    if (name := knob.split()[0]) == "chunk_rows":
        assert choose(_task(layer, sink, chunk_rows=int(knob.split()[1]), chunk_rows_fixed=True), AMPLE).batch_bytes < (
            layout.batch_bytes
        )
        return
    other = _task(layer, "GPKG" if name == "writing" else sink, **{"margin_bytes": margin} | changes[name])
    again = choose(other, AMPLE)
    assert sum(planning.terms_of(other, again, room, 0, 0).values()) < sum(
        planning.terms_of(task, layout, room, 0, 0).values()
    )
