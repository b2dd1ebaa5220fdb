"""The planner as a pure function: within its budget, monotone, honest about the least."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import MemoryRefused
from lib.units import MIB, format_bytes
from lib.vector.counts import Sizes
from lib.vector.facts import LayerFacts
from lib.vector.plan import VectorPlan, fit, lower_by

BASELINE = 120 * MIB


def _facts(driver: str, features: int, mean: int, largest: int, runs: tuple[tuple[int, int], ...] = ()) -> LayerFacts:
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
        sizes=Sizes(mean, largest, counted=features, runs=runs),
        notes=(),
    )


facts = st.builds(
    _facts,
    st.sampled_from(["GPKG", "FlatGeobuf", "ESRI Shapefile", "GML"]),
    st.integers(0, 5_000_000),
    st.integers(20, 5000),
    st.integers(0, 40 * MIB),
)
sinks = st.sampled_from(["GPKG", "FlatGeobuf", ""])


def _fit(layer: LayerFacts, sink: str, budget: int, rows: int = 10000) -> VectorPlan:
    return fit(layer, sink=sink, measures_area=True, baseline_bytes=BASELINE, budget_bytes=budget, most_rows=rows)


@given(layer=facts, sink=sinks, budget=st.integers(BASELINE, 4096 * MIB))
def test_within_the_budget_or_refused_with_a_limit_that_works(layer: LayerFacts, sink: str, budget: int) -> None:
    """A plan fits its budget; a refusal names a budget that the planner then accepts."""
    try:
        plan = _fit(layer, sink, budget)
    except MemoryRefused as refusal:
        least = refusal.smallest_limit_bytes
        plan = _fit(layer, sink, least)
        assert budget < least
        budget = least
    assert plan.projected_bytes <= budget
    # The least that is named is accepted, exactly as named, and names itself again.
    assert _fit(layer, sink, plan.smallest_bytes).smallest_bytes == plan.smallest_bytes
    assert sum(plan.terms.values()) == plan.projected_bytes
    assert min(plan.terms.values()) >= 0
    assert 1 <= plan.rows <= 10000


@given(layer=facts, sink=sinks, budget=st.integers(BASELINE, 2048 * MIB), more=st.integers(0, 1024 * MIB))
def test_more_memory_is_never_fewer_rows(layer: LayerFacts, sink: str, budget: int, more: int) -> None:
    """Rows grow, or stay, with the budget."""
    try:
        small = _fit(layer, sink, budget)
    except MemoryRefused:
        return
    assert _fit(layer, sink, budget + more).rows >= small.rows


def test_fixed_rows_are_kept_or_refused() -> None:
    """Rows that the user fixed are not lowered in silence."""
    layer = _facts("GPKG", 1_000_000, 2000, 4000)
    with pytest.raises(MemoryRefused):
        fit(
            layer,
            sink="GPKG",
            measures_area=True,
            baseline_bytes=BASELINE,
            budget_bytes=BASELINE + 60 * MIB,
            most_rows=50_000,
            rows_fixed=True,
        )
    assert _fit(layer, "GPKG", BASELINE + 60 * MIB, 50_000).rows < 50_000


def test_a_chunk_bound_lowers_the_rows() -> None:
    """max_chunk_mb bounds a batch's bytes where the format tells them."""
    layer = _facts("FlatGeobuf", 100_000, 1000, 2000, ((10000, 10 * MIB), (5000, 5 * MIB), (2500, 2 * MIB), (1, 2000)))
    plan = fit(
        layer,
        sink="GPKG",
        measures_area=False,
        baseline_bytes=BASELINE,
        budget_bytes=1024 * MIB,
        most_rows=10000,
        most_batch_bytes=5 * MIB,
    )
    assert (plan.rows, plan.batch_bytes) == (5000, 5 * MIB)


@pytest.mark.parametrize("driver", ["GPKG", "FlatGeobuf", "GeoJSON"])
def test_memory_that_makes_it_no_faster_is_not_taken(driver: str) -> None:
    """Wide rows are read in batches of some MiB however much there is; rows that were asked for stay."""
    layer = _facts(driver, 30_000, 14_000, 500)
    plan = _fit(layer, "GPKG", 2048 * MIB)
    assert 2 * MIB < plan.rows * 14_000 <= 16 * MIB
    asked = fit(layer, sink="GPKG", measures_area=True, baseline_bytes=BASELINE, budget_bytes=2048 * MIB, most_rows=5000,
                rows_fixed=True)  # fmt: skip
    assert asked.rows == 5000


def test_a_few_huge_geometries_do_not_make_all_batches_small() -> None:
    """Twenty thousand small rows and three of 15 MiB: batches stay as long as the small ones would have them."""
    layer = _facts("ESRI Shapefile", 20_003, 2500, 15 * MIB, ((10_000, 46 * MIB), (5000, 46 * MIB), (2500, 46 * MIB)))
    assert _fit(layer, "GPKG", 2048 * MIB).rows == 5000


def test_the_margin_is_a_term() -> None:
    """The host's margin is added once, by its name."""
    plan = fit(
        _facts("GPKG", 10, 100, 100),
        sink="GPKG",
        measures_area=False,
        baseline_bytes=BASELINE,
        budget_bytes=1024 * MIB,
        most_rows=10,
        margin_bytes=7 * MIB,
    )
    assert plan.terms["margin"] == 7 * MIB


@given(layer=facts, sink=sinks, margin=st.sampled_from([0, 20 * MIB]))
def test_the_knob_that_lowers_the_peak_keeps_its_promise(layer: LayerFacts, sink: str, margin: int) -> None:
    """`lower_by` names one setting; with it set, the planner saves what was promised."""
    asked = {
        "sink": sink, "measures_area": True, "baseline_bytes": BASELINE, "most_rows": 10000, "margin_bytes": margin,
    }  # fmt: skip
    plan = fit(layer, budget_bytes=4096 * MIB, **asked)
    knob, _, saved = lower_by(layer, plan, **asked).partition(" saves ")
    if not knob:
        return
    name, _, value = knob.partition(" ")
    changes = {"chunk_rows": {"most_rows": int(value) if value.isdigit() else 0, "rows_fixed": True},
               "margin_mb": {"margin_bytes": 0}, "writing": {"sink": "GPKG"}}  # fmt: skip
    changed = fit(layer, **(asked | {"budget_bytes": plan.projected_bytes} | changes[name]))
    assert format_bytes(plan.projected_bytes - changed.projected_bytes) == saved
