"""Print how long the published fine-tuning takes on machines from one GPU to a TPU pod.

    python launch/machine_table.py              all machines; takes minutes and needs libtpu, like
                                                compile_for_pod.py
    python launch/machine_table.py --only T4    machines with T4 in their names

TPU rows are compiled and assume the chips' peak rates: a real run is slower. GPU rows are
estimates: a real run may be slower or faster.
"""

import argparse
from collections.abc import Sequence

from tinymu_jax.errors import InputError, one_line_errors


def run(only: str) -> None:
    """Print the table of all machines whose names contain `only`."""
    from tinymu_jax.training.aot.compile import prepare_machine
    from tinymu_jax.training.aot.machines import MACHINES, forecast_machine, table

    machines = [machine for machine in MACHINES if only in machine.sold_as]
    if not machines:
        names = ", ".join(machine.sold_as for machine in MACHINES)
        raise InputError(f"--only {only}: no such machine; there are {names}")
    if any(":" in machine.device for machine in machines):
        prepare_machine()
    print(table([forecast_machine(machine) for machine in machines]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and print the table of machines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of a machine's name")
    args = parser.parse_args(arguments)
    with one_line_errors():
        run(args.only)


if __name__ == "__main__":
    main()
