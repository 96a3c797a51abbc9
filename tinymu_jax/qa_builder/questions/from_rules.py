"""Captions, open questions, and yes or no: what is asked about a clip by rule.

Every choice is hashed from the seed and the clip (`tinymu_jax.qa_builder.questions.seeded_choice`). A clip gives
more candidates than are wanted; `tinymu_jax.qa_builder.questions.balance` chooses.
"""

from collections.abc import Iterable, Iterator

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.question_formats import CAPTIONING, QA, YES_NO
from tinymu_jax.qa_builder.config import BuildConfig
from tinymu_jax.qa_builder.questions.item import QAItem
from tinymu_jax.qa_builder.questions.negatives import draw_negatives
from tinymu_jax.qa_builder.questions.seeded_choice import hash_choice, hash_int, shuffled
from tinymu_jax.qa_builder.questions.templates import FAMILIES, Templates, join_names
from tinymu_jax.qa_builder.tags.cooccurrence import Statistics, own_tags
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary

WHOLE = ("instrument", "voice")
"""Categories of which an open question asks for all that there is."""


def captions(clip: AnnotatedClip, templates: Templates, config: BuildConfig) -> Iterator[QAItem]:
    """Yields a clip's captions as answers."""
    for number, caption in enumerate(clip.captions):
        about = (config.seed, CAPTIONING, clip.source, clip.clip, number)
        prompt = hash_choice(templates.of("caption"), *about, "wording")
        yield QAItem(clip, CAPTIONING, prompt, caption, key=hash_int(*about))


def open_questions(
    clip: AnnotatedClip, vocabulary: Vocabulary, templates: Templates, config: BuildConfig
) -> Iterator[QAItem]:
    """Yields what of each category is heard, and which families that belongs to.

    An answer names all tags of its category, but those above others: a choir needs no "vocals".
    Nothing is asked for as a whole of which more is told than the tags say.
    """
    for category, names in clip.tags.items():
        tags = [Tag(category, name) for name in names if vocabulary.askable(Tag(category, name))]
        told = _told(clip, category, vocabulary)
        if tags and not (category in WHOLE and _has_more(told, tags, vocabulary)):
            yield _open(clip, "open", tags, vocabulary, templates, config)
        above = {up for tag in tags for up in vocabulary.ancestors(tag)} - set(tags)
        # The one family that all tags of the clip have in common, the closest to them.
        families = [up for up in above if _is_family(up, vocabulary)]
        common = [up for up in families if all(vocabulary.related(up, tag) for tag in tags)]
        if category in FAMILIES and common:
            nearest = max(common, key=lambda up: (len(vocabulary.ancestors(up)), up))
            if not _has_more(told, [nearest], vocabulary):
                yield _open(clip, "family", [nearest], vocabulary, templates, config)


def _is_family(tag: Tag, vocabulary: Vocabulary) -> bool:
    """Returns whether things belong to a tag: to "strings", not to "a guitar" of whatever kind."""
    return vocabulary.askable(tag) and not vocabulary.phrase(tag).startswith(("a ", "an "))


def _told(clip: AnnotatedClip, category: str, vocabulary: Vocabulary) -> set[Tag]:
    """Returns the tags of a category that captions name, or labels that are not asked about."""
    named = {tag for caption in clip.captions for tag in vocabulary.named(caption)}
    ambiguous = {Tag(category, name) for name in clip.ambiguous.get(category, ())}
    return {tag for tag in named if tag.category == category} | ambiguous


def _has_more(told: Iterable[Tag], tags: Iterable[Tag], vocabulary: Vocabulary) -> bool:
    """Returns whether something is told that has nothing to do with any of some tags."""
    return any(not any(vocabulary.related(one, tag) for tag in tags) for one in told)


def _open(
    clip: AnnotatedClip,
    format: str,
    tags: list[Tag],
    vocabulary: Vocabulary,
    templates: Templates,
    config: BuildConfig,
) -> QAItem:
    category = tags[0].category
    about = (config.seed, QA, format, clip.source, clip.clip, category)
    prompt = hash_choice(templates.of(format, category), *about, "wording")
    finest = vocabulary.finest(tags)
    phrases = join_names([vocabulary.phrase(tag) for tag in shuffled(finest, *about)])
    answer = hash_choice(templates.of("answer", category), *about, "answer").format(phrases)
    answer = answer[0].upper() + answer[1:]
    names = tuple(sorted(tag.name for tag in tags))
    return QAItem(clip, QA, prompt, answer, category, names, key=hash_int(*about))


def yes_or_no(
    clip: AnnotatedClip,
    statistics: Statistics,
    vocabulary: Vocabulary,
    templates: Templates,
    config: BuildConfig,
) -> Iterator[QAItem]:
    """Yields questions that are to be answered by yes, and by no; the latter with their evidence."""
    own = [tag for tag in own_tags(clip) if vocabulary.askable(tag)]
    yes = shuffled(own, config.seed, YES_NO, clip.source, clip.clip)[: config.max_yes_per_clip]
    asked = [(tag, "Yes.", "") for tag in yes]
    # More of them than of the others, since both must be as many for every tag in the end.
    negatives = draw_negatives(
        clip, 2 * config.max_yes_per_clip, statistics, vocabulary, config.seed
    )
    asked += [(negative.tag, "No.", negative.evidence) for negative in negatives]
    for tag, answer, evidence in asked:
        about = (config.seed, YES_NO, clip.source, clip.clip, *tag)
        wording = hash_choice(templates.of("binary", tag.category), *about, "wording")
        prompt = wording.format(vocabulary.phrase(tag))
        yield QAItem(
            clip,
            YES_NO,
            prompt,
            answer,
            tag.category,
            (tag.name,),
            evidence=evidence,
            key=hash_int(*about),
        )
