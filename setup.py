"""Adds the configs of the clone to the wheel, as `tinymu_jax.configs`; all else is in pyproject."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["tinymu_jax*"]), "tinymu_jax.configs"],
    package_dir={"tinymu_jax.configs": "configs"},
)
