"""Only reading the batches that a filter would read: `python read_arrow.py SOURCE`; prints the number of rows."""

import sys

from pyogrio.raw import open_arrow


def main(source):
    """Read all of `source`."""
    with open_arrow(source, batch_size=8192, use_pyarrow=True) as (_, batches):
        print(sum(batch.num_rows for batch in batches))


if __name__ == "__main__":
    main(*sys.argv[1:])
