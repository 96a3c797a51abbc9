"""Captioning: caption each recording, and score the captions against reference captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinymu_jax.data.annotations.audio_index import MUSICCAPS as CLIP_NAMES
from tinymu_jax.data.annotations.audio_index import find_audio, index_audio
from tinymu_jax.data.annotations.musiccaps import NAME as MUSICCAPS
from tinymu_jax.data.annotations.musiccaps import TEST_SETS, read_musiccaps
from tinymu_jax.data.musicskills import read_list
from tinymu_jax.data.question_formats import CAPTIONING
from tinymu_jax.errors import InputError
from tinymu_jax.evaluation.responses import EvalModel
from tinymu_jax.evaluation.results import SPLIT, EvalResult, Example, Metric, Table
from tinymu_jax.evaluation.skipped import (
    Answers,
    collect_answers,
    cut_notices,
    skipped_notices,
    skipped_tables,
)
from tinymu_jax.evaluation.tables import MAX_WORST
from tinymu_jax.evaluation.text_metrics import (
    BERT_SCORE,
    BLEU,
    METEOR,
    ROUGE_L,
    Scored,
    rouge_l,
    score_texts,
)
from tinymu_jax.inference.engine import Request

PROMPT = "Describe the music you hear."
SPLITS = {
    "eval": TEST_SETS["is_audioset_eval"],
    "balanced": TEST_SETS["is_balanced_subset"],
    "all": None,
}
"""Name of the test set for each split of MusicCaps; None for all rows."""
PUBLISHED = {METEOR: 0.169, BERT_SCORE: 0.873}
PUBLISHED_NOTE = "TinyMU (arXiv 2604.15849) on MusicCaps"
HEADLINE = (BLEU[-1], ROUGE_L, METEOR, BERT_SCORE)
WORDS = "words"
"""Column with the mean number of words."""
CENTRAL_SAMPLE = 200
"""Maximum number of captions that are compared to find the most central caption."""


class CaptionedClip(NamedTuple):
    """A recording with its reference captions."""

    audio: Path
    references: tuple[str, ...]


class CaptionSet(NamedTuple):
    """A named collection of recordings to caption."""

    name: str
    clips: Sequence[CaptionedClip]
    music_caps: bool = False
    """Whether the recordings are from MusicCaps, for which there are published results."""
    split: str = ""
    """The split of MusicCaps that the recordings are; "" for other recordings."""


@dataclass(frozen=True)
class CaptionConfig:
    """Settings of a captioning evaluation."""

    prompt: str = PROMPT
    seed: int = 0
    """Seed of the confidence intervals' resamples and of the choice of the most central caption."""


