"""Settings of the build of a question-answer set."""

from dataclasses import dataclass

from tinymu_jax.errors import InputError
from tinymu_jax.utils.config_base import ConfigBase


@dataclass(frozen=True)
class BuildConfig(ConfigBase):
    """Settings of a build: limits per clip and answer, size, and mix of question formats."""

    seed: int = 0
    """Random seed. The same source files and settings give the same lists, byte for byte."""
    min_clips_per_label: int = 20
    """Free-text labels (MusicCaps) that occur in fewer clips than this number are ignored."""
    max_yes_per_clip: int = 4
    """Maximum number of yes/no questions per clip whose answer is yes."""
    max_open_per_clip: int = 3
    """Maximum number of open questions per clip."""
    max_choices_per_clip: int = 8
    """Maximum number of multiple-choice questions per clip."""
    max_captions_per_clip: int = 5
    """Maximum number of captions per clip."""
    max_tag_ratio: float = 1.3
    """Maximum number of multiple-choice questions in which one tag is the right option, as a
    multiple of the mean over tags. A tag that is right too often can be guessed without audio."""
    max_answer_percent: float = 2.0
    """Maximum percentage of open questions with the same answer (yes/no: about the same tag)."""
    mix: tuple[float, float, float, float] = (16.0, 31.0, 36.0, 18.0)
    """Relative shares of captions, open, multiple-choice and yes/no questions; the default is the
    mix of MusicSkills. All zeros: keep every question."""
    size: int = 0
    """Maximum total number of questions, if a mix is given. 0: as many as the mix allows."""
    max_tokens: int = 129
    """Maximum number of tokens of a prompt or an answer, as in the published model. Questions with
    longer texts are dropped."""

    def check(self) -> None:
        """Raise `InputError` if a setting is out of its range; the message names the setting."""
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
