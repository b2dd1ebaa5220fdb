"""What a driver is asked for beforehand: never fewer rows than a filter keeps, since the filter's step decides again.

Only where the rows that it has to give can be counted by another way than its own: what it drops must not hide what it loses.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lib.vector.sources import flatgeobuf, sqlite
from lib.vector.sources.facts import Box, LayerFacts, Wish

# SQLite fetches a row by its id at some five times the price of the next one in line; a FlatGeobuf's reader seeks, too
# (lib/MEASURED.md, "What a driver is asked").
_MOST_SHARE = {"GPKG": 0.2, "FlatGeobuf": 0.5}
# Beyond the single precision of a GeoPackage's index, which is rounded outwards anyway.
_SLACK = 1e-12


@dataclass(frozen=True, slots=True)
class Pushed:
    """What the driver is asked.

    Attributes:
        where: SQL, of a GeoPackage.
        box: of a FlatGeobuf.
        least: features that it gives at least, where they were counted.
        most: features that it gives at most, likewise.
    """

    where: str = ""
    box: Box | None = None
    least: int | None = None
    most: int | None = None

    def __bool__(self) -> bool:
        return bool(self.where or self.box)

    @property
    def options(self) -> dict[str, Any]:
        """As `ogr.open_batches` takes it."""
        return {"where": self.where or None, "bbox": self.box}


class Answer(NamedTuple):
    """What became of a wish: what is pushed now, and in which words that is told."""

    pushed: Pushed
    words: str


def asked_for(wish: Wish, facts: LayerFacts, path: Path, pushed: Pushed) -> Answer:
    """What is pushed when a wish comes to what was pushed before."""
    if not path.is_file() or facts.driver not in _MOST_SHARE:
        return Answer(pushed, f"evaluated: {facts.driver} has nothing to ask that could be counted independently")
    if facts.driver == "GPKG" and not isinstance(path, Path):
        return Answer(pushed, "evaluated: only GDAL's SQLite can ask a database that is packed or on a server")
    if facts.driver == "FlatGeobuf":
        return _of_flatgeobuf(wish, facts, path, pushed)
    return _by_box(wish.box, facts, path, pushed) if wish.box else _by_condition(wish, facts, path, pushed)


def _by_condition(wish: Wish, facts: LayerFacts, path: Path, pushed: Pushed) -> Answer:
    from lib.vector.predicates.sql import asked

    assert wish.condition is not None  # noqa: S101 - for mypy: a wish has one of both
    sql, parts, of = asked(wish.condition, sqlite.columns(path, facts.layer))
    if not sql or not sqlite.takes(path, facts.layer, sql):
        return Answer(pushed, "evaluated: SQLite sees other values than OGR gives, or takes no such condition")
    words = "all of it" if parts == of else f"{parts} of {of} parts"
    where = f"{pushed.where} AND ({sql})" if pushed.where else f"({sql})"
    return Answer(Pushed(where, pushed.box), f"pushed: SQLite is asked {words}, and the batch decides")


def _by_box(box: Box, facts: LayerFacts, path: Path, pushed: Pushed) -> Answer:
    sql = sqlite.box_condition(path, facts.layer, facts.geometry_name or "", facts.fid_column, _wider(box))
    if sql is None:
        return Answer(pushed, "evaluated: the layer has no spatial index, or one that lacks geometries")
    found = sqlite.indexed(path, sql)
    if (told := _is_too_much(found, facts)) is not None:
        return Answer(pushed, told)
    where = f"{pushed.where} AND {sql}" if pushed.where else sql
    words = f"pushed: the index has {found} envelopes in the box, and the batch decides"
    return Answer(Pushed(where, pushed.box), words)


def _of_flatgeobuf(wish: Wish, facts: LayerFacts, path: Path, pushed: Pushed) -> Answer:
    if wish.box is None:
        return Answer(
            pushed, "evaluated: OGR's own SQL compares texts whatever their case, and reads every feature all the same"
        )
    if pushed.box is not None:
        return Answer(pushed, "evaluated: another box is pushed")
    counted = flatgeobuf.in_box(path, facts.label, wish.box)
    if counted is None:
        return Answer(pushed, "evaluated: the file has no spatial index")
    within, meeting = counted
    if (told := _is_too_much(meeting, facts)) is not None:
        return Answer(pushed, told)
    words = f"pushed: the index has {meeting} envelopes in the box, and the batch decides"
    return Answer(Pushed(pushed.where, wish.box, within, meeting), words)


def _is_too_much(found: int, facts: LayerFacts) -> str | None:
    """Why the index is not asked, where it would give too many rows one by one."""
    share = found / max(facts.features, 1)
    if share <= _MOST_SHARE[facts.driver]:
        return None
    return f"evaluated: the box has {min(share, 1):.0%} of the envelopes, and to read all of them in line is faster"


def _wider(box: Box) -> Box:
    left, low, right, high = box
    most = max(map(abs, box)) * _SLACK
    return left - most, low - most, right + most, high + most
