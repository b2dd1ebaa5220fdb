"""What is known of a layer before it is read: header facts, and sizes of its features. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lib.vector.predicates.tree import Condition

Box = tuple[float, float, float, float]
# From one number of rows to the next that is tried; a batch's bytes are known for these.
_STEP = 4
_UNKNOWN_MEAN_BYTES = 1024
# Measured of 1.1 million: 46 to 52.
GEOJSON_ID_BYTES = 52
# By which way a driver's rows come; of those that are not named OGR asks the driver for one feature after the other.
_SAFE = "one feature after the other, in batches that OGR makes of them"
_READ_BY = {
    "Parquet": "Arrow: row groups by pyarrow, as pyogrio's GDAL has no driver for Parquet",
    "GPKG": "Arrow: the driver's own batches",
    "FlatGeobuf": "Arrow: the driver's own batches, without a limit in bytes, on which it loses rows",
    "GML": f"{_SAFE}; layer by layer (GML_READ_MODE), as the other ways pass over features",
}


class InTable(NamedTuple):
    """What a table has that OGR does not show.

    Attributes:
        rows: all, or those for which the condition holds that the driver is asked.
        geometries: those of them whose geometry is not NULL, whether it decodes or not.
        texts: columns of numbers in which a row has text or a blob, which OGR reads as 0, and the first such row's id.
    """

    rows: int
    geometries: int
    texts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the largest feature is: by its number in file order, or by its feature id where the format finds that quickly."""

    row: int = 0
    fid: int | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """Rows that a step may keep: those of which a condition is true, or whose envelopes meet a box in the layer's CRS."""

    condition: "Condition | None" = None
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """What a job says of its source beyond what the file says.

    Attributes:
        encoding: of text that it does not declare.
        crs: of a layer that has none.
        checks_text: whether text has to be UTF-8 in the end.
        skips_bad: whether rows that are bad are left out.
    """

    encoding: str | None = None
    crs: str | None = None
    checks_text: bool = True
    skips_bad: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of features' sizes, bytes of WKB and attributes as the format holds them.

    Attributes:
        mean_bytes: mean of a feature; 0 where not known.
        largest_bytes: the largest feature that a bounded look has found; 0 where not known.
        total_bytes: of all features together, at least; 0 where not known.
        count: features by the format's own index; -1 where it has none that is sure.
        place: where the largest one is.
        runs: `(rows, bytes, first row)` of the largest batch of so many rows, for the rows asked for, a quarter of them and so
            on; empty where not known.
    """

    mean_bytes: int
    largest_bytes: int = 0
    total_bytes: int = 0
    count: int = -1
    place: Place | None = None
    runs: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """A layer as its header describes it.

    Attributes:
        source: the dataset's path, or its name among GDAL's virtual files.
        label: its base name, for messages.
        driver: OGR's short name.
        layer: the layer's name.
        fields: names, in order.
        field_types: OGR types with subtypes, `OFTInteger:OFSTBoolean`, in order.
        geometry_type: as OGR names it; None for a table without geometries.
        geometry_name: name of the geometry column in the Arrow batches; None without geometries.
        fid_column: name of the column of feature ids; empty where there is none.
        crs: `EPSG:…` or WKT; None where there is none.
        features: features as the header counts them, or as far as that bounds them; -1 where nothing does.
        source_bytes: size of the dataset's files.
        sizes: what is known of the features' sizes.
        notes: what OGR warned of.
        metadata: what the layer says of itself, by key.
        has_ids: features have numbers that are no field, in a text.
        is_crs_assumed: the CRS is the job's word, not the file's.
        may_be_multi: a step makes multi types of some polygons or lines.
    """

    source: str
    label: str
    driver: str
    layer: str
    fields: tuple[str, ...]
    field_types: tuple[str, ...]
    geometry_type: str | None
    geometry_name: str | None
    fid_column: str
    crs: str | None
    features: int
    source_bytes: int
    sizes: Sizes
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    has_ids: bool = False
    is_crs_assumed: bool = False
    may_be_multi: bool = False

    @property
    def is_multi_unsure(self) -> bool:
        """Of single or multi is either: a Shapefile does not tell polygons from multipolygons, nor lines from multilines."""
        is_either = self.driver == "ESRI Shapefile" or self.may_be_multi
        return is_either and (self.geometry_type or "").startswith(("Polygon", "LineString"))

    @property
    def written_type(self) -> str | None:
        """The geometries' type as it is written: multi where of both there may be some."""
        return f"Multi{self.geometry_type}" if self.is_multi_unsure else self.geometry_type

    def at_most(self, rows: int) -> int:
        """So many rows, or all where there are fewer: OGR makes room in every column for as many as it is asked for."""
        return min(rows, max(self.features, 1)) if self.features >= 0 else rows

    def batch_bytes(self, rows: int) -> int:
        """Bytes of the largest batch of so many rows, as far as is known: by the format's index, else twice the mean."""
        for known_rows, known_bytes, _ in self.sizes.runs:
            if known_rows == rows:
                return known_bytes
        mean = self.sizes.mean_bytes or _UNKNOWN_MEAN_BYTES
        return max(2 * self.at_most(rows) * mean, self.sizes.largest_bytes)

    def place(self, rows: int) -> Place | None:
        """Where the largest batch of so many rows begins, or the largest feature is; None where that is not known."""
        return next((Place(first) for known, _, first in self.sizes.runs if known == rows), self.sizes.place)

    @property
    def growth_bytes(self) -> int:
        """What the driver holds more and more of: a GeoJSON's ids of the features that were read, so that none comes twice."""
        return max(self.features, 0) * GEOJSON_ID_BYTES if self.driver == "GeoJSON" else 0

    @property
    def reading(self) -> str:
        """By which way it is read, and what bounds a batch."""
        if self.driver == "Parquet":
            return "by pyarrow, in batches of so many rows as their bytes allow"
        more = "; OGR holds them to the bytes, too" if self.driver == "GPKG" else ", for OGR's own bound loses rows"
        return f"OGR's Arrow stream, in batches of so many rows as their bytes allow{more}"

    @property
    def shown(self) -> dict[str, Any]:
        """The facts that a reader of the plan wants to see."""
        return {
            "driver": self.driver,
            "reading": self.reading,
            "layer": self.layer,
            "features": self.features,
            "geometry_type": self.geometry_type,
            "crs": self.crs,
            "crs_assumed": self.is_crs_assumed,
            "fields": len(self.fields),
            "read_by": _READ_BY.get(self.driver, _SAFE),
            "source_bytes": self.source_bytes,
            "largest_feature_bytes": self.sizes.largest_bytes,
        }


