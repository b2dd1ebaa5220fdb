"""Where a raster lies: CRS, transform or ground control points, and shape. Frozen; windows are on the output's grid."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Grid:
    """A raster's place.

    Attributes:
        shape: `(height, width)` in pixels.
        crs: rasterio's CRS; None where it has none.
        transform: affine, pixels to CRS; None where there is none, or ground control points take its place.
        points: ground control points.
    """

    shape: tuple[int, int]
    crs: Any = None
    transform: Any = None
    points: tuple[Any, ...] = ()

    @classmethod
    def of(cls, dataset: Any) -> "Grid":
        """The grid of an open rasterio dataset."""
        points, points_crs = dataset.gcps
        placed = not points and not dataset.transform.is_identity
        return cls(
            shape=(dataset.height, dataset.width),
            crs=(points_crs if points else dataset.crs) or None,
            transform=dataset.transform if placed else None,
            points=tuple(points),
        )

    def profile(self) -> dict[str, Any]:
        """What `rasterio.open(..., "w")` takes of it."""
        found: dict[str, Any] = {"height": self.shape[0], "width": self.shape[1]}
        if self.crs:
            found["crs"] = self.crs
        if self.points:
            found["gcps"] = list(self.points)
        elif self.transform is not None:
            found["transform"] = self.transform
        return found

    def describe(self) -> dict[str, Any]:
        """The grid as a plan's `expected` has it, JSON-able."""
        return {
            "height": self.shape[0],
            "width": self.shape[1],
            "crs": self.crs.to_wkt() if self.crs else None,
            "transform": list(self.transform)[:6] if self.transform is not None else None,
            "gcps": len(self.points),
        }
