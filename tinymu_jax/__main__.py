"""`python -m tinymu_jax` is the `tinymu` command."""

from tinymu_jax.cli.main import main

if __name__ == "__main__":
    main()
