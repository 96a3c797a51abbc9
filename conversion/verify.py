"""Compare two checkpoints on recordings: python -m conversion.verify A B recording.wav ..."""

import tyro

from tinymu_jax.cli.convert import Verify
from tinymu_jax.cli.paths import expand_home
from tinymu_jax.errors import one_line_errors


def main() -> None:
    """Run `tinymu convert verify` with the script's arguments, and exit."""
    with one_line_errors():
        raise SystemExit(expand_home(tyro.cli(Verify, prog="python -m conversion.verify")).run())


if __name__ == "__main__":
    main()