def steps_of(rows: int) -> list[int]:
    """The numbers of rows that batches may have: so many, a quarter of them, and so on down to one."""
    steps = [rows]
    while steps[-1] > 1:
        steps.append(max(1, steps[-1] // _STEP))
    return steps


def sizes_of(blocks: Iterable[NDArray[np.int64]], rows: int, overhead: int) -> Sizes:
    """Sizes from every feature's own length, block by block in file order; `overhead` bytes are added to each.

    The runs are those of the batches themselves: of `rows` features, of a quarter of them, and so on.
    """
    runs = {step: _Runs(step) for step in steps_of(rows)}
    seen = total = 0
    for block in blocks:
        ends = np.concatenate([[0], np.cumsum(block + overhead)])
        for run in runs.values():
            run.add(seen, ends)
        seen += len(block)
        total += int(ends[-1])
    most = tuple((run.step, run.most, run.at) for run in runs.values())
    return Sizes(
        total // max(seen, 1) + 1,
        most[-1][1],
        total - seen * overhead,
        seen,
        Place(most[-1][2]) if seen else None,
        most,
    )


class _Runs:
    """The largest batch of `step` features so far, and where it begins."""

    def __init__(self, step: int) -> None:
        self.step, self.most, self.at = step, 0, 0
        self._open = 0

    def add(self, first: int, ends: NDArray[np.int64]) -> None:
        """Take a block in: features from number `first` on, their lengths summed up from 0."""
        starts = np.arange(-first % self.step, len(ends) - 1, self.step)
        bounds = ends[np.concatenate([starts, [len(ends) - 1]])]
        self._take(self._open + int(bounds[0]), first - first % self.step)
        if len(starts):
            sums = np.diff(bounds)
            largest = int(sums.argmax())
            self._take(int(sums[largest]), first + int(starts[largest]))
            self._open = int(sums[-1])
        else:
            self._open += int(bounds[0])

    def _take(self, size: int, at: int) -> None:
        if size > self.most:
            self.most, self.at = size, at
