"""Captions: each recording is described once, and that is scored against its references."""

from collections.abc import Callable, Mapping, Sequence
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
from tinymu_jax.evaluation.results import EvalResult, Example, Metric, Table
from tinymu_jax.evaluation.skipped import (
    Answers,
    cut_notices,
    skipped_notices,
    skipped_tables,
    sort_replies,
)
from tinymu_jax.evaluation.text_metrics import (
    BERT_SCORE,
    BLEU,
    METEOR,
    ROUGE_L,
    Scored,
    rouge_l,
    score_texts,
)
from tinymu_jax.inference.engine import Request, Response

Put = Callable[[Sequence[Request]], Sequence[Response | InputError]]

PROMPT = "Describe the music you hear."

ROWS = {
    "eval": TEST_SETS["is_audioset_eval"],
    "balanced": TEST_SETS["is_balanced_subset"],
    "all": None,
}
"""Which rows of MusicCaps are described, by the test sets that they belong to."""

PUBLISHED = {METEOR: 0.169, BERT_SCORE: 0.873}

PUBLISHED_NOTE = "TinyMU (arXiv 2604.15849) on MusicCaps"

HEADLINE = (BLEU[-1], ROUGE_L, METEOR, BERT_SCORE)

WORDS = "words"
"""The mean length."""

CENTRAL_SAMPLE = 200
"""Captions among which the most central one is looked for."""

WORST = 20


class Captioned(NamedTuple):
    """A recording and how it may be described."""

    audio: Path
    references: tuple[str, ...]


class CaptionSet(NamedTuple):
    """Recordings that are to be described."""

    name: str
    clips: Sequence[Captioned]
    music_caps: bool = False
    """Whether they are MusicCaps', of which there are published figures."""


@dataclass(frozen=True)
class CaptionConfig:
    """How captions are asked for."""

    prompt: str = PROMPT
    seed: int = 0
    """Of the intervals' resamples, and of the captions among which a central one is found."""


def read_musiccaps_captions(path: str | Path, audio: str | Path, rows: str = "eval") -> CaptionSet:
    """Reads MusicCaps' csv.

    Args:
        path: of musiccaps-public.csv.
        audio: folder of the recordings, which are named by their YouTube ids; see
            `tinymu_jax.data.annotations.audio_index.index_audio` for the names.
        rows: one of `ROWS`: the clips of AudioSet's eval part, the balanced ones among them, or
            all.

    Raises:
        InputError: no such rows; it is another table; there are no recordings.
    """
    if rows not in ROWS:
        raise InputError(f"rows {rows!r}: use one of {', '.join(ROWS)}")
    index, wanted = index_audio(audio), ROWS[rows]
    clips = [
        Captioned(find_audio(index, CLIP_NAMES, one.clip) or index.folder / one.file, one.captions)
        for one in read_musiccaps(Path(path)).clips
        if wanted is None or wanted in one.test_sets
    ]
    if not clips:
        raise InputError(f"{path}: has no row that is {wanted}; name other rows")
    return CaptionSet(f"{MUSICCAPS}, {rows}", clips, music_caps=True)


def read_list_captions(path: str | Path, audio: str | Path) -> CaptionSet:
    """Reads the captions of a list in MusicSkills' format, those of one recording together.

    Args:
        path: of the list.
        audio: folder of its recordings.

    Raises:
        InputError: it is no such list, or has no captions.
    """
    if not Path(audio).is_dir():
        raise InputError(f"{audio}: is no folder; name the one with the audio of {path}")
    found: dict[Path, dict[str, None]] = {}
    for number, record in enumerate(read_list(Path(path))):
        if record["task"] != CAPTIONING:
            continue
        if not record["target_text"].strip():
            raise InputError(
                f"{path}: record {number}: has a blank caption; repair the record or take it out"
            )
        found.setdefault(Path(audio) / record["file_name"], {})[record["target_text"]] = None
    if not found:
        raise InputError(f"{path}: has no records of task {CAPTIONING!r}; name another list")
    return CaptionSet(Path(path).stem, [Captioned(p, tuple(own)) for p, own in found.items()])


