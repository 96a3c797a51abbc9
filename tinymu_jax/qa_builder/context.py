"""Inputs that all steps of a build share."""

from collections.abc import Callable
from typing import NamedTuple

from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.questions.templates import Templates
from tinymu_jax.qa_builder.tags.vocabulary import Vocabulary


class BuildContext(NamedTuple):
    """Vocabulary, question templates, token counter and settings of a build."""

    vocabulary: Vocabulary
    templates: Templates
    count_tokens: Callable[[str], int] | None
    """Function that counts the tokens of a text; None: text lengths are not checked."""
    config: BuildConfig
