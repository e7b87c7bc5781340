"""The unit cells that coverage counts."""

import numpy as np


def count_cells(positions: np.ndarray) -> int:
    """Distinct 1 m cells, floor(position), of positions (points, p)."""
    if not positions.size:
        return 0
    cells = np.floor(positions).astype(np.int64)
    low = cells.min(axis=0)
    extent = cells.max(axis=0) - low + 1
    if np.prod(extent.astype(float)) > 2**31:  # Too far apart to be numbered.
        return len(np.unique(cells, axis=0))
    return len(np.unique(np.ravel_multi_index(tuple((cells - low).T), tuple(extent))))  # A third of the time.