def read_musiccaps_captions(path: str | Path, audio: str | Path, split: str = "eval") -> CaptionSet:
    """Read recordings and reference captions from MusicCaps' csv.

    Args:
        path: the path of musiccaps-public.csv.
        audio: the folder of the recordings, named by their YouTube ids; see
            `tinymu_jax.data.annotations.audio_index.index_audio`.
        split: "eval" (AudioSet's evaluation clips), "balanced" (MusicCaps' balanced subset) or
            "all".

    Raises:
        InputError: the split is unknown or empty, or the csv or the folder cannot be read.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: use one of {', '.join(SPLITS)}")
    index, test_set = index_audio(audio), SPLITS[split]
    rows = read_musiccaps(Path(path)).clips
    clips = [
        CaptionedClip(
            find_audio(index, CLIP_NAMES, row.clip) or index.folder / row.file, row.captions
        )
        for row in rows
        if test_set is None or test_set in row.test_sets
    ]
    if not clips:
        raise InputError(f"{path}: has no row of {test_set}; name another split")
    scored = f"{split} ({len(clips)} of {len(rows)} recordings)"
    return CaptionSet(f"{MUSICCAPS}, {split}", clips, music_caps=True, split=scored)


def read_list_captions(path: str | Path, audio: str | Path) -> CaptionSet:
    """Read recordings and reference captions from a question list in MusicSkills' format.

    `path` is the list, and `audio` the folder of its recordings.

    Raises:
        InputError: the list cannot be read or has no captions, or the folder does not exist.
    """
    if not Path(audio).is_dir():
        raise InputError(f"{audio}: is not a folder; name the one with the audio of {path}")
    captions: dict[Path, dict[str, None]] = {}
    for where, record in read_list(Path(path)):
        if record["task"] != CAPTIONING:
            continue
        if not record["target_text"].strip():
            raise InputError(f"{where}: has a blank caption; repair the record or take it out")
        captions.setdefault(Path(audio) / record["file_name"], {})[record["target_text"]] = None
    if not captions:
        raise InputError(f"{path}: has no records of task {CAPTIONING!r}; name another list")
    clips = [CaptionedClip(file, tuple(texts)) for file, texts in captions.items()]
    return CaptionSet(Path(path).stem, clips)


def evaluate_captions(
    model: EvalModel, captions: CaptionSet, config: CaptionConfig | None = None
) -> EvalResult:
    """Caption all recordings, and score captions and baselines against the reference captions.

    Raises:
        InputError: no recording could be captioned.
    """
    config = config or CaptionConfig()
    requests = [Request(clip.audio, config.prompt, CAPTIONING) for clip in captions.clips]
    *responses, text_only = model.engine([*requests, Request(None, config.prompt, CAPTIONING)])
    if isinstance(text_only, InputError):
        raise text_only
    answers = collect_answers(captions.clips, responses)
    clips = answers.items
    rows = {"this model": answers.texts, "this model without audio": [text_only.text] * len(clips)}
    rows |= caption_baselines(clips, config.seed)
    references, groups = [clip.references for clip in clips], [clip.audio for clip in clips]
    scored = {
        name: score_texts(texts, references, groups, config.seed) for name, texts in rows.items()
    }
    scores = scored["this model"]
    return EvalResult(
        kind="captions",
        title=captions.name,
        checkpoint=model.name,
        headline={name: scores.metrics[name] for name in HEADLINE},
        tables=[_table(rows, scored, clips), *skipped_tables(answers.missing)],
        notices=_notices(answers),
        missing=len(answers.missing),
        worst=_worst(answers, scores, config.prompt),
        published={
            name: Metric(value, note=PUBLISHED_NOTE)
            for name, value in PUBLISHED.items()
            if captions.music_caps
        },
        settings={
            "prompt": config.prompt,
            **({SPLIT: captions.split} if captions.split else {}),
            **scores.settings,
            **model.settings,
        },
    )


def caption_baselines(clips: Sequence[CaptionedClip], seed: int = 0) -> dict[str, list[str]]:
    """Return, by baseline name, the captions that two baselines without audio give to `clips`.

    One baseline gives each recording the first caption of the next recording. The other gives all
    recordings the most central caption (see `central_captions`), except the recording with this
    caption, which gets the second most central one. A single recording has no baselines.
    """
    if len(clips) < 2:
        return {}
    following = [clip.references[0] for clip in (*clips[1:], clips[0])]
    first, second = central_captions(clips, seed)
    central = [
        clips[second if number == first else first].references[0] for number in range(len(clips))
    ]
    return {"the next recording's caption": following, "the most central caption": central}


def central_captions(clips: Sequence[CaptionedClip], seed: int = 0) -> tuple[int, int]:
    """Return the indices of the recordings with the two most central captions.

    A caption's centrality is its mean ROUGE-L with the captions of all other recordings. Only the
    first caption of a recording counts. If there are more than `CENTRAL_SAMPLE` recordings, a
    random sample of this size is used.
    """
    size = min(len(clips), CENTRAL_SAMPLE)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(clips))[:size])
    texts = [clips[number].references[0] for number in drawn]
    similarity = np.zeros((size, size))
    for row, text in enumerate(texts):
        others = texts[row + 1 :]
        similarity[row, row + 1 :] = rouge_l([text] * len(others), [[other] for other in others])
    mean = (similarity + similarity.T).sum(axis=0)
    first, second = drawn[np.argsort(-mean, kind="stable")[:2]]
    return int(first), int(second)


def _table(
    rows: Mapping[str, Sequence[str]], scored: Mapping[str, Scored], clips: Sequence[CaptionedClip]
) -> Table:
    """Return the table of scores and mean lengths (in words).

    `rows` has the captions, and `scored` their scores, by the name of a row.
    """
    columns = [*BLEU, ROUGE_L, METEOR, BERT_SCORE]

    def words(texts: Sequence[str]) -> Metric:
        return Metric(float(np.mean([len(text.split()) for text in texts])), is_fraction=False)

    cells: dict[str, list[Metric | None]] = {
        name: [*(scores.metrics[column] for column in columns), words(rows[name])]
        for name, scores in scored.items()
    }
    references = [text for clip in clips for text in clip.references]
    cells["references"] = [*[None] * len(columns), words(references)]
    note = "Rows below the first do not use the audio. Words: the mean length."
    return Table("Scores", [*columns, WORDS], cells, note)


def _notices(answers: Answers[CaptionedClip]) -> list[str]:
    count = len(answers.answered)
    empty = sum(not text.strip() for text in answers.texts)
    return [
        *skipped_notices(count + len(answers.missing), answers.missing, noun="recordings"),
        *([f"{empty:,} of {count:,} captions are empty"] if empty else []),
        *cut_notices((clip.audio, response.cut) for clip, response in answers.answered),
    ]


def _worst(answers: Answers[CaptionedClip], scored: Scored, prompt: str) -> list[Example]:
    """Return the captions with the lowest ROUGE-L, for the report."""
    worst = []
    for number in np.argsort(scored.rouge_l, kind="stable")[:MAX_WORST]:
        clip, response = answers.answered[number]
        references, score = " / ".join(clip.references), float(scored.rouge_l[number])
        worst.append(Example(str(clip.audio), prompt, references, response.text, score))
    return worst
