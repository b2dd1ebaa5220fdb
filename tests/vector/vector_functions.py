"""Functions as a user would write them for `--function`; each is given a batch."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa


def _numbers(batch: Any) -> Any:
    name = "n" if "n" in batch.schema.names else "a"
    return batch.column(batch.schema.get_field_index(name)).to_numpy()


def odd_rows(batch: Any) -> Any:
    """A NumPy mask."""
    return _numbers(batch) % 2 == 1


def odd_rows_as_arrow(batch: Any) -> Any:
    """An Arrow mask, null where even."""
    return pa.array([bool(odd) or None for odd in odd_rows(batch)])


def odd_rows_as_batch(batch: Any) -> Any:
    """A filtered batch."""
    return batch.filter(pa.array(odd_rows(batch)))


def odd_rows_as_table(batch: Any) -> Any:
    """A filtered table."""
    return pa.Table.from_batches([batch]).filter(pa.array(odd_rows(batch)))


def raises(batch: Any) -> Any:
    """Divides by zero."""
    return batch.num_rows // 0


def returns_numbers(batch: Any) -> Any:
    """Numbers instead of a mask."""
    return np.arange(batch.num_rows)


def returns_too_few(batch: Any) -> Any:
    """A mask that is one row short."""
    return np.ones(batch.num_rows - 1, bool)


def drops_a_column(batch: Any) -> Any:
    """Rows of another schema."""
    return batch.drop_columns(["n"])


def exhausts_memory(batch: Any) -> Any:
    """As an allocation over the cap does."""
    raise MemoryError


def has_no_room(batch: Any) -> Any:
    """As a mapping over the cap does."""
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def exits(batch: Any) -> Any:
    """As a script does."""
    raise SystemExit(3)


def odd_numbers(batch: Any) -> Any:
    """A NumPy mask, of a column of any integer type."""
    return np.asarray(batch.column("n").to_pylist()) % 2 == 1


def lists_modules(batch: Any) -> Any:
    """All rows; writes down what is imported."""
    Path(os.environ["SWATH_TEST_MODULES"]).write_text("\n".join(sys.modules))
    return np.ones(batch.num_rows, bool)


def odd_frame(frame: Any) -> Any:
    """Odd rows, their geometries half as large, with another name and two fields more."""
    frame = frame[frame["n"] % 2 == 1].copy()
    frame["name"] = frame["name"].str.upper()
    frame["double"] = frame["n"] * 2
    frame["perimeter"] = frame.geometry.length.to_numpy()
    frame.geometry = frame.geometry.scale(0.5, 0.5)
    return frame


odd_frame.frame = True
odd_frame.fields = {"double": "int64", "perimeter": "float64"}


def same_frame(frame: Any) -> Any:
    """What it is given."""
    return frame


same_frame.frame = True


def points(frame: Any) -> Any:
    """Of another type, as is declared."""
    frame.geometry = frame.geometry.representative_point()
    return frame


points.frame, points.geometry_type = True, "Point"


def _wrong(change: Any, **declared: Any) -> Any:
    def function(frame: Any) -> Any:
        return change(frame)

    vars(function).update(declared, frame=True)
    return function


frame_mask = _wrong(lambda frame: frame.n > 1)
frame_twice = _wrong(lambda frame: frame.loc[[*frame.index, *frame.index]])
frame_less = _wrong(lambda frame: frame.drop(columns="name"))
frame_more = _wrong(lambda frame: frame.assign(more=1))
frame_text = _wrong(lambda frame: frame.assign(n="many"))
frame_fraction = _wrong(lambda frame: frame.assign(n=1.5))
frame_crs = _wrong(lambda frame: frame.to_crs("EPSG:3857"))
frame_points = _wrong(lambda frame: frame.set_geometry(frame.geometry.centroid.rename("geom"), drop=True))
declares_a_list = _wrong(lambda frame: frame, fields={"more": "list"})
declares_a_curve = _wrong(lambda frame: frame, geometry_type="Curve")