def evaluate_captions(
    put: Put,
    captions: CaptionSet,
    checkpoint: str,
    config: CaptionConfig | None = None,
    settings: Mapping[str, str] | None = None,
) -> EvalResult:
    """Lets a model describe all recordings, and scores what it says.

    Args:
        put: asks; an `InputError` in the place of a reply says that the recording is of no use. It
            is called once.
        captions: of at least one recording.
        checkpoint: what is evaluated.
        config: how they are asked for.
        settings: more that the numbers depend on.

    Raises:
        InputError: no recording could be described.
    """
    config = config or CaptionConfig()
    asked = [Request(one.audio, config.prompt, CAPTIONING) for one in captions.clips]
    *replies, unheard = put([*asked, Request(None, config.prompt, CAPTIONING)])
    if isinstance(unheard, InputError):
        raise unheard
    answers = sort_replies(captions.clips, replies)
    said = [reply.text for _, reply in answers.answered]
    clips = [clip for clip, _ in answers.answered]
    rows = {"this model": said, "this model without audio": [unheard.text] * len(clips)}
    rows |= blind_captions(clips, config.seed)
    scored = {name: _score(texts, clips, config.seed) for name, texts in rows.items()}
    own = scored["this model"]
    depends = {"prompt": config.prompt, **own.settings, **(settings or {})}
    return EvalResult(
        kind="captions",
        title=captions.name,
        checkpoint=checkpoint,
        headline={name: own.measures[name] for name in HEADLINE},
        tables=[_table(rows, scored, clips), *skipped_tables(answers.missing)],
        notices=_notices(answers),
        missing=len(answers.missing),
        worst=_worst(answers, own, config.prompt),
        published={
            name: Metric(value, note=PUBLISHED_NOTE)
            for name, value in PUBLISHED.items()
            if captions.music_caps
        },
        settings=depends,
    )


def blind_captions(clips: Sequence[Captioned], seed: int = 0) -> dict[str, list[str]]:
    """Returns what could be said of each recording without listening to it.

    That is the first caption of the next recording; and always the one caption that is most like
    all others (but for its own recording the second such). A single recording has neither.
    """
    if len(clips) < 2:
        return {}
    following = [clip.references[0] for clip in (*clips[1:], clips[0])]
    first, second = central_captions(clips, seed)
    central = [
        clips[second if number == first else first].references[0] for number in range(len(clips))
    ]
    return {"the next recording's caption": following, "the most central caption": central}


def central_captions(clips: Sequence[Captioned], seed: int = 0) -> tuple[int, int]:
    """Returns the two recordings whose first captions have the best mean ROUGE-L to others'.

    At most `CENTRAL_SAMPLE` captions, drawn by the seed, are compared.
    """
    size = min(len(clips), CENTRAL_SAMPLE)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(clips))[:size])
    texts = [clips[number].references[0] for number in drawn]
    likeness = np.zeros((size, size))
    for row, text in enumerate(texts):
        others = texts[row + 1 :]
        likeness[row, row + 1 :] = rouge_l([text] * len(others), [[other] for other in others])
    mean = (likeness + likeness.T).sum(axis=0)
    first, second = drawn[np.argsort(-mean, kind="stable")[:2]]
    return int(first), int(second)


def _score(said: Sequence[str], clips: Sequence[Captioned], seed: int) -> Scored:
    references = [clip.references for clip in clips]
    return score_texts(said, references, [clip.audio for clip in clips], seed)


def _table(
    rows: Mapping[str, Sequence[str]], scored: Mapping[str, Scored], clips: Sequence[Captioned]
) -> Table:
    """Returns the scores of the model and of what does not listen."""
    columns = [*BLEU, ROUGE_L, METEOR, BERT_SCORE]

    def words(texts: Sequence[str]) -> Metric:
        return Metric(float(np.mean([len(text.split()) for text in texts])), is_fraction=False)

    cells: dict[str, list[Metric | None]] = {
        name: [*(one.measures[column] for column in columns), words(rows[name])]
        for name, one in scored.items()
    }
    references = [text for clip in clips for text in clip.references]
    cells["references"] = [*[None] * len(columns), words(references)]
    return Table(
        "Scores",
        [*columns, WORDS],
        cells,
        "Rows below the first say what is reached without listening. Words: the mean length.",
    )


def _notices(answers: Answers[Captioned]) -> list[str]:
    heard = len(answers.answered)
    empty = sum(not reply.text.strip() for _, reply in answers.answered)
    return [
        *skipped_notices(heard + len(answers.missing), answers.missing, noun="recordings"),
        *([f"Of {empty:,} of {heard:,} recordings nothing was said"] if empty else []),
        *cut_notices((clip.audio, reply.cut) for clip, reply in answers.answered),
    ]


def _worst(answers: Answers[Captioned], own: Scored, prompt: str) -> list[Example]:
    """Returns the captions with the least ROUGE-L."""
    found = []
    for number in np.argsort(own.rouge_l, kind="stable")[:WORST]:
        clip, reply = answers.answered[number]
        score = float(own.rouge_l[number])
        wanted = " / ".join(clip.references)
        found.append(Example(str(clip.audio), prompt, wanted, reply.text, score))
    return found
