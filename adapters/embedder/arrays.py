"""The arrays that pass between decoding and a model.

Separate from the ports, so that a process that handles no images need not load NumPy.
"""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""RGB pixels, uint8, shape [N, height, width, 3] (or [height, width, 3] for one image)."""

Vectors = NDArray[np.float32]
"""Embeddings of unit length, float32, shape [N, dimension]."""
