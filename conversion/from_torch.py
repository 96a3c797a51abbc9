"""Convert a PyTorch file to a checkpoint folder: python -m conversion.from_torch tinymu.pt OUT/."""

import tyro

from tinymu_jax.cli.convert import FromTorch
from tinymu_jax.cli.paths import expand_home
from tinymu_jax.errors import one_line_errors


def main() -> None:
    """Run `tinymu convert from-torch` with the script's arguments, and exit."""
    with one_line_errors():
        raise SystemExit(
            expand_home(tyro.cli(FromTorch, prog="python -m conversion.from_torch")).run()
        )


if __name__ == "__main__":
    main()
