"""Convert a checkpoint to a PyTorch file: python -m conversion.to_torch CHECKPOINT tinymu.pt."""

import tyro

from tinymu_jax.cli.convert import ToTorch
from tinymu_jax.cli.paths import expand_home
from tinymu_jax.errors import one_line_errors


def main() -> None:
    """Run `tinymu convert to-torch` with the script's arguments, and exit."""
    with one_line_errors():
        raise SystemExit(expand_home(tyro.cli(ToTorch, prog="python -m conversion.to_torch")).run())


if __name__ == "__main__":
    main()
