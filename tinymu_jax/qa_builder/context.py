"""Defines the data that all steps of a build use."""

from collections.abc import Callable
from typing import NamedTuple

from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.questions.templates import Templates
from tinymu_jax.qa_builder.tags.vocabulary import Vocabulary


class BuildContext(NamedTuple):
    """The vocabulary, templates, token counter and settings of a build."""

    vocabulary: Vocabulary
    templates: Templates
    count_tokens: Callable[[str], int] | None
    """Returns the number of tokens of a text; None: the lengths of texts are not checked."""
    config: BuildConfig
