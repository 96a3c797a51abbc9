"""A built question, and how lists and shards write it."""

from typing import Any, NamedTuple

from tinymu_jax.data.annotations.clip import AnnotatedClip

RULE, WRITER = "rule", "language model"


class QAItem(NamedTuple):
    """A question about a clip with its answer."""

    clip: AnnotatedClip
    task: str
    """One of MusicSkills' four: see `tinymu_jax.data.synthetic.questions`."""
    prompt: str
    answer: str
    category: str = ""
    """What it is about; "" of captions."""
    tags: tuple[str, ...] = ()
    """The tags that it is about: of yes or no the one asked for, else those of the answer."""
    options: tuple[str, ...] = ()
    """Of multiple choice, their texts in the order of the letters."""
    kinds: tuple[str, ...] = ()
    """Of each option: "right", "near", "far", "off the question"."""
    evidence: str = ""
    """Of a "no": "denied", "exhaustive", "other branch"."""
    by: str = RULE
    """`RULE`, or `WRITER`."""
    key: int = 0
    """What it is chosen by where there are more than wanted: the smallest stay."""

    def to_record(self) -> dict[str, Any]:
        """Returns MusicSkills' five keys, and more that its loader does not read."""
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
        named = {
            "start": clip.start,
            "end": clip.end,
            "artist": clip.artist,
            "category": self.category,
            "tags": list(self.tags),
            "options": list(self.options),
            "kinds": list(self.kinds),
            "evidence": self.evidence,
        }
        return record | {key: value for key, value in named.items() if value not in (None, "", [])}
