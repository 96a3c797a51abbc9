"""Convert a checkpoint to a PyTorch file: python -m conversion.to_torch CHECKPOINT tinymu.pt.

The script runs `tinymu convert to-torch`.
"""

import tyro

from tinymu_jax.cli.convert import ToTorch
from tinymu_jax.errors import one_line_errors


def main() -> None:
    """Runs `tinymu convert to-torch` with the script's arguments, and exits."""
    with one_line_errors():
        raise SystemExit(tyro.cli(ToTorch, prog="python -m conversion.to_torch").run())


if __name__ == "__main__":
    main()
