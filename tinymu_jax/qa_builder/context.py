"""What the steps of a build share."""

from collections.abc import Callable
from typing import NamedTuple

from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.questions.templates import Templates
from tinymu_jax.qa_builder.tags.vocabulary import Vocabulary


class BuildContext(NamedTuple):
    """Vocabulary, templates and settings."""

    vocabulary: Vocabulary
    templates: Templates
    count_tokens: Callable[[str], int] | None
    """None: lengths are not checked."""
    config: BuildConfig
