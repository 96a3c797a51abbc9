"""Where a patch is, as a table that is added to its vector."""

import numpy as np
from jaxtyping import Float


def sincos_positions(rows: int, columns: int, width: int) -> Float[np.ndarray, "1 P D"]:
    """Returns the 2-D sine-cosine position embedding, class row first (zeros).

    Made in float64 as published: the first half of the width encodes the column (time), the
    second the row (frequency), each as [sin | cos] (`get_2d_sincos_pos_embed`).
    """
    omega = 1.0 / 10_000 ** (np.arange(width // 4) / (width / 4))

    def encode(positions: np.ndarray) -> np.ndarray:
        angles = positions.reshape(-1, 1) * omega
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    table = np.concatenate([encode(column), encode(row)], axis=1)
    return np.concatenate([np.zeros((1, width)), table])[None].astype(np.float32)
