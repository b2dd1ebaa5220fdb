"""The authalic latitude's q: Snyder, Map Projections: A Working Manual (USGS PP 1395), equation 3-12; its series in e² sin²φ."""

import numpy as np
from numpy.typing import NDArray

_SERIES_TERMS = 8


def half_authalic(sine: NDArray[np.float64], eccentricity_squared: float) -> NDArray[np.float64]:
    """Half of q(φ), (1-e²) sin φ Σ xᵏ (1 + 1/(2k+1)) / 2 with x = e² sin²φ; the area element is a² dλ d(q/2)."""
    x = sine * sine
    x *= eccentricity_squared
    total = np.full_like(x, (1 + 1 / (2 * _SERIES_TERMS + 1)) / 2)
    for k in range(_SERIES_TERMS - 1, -1, -1):
        total *= x
        total += (1 + 1 / (2 * k + 1)) / 2
    total *= sine
    total *= 1 - eccentricity_squared
    return total
