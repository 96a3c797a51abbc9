"""Two-dimensional position embeddings of log-mel patches."""

import numpy as np
from jaxtyping import Float


def sincos_positions(rows: int, columns: int, width: int) -> Float[np.ndarray, "1 P D"]:
    """Return zeros for the class token, then sine-cosine embeddings of a grid of patches.

    Patches are ordered by row (frequency), then column (time). The first half of an embedding
    encodes the column, the second half the row, each as [sin | cos]. Embeddings are computed in
    float64, as published (`get_2d_sincos_pos_embed`), and returned in float32.
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
    """Cut or extend a table of position embeddings along time to `columns` columns of patches.

    New columns get the values of `sincos_positions`. The result has Q = 1 + rows * columns entries.
    """
    width = table.shape[-1]
    old = table[:, 1:].reshape(1, rows, -1, width)[:, :, :columns]
    grid = sincos_positions(rows, columns, width)[:, 1:].reshape(1, rows, columns, width).copy()
    grid[:, :, : old.shape[2]] = old
    return np.concatenate([table[:, :1], grid.reshape(1, rows * columns, width)], axis=1)
