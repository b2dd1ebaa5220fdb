"""`warp`: pixels as the source on another grid has them (`sources/warped.py`). What is beyond the source is nodata."""

from dataclasses import replace

from lib.operations import Copy, Warp
from lib.raster.operations.verbatim import Verbatim
from lib.raster.sources.dataset import RasterSource

# Values among those that were there; others lie between them.
_PICKS = frozenset({"nearest", "mode"})
# Values of another kind: a sum depends on how many pixels there were, and squares know no offset.
_OTHERS = frozenset({"sum", "rms"})


class Moved(Verbatim):
    """Gives back what was read."""

    def __init__(self, model: Warp, source: RasterSource, nodata: float | None) -> None:
        super().__init__(Copy(), source, nodata)
        self.outputs = replace(
            self.outputs,
            keeps_colours=model.resampling in _PICKS,
            line=None if model.resampling in _OTHERS else self.outputs.line,
        )
