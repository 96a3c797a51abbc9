"""Prints how long the published fine-tuning takes from one GPU to a pod, by config.

    python launch/machine_table.py                  the README's table; needs libtpu, as
                                                    compile_for_pod.py does (minutes)
    python launch/machine_table.py --only T4        rows whose machine has this in its name

TPU rows are compiled and stand for the chips' peak rates; GPU rows are estimates. A real run is
slower than the former, and may be either side of the latter.
"""

import argparse
from collections.abc import Sequence

from tinymu_jax.errors import InputError, one_line_errors


def run(only: str) -> None:
    """Prints the table of the machines with this in their names."""
    from tinymu_jax.training.aot.compile import prepare_machine
    from tinymu_jax.training.aot.machines import MACHINES, plan, table

    wanted = [one for one in MACHINES if only in one.sold_as]
    if not wanted:
        names = ", ".join(one.sold_as for one in MACHINES)
        raise InputError(f"--only {only}: no such machine; there are {names}")
    if any(":" in one.device for one in wanted):
        prepare_machine()
    print(table([plan(one) for one in wanted]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the options and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of a machine's name")
    args = parser.parse_args(arguments)
    with one_line_errors():
        run(args.only)


if __name__ == "__main__":
    main()
