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


def resize_positions(
    table: Float[np.ndarray, "1 P D"], rows: int, columns: int
) -> Float[np.ndarray, "1 Q D"]:
    """Returns a table for another number of columns: those past the end are cut.

    Those that are missing are the sine-cosine ones; a column's do not depend on how many there are.
    """
    own = table[:, 1:].reshape(1, rows, -1, table.shape[-1])[:, :, :columns]
    made = sincos_positions(rows, columns, table.shape[-1])
    grid = made[:, 1:].reshape(1, rows, columns, -1).copy()
    grid[:, :, : own.shape[2]] = own
    return np.concatenate([table[:, :1], grid.reshape(1, rows * columns, -1)], axis=1)
