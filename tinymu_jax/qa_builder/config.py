"""Settings of a build."""

from dataclasses import dataclass

from tinymu_jax.errors import InputError
from tinymu_jax.utils.config_base import ConfigBase


@dataclass(frozen=True)
class BuildConfig(ConfigBase):
    """Settings of a build: caps, balance, size and mix of formats."""

    seed: int = 0
    """Random seed. The same files and settings give the same lists, byte for byte."""
    min_clips_per_label: int = 20
    """Labels of free-text sources (MusicCaps) that occur in fewer clips are ignored. 470 of the
    13,219 MusicCaps aspects occur in 20 or more."""
    max_yes_per_clip: int = 4
    """Maximum number of yes/no questions per clip whose answer is yes."""
    max_open_per_clip: int = 3
    """Maximum number of open questions per clip."""
    max_choices_per_clip: int = 8
    """Maximum number of multiple-choice questions per clip."""
    max_captions_per_clip: int = 5
    """Maximum number of captions per clip."""
    max_tag_ratio: float = 1.3
    """Maximum ratio between how often one tag is the right option and the mean over tags. A tag
    that is right far more often than others can be guessed without audio."""
    max_answer_percent: float = 2.0
    """Maximum percentage of open questions with the same answer, and of yes/no questions about the
    same tag."""
    mix: tuple[float, float, float, float] = (16.0, 31.0, 36.0, 18.0)
    """Relative shares of captions, open, multiple-choice and yes/no questions (default: those of
    MusicSkills). All zeros: keep every question."""
    size: int = 0
    """Total number of questions. 0: as many as the mix allows."""
    max_tokens: int = 129
    """Maximum length of a prompt or an answer in tokens. Longer ones are dropped, because the
    published model would truncate them."""

    def check(self) -> None:
        """Validates the settings.

        Raises:
            InputError: a field is out of range; the message names it.
        """
        at_least_one = ("min_clips_per_label", "max_tokens", "max_tag_ratio")
        for name, value in self.to_dict().items():
            minimum = 1 if name in at_least_one else 0
            if name != "mix" and value < minimum:
                raise InputError(f"{name} is {value}: give {minimum} or more")
        if not 0 < self.max_answer_percent <= 100:
            raise InputError(
                f"max_answer_percent is {self.max_answer_percent}: give a percentage above 0 and "
                "up to 100"
            )
        if min(self.mix) < 0:
            raise InputError(f"mix is {self.mix}: give four shares of 0 or more")
