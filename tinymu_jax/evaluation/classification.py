"""Zero-shot classification: which label is the most probable answer, having heard the recording.

Some labels are probable answers whatever is heard. What a label is worth without audio is taken off
(`tinymu_jax.scoring`): log P(label | audio, prompt) - log P(label | prompt).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinymu_jax.data.labelled import LabelledSet
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.asking import Asking, Reply
from tinymu_jax.evaluation.calibration import BINS
from tinymu_jax.evaluation.class_findings import class_findings
from tinymu_jax.evaluation.class_labels import label_words, recordings_to_test
from tinymu_jax.evaluation.class_marks import classify
from tinymu_jax.evaluation.findings import Findings
from tinymu_jax.evaluation.intervals import RESAMPLES
from tinymu_jax.evaluation.left_out import sort_replies

Put = Callable[[Sequence[Asking]], Sequence[Reply | InputError]]
PROMPTS = {
    "GTZAN": "What is the genre of this music?",
    "NSynth": "Which instrument is playing?",
    "Medley-Solos-DB": "Which instrument is playing?",
}
"""By the names of data sets."""
PROMPT = "What do you hear in this recording?"
"""Of other data sets."""
TASK = "Classification"


@dataclass(frozen=True)
class ClassificationConfig:
    """How recordings are classified."""

    prompt: str | None = None
    """None: one of `PROMPTS`."""
    words: str | None = None
    """Path of a csv of label,text that says how labels are called."""
    every_part: bool = False
    """Whether recordings of the other parts are classified too, not only those for the test."""
    bins: int = BINS
    """Of confidence, for the calibration error."""
    seed: int = 0
    """Of the intervals' resamples."""


def evaluate_classification(
    put: Put,
    found: LabelledSet,
    checkpoint: str,
    config: ClassificationConfig | None = None,
    settings: Mapping[str, str] | None = None,
) -> Findings:
    """Classifies the recordings of a data set's test part.

    Args:
        put: asks; an `InputError` in the place of a reply says that the recording is of no use. It
            is called once.
        found: the data set, each recording with one label: see `.class_labels`.
        checkpoint: what is evaluated.
        config: how they are classified.
        settings: more that the numbers depend on.

    Raises:
        InputError: no test part; labels that cannot be told apart; no bins; no recording could be
            classified.
    """
    config = config or ClassificationConfig()
    if config.bins < 1:
        raise InputError(f"bins is {config.bins}: give 1 or more")
    words = label_words(found.classes, config.words)
    items = recordings_to_test(found, config.every_part)
    prompt = config.prompt or PROMPTS.get(found.name, PROMPT)
    nothing = Asking(None, prompt, TASK, tuple(words.values()), choose=True)
    *replies, unheard = put([*(nothing._replace(audio=item.path) for item in items), nothing])
    if isinstance(unheard, InputError):
        raise unheard
    answers = sort_replies(items, replies)
    classified = classify(
        found.classes,
        [item.labels[0] for item, _ in answers.answered],
        np.array([reply.log_likelihoods for _, reply in answers.answered], np.float64),
        np.array(unheard.log_likelihoods, np.float64),
    )
    depends = {
        "prompt": prompt,
        "labels": "; ".join(f"{label}: {own}" for label, own in words.items()),
        "part": "all" if config.every_part or found.folds else "test",
        "probabilities": f"softmax over the labels; {config.bins} bins of equal width",
        "intervals": f"95 %, {RESAMPLES:,} resamples of recordings, seed {config.seed}",
        **(settings or {}),
    }
    named = Findings("classification", found.name, checkpoint, {}, (), settings=depends)
    return class_findings(named, classified, answers, words, config.bins, config.seed)
