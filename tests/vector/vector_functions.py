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
