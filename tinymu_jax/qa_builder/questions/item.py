"""A question about a clip, and its conversion to a MusicSkills record."""

from typing import Any, NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip

RULE, WRITER = "rule", "language model"
YES, NO = "Yes.", "No."


class QAItem(NamedTuple):
    """A question about a clip with its answer."""

    clip: AnnotatedClip
    task: str
    """Question format, one of the names in `tinymu_jax.data.question_formats`."""
    prompt: str
    answer: str
    category: str = ""
    """Category of `tags`; "" for captions."""
    tags: tuple[str, ...] = ()
    """Name of the tag that a yes/no question asks about, else names of the tags in the answer."""
    options: tuple[str, ...] = ()
    """Option texts of a multiple-choice question, in the order of the letters."""
    kinds: tuple[str, ...] = ()
    """Kind of each option; see `tinymu_jax.qa_builder.questions.multiple_choice`."""
    evidence: str = ""
    """Evidence for the answer "No."; see `tinymu_jax.qa_builder.questions.negatives`."""
    by: str = RULE
    """Author of the question: `RULE` or `WRITER`."""
    key: int = 0
    """Hash by which questions are selected: the smallest keys are kept."""

    @property
    def clip_id(self) -> tuple[str, str]:
        """Return the data set and identifier of the clip."""
        return self.clip.source, self.clip.clip

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Return data set, clip, prompt and answer, which exact duplicates share."""
        return (*self.clip_id, self.prompt, self.answer)

    def to_record(self) -> dict[str, Any]:
        """Return a MusicSkills record of the question, with extra keys that loaders ignore."""
        clip = self.clip
        record: dict[str, Any] = {
            "file_name": clip.file,
            "input_text": self.prompt,
            "target_text": self.answer,
            "dataset": clip.source,
            "task": self.task,
            "clip": clip.clip,
            "by": self.by,
        }
        optional = {
            "start": clip.start,
            "end": clip.end,
            "artist": clip.artist,
            "category": self.category,
            "tags": list(self.tags),
            "options": list(self.options),
            "kinds": list(self.kinds),
            "evidence": self.evidence,
        }
        return record | {key: v for key, v in optional.items() if v not in (None, "", [])}
