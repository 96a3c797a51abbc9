"""How a set is built, as a frozen dataclass."""

from dataclasses import dataclass

from tinymu_jax.errors import InputError
from tinymu_jax.utils.config_base import ConfigBase


@dataclass(frozen=True)
class BuildConfig(ConfigBase):
    """What is asked, how often, and what is left out."""

    seed: int = 0
    """Of every choice; the same files and settings give the same lists, byte for byte."""
    least: int = 20
    """A label that fewer clips have is not asked about, where a source has free words (MusicCaps:
    470 of its 13,219 aspects have 20)."""
    yes_a_clip: int = 4
    """Questions to be answered by yes that a clip gives at most."""
    open_a_clip: int = 3
    """Open questions of a clip at most."""
    choices_a_clip: int = 8
    """Multiple choice of a clip at most."""
    captions_a_clip: int = 5
    """Captions of a clip at most."""
    per_tag: float = 1.3
    """How often a tag may be right in multiple choice, in times of the mean tag: one that is right
    much more often than others needs no listening."""
    per_answer: float = 2.0
    """Percent of open questions that may have one answer, and of yes or no about one tag."""
    mix: tuple[float, float, float, float] = (16.0, 31.0, 36.0, 18.0)
    """Parts of captions, open questions, multiple choice, yes or no; as published. All zero: all
    that there are."""
    size: int = 0
    """Questions in all; 0: as many as the mix allows."""
    max_tokens: int = 129
    """A prompt or an answer of more is dropped: the published model would cut it."""

    def check(self) -> None:
        """Refuses what cannot be built.

        Raises:
            InputError: a field out of its range; the message names it.
        """
        counts = ("yes_a_clip", "open_a_clip", "choices_a_clip", "captions_a_clip")
        for name in (*counts, "seed", "size"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: give 0 or more")
        for name in ("least", "max_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give 1 or more")
        if self.per_tag < 1:
            raise InputError(f"per_tag is {self.per_tag}: give 1 or more")
        if not 0 < self.per_answer <= 100:
            raise InputError(f"per_answer is {self.per_answer}: give percent, above 0 to 100")
        if min(self.mix) < 0:
            raise InputError(f"mix is {self.mix}: give four parts of 0 or more")
