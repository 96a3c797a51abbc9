"""The formats by name, and how captions are written in all of them."""

import re
from dataclasses import dataclass
from typing import Literal

from tinymu_jax.errors import InputError

Format = Literal["jsonl", "csv", "parquet", "txt", "acestep", "musicgen", "webdataset"]
TriggerPlace = Literal["before", "after", "instead"]
GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class FormatOptions:
    """How descriptions are written."""

    trigger: str = ""
    """Trigger word that each caption gets, by which a trained generator is asked for this style."""
    trigger_place: TriggerPlace = "before"
    """Whether the trigger word is put before the caption, after it, or instead of it."""
    fields: tuple[str, ...] = ()
    """Names of the fields, in the order of the columns of a table."""
    shard_bytes: int = GIGABYTE
    """Size, in bytes, that a webdataset's tar files do not exceed with more than one recording."""

    def __post_init__(self) -> None:
        """Raise `InputError` if an option is of no use."""
        if self.trigger_place != "before" and not self.trigger.strip():
            raise InputError(f"trigger place {self.trigger_place}: there is no trigger; give one")
        if self.shard_bytes < 1:
            raise InputError(f"shard size {self.shard_bytes}: give 1 byte or more")


def caption_text(caption: str | None, options: FormatOptions) -> str | None:
    """Return a caption in one line, with the trigger word; None if there is neither.

    Trainers read each line of a caption file as a caption (SimpleTuner's documentation/
    DATALOADER.md, "caption_strategy"), and ACE-Step 1.5 joins a tag and a caption by a comma.
    """
    text, trigger = one_line(caption or ""), one_line(options.trigger)
    after = (text.removesuffix(".") if trigger else text, trigger)
    parts = {"before": (trigger, text), "after": after, "instead": (trigger,)}
    return ", ".join(filter(None, parts[options.trigger_place])) or None


def one_line(text: str) -> str:
    """Return a text with each run of white space, line breaks among them, as one space."""
    return re.sub(r"\s+", " ", text).strip()
