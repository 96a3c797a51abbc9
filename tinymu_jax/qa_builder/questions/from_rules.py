"""Make captions, open questions and yes/no questions about a clip by rules.

Random choices are hashes of the seed and the clip (module `seeded_choice`).
"""

from collections.abc import Iterable, Iterator

from tinymu_jax.data.annotations.clip import AnnotatedClip
from tinymu_jax.data.question_formats import CAPTIONING, QA, YES_NO
from tinymu_jax.qa_builder.context import BuildContext
from tinymu_jax.qa_builder.questions.item import NO, YES, QAItem
from tinymu_jax.qa_builder.questions.negatives import draw_negatives
from tinymu_jax.qa_builder.questions.seeded_choice import hash_choice, hash_int, shuffled
from tinymu_jax.qa_builder.questions.templates import FAMILIES, join_names
from tinymu_jax.qa_builder.tags.cooccurrence import TagStatistics
from tinymu_jax.qa_builder.tags.vocabulary import Tag, Vocabulary, flatten_tags

COMPLETE = ("instrument", "voice")
"""Categories in which the answer to an open question must name all tags that apply."""


def captions(clip: AnnotatedClip, context: BuildContext) -> Iterator[QAItem]:
    """Yield a question for each caption of a clip: a prompt, with the caption as the answer."""
    for number, caption in enumerate(clip.captions):
        key = (context.config.seed, CAPTIONING, clip.source, clip.clip, number)
        prompt = hash_choice(context.templates.of("caption"), *key, "wording")
        yield QAItem(clip, CAPTIONING, prompt, caption, key=hash_int(*key))


def open_questions(clip: AnnotatedClip, context: BuildContext) -> Iterator[QAItem]:
    """Yield, for each category, open questions about a clip's tags and about their family.

    An answer names all tags of the category except ancestors of other tags: "choir" makes "vocals"
    redundant. A question that needs a complete answer is left out if the clip may have more tags,
    because further tags are ambiguous or are named in its captions.
    """
    vocabulary = context.vocabulary
    for category, names in clip.tags.items():
        tags = [Tag(category, name) for name in names if vocabulary.askable(Tag(category, name))]
        mentioned = _mentioned(clip, category, vocabulary)
        if tags and not (category in COMPLETE and _has_more(mentioned, tags, vocabulary)):
            yield _open(clip, "open", tags, context)
        ancestors = {up for tag in tags for up in vocabulary.ancestors(tag)} - set(tags)
        families = [up for up in ancestors if _is_family(up, vocabulary)]
        common = [up for up in families if all(vocabulary.related(up, tag) for tag in tags)]
        if category in FAMILIES and common:
            nearest = max(common, key=lambda up: (len(vocabulary.ancestors(up)), up))
            if not _has_more(mentioned, [nearest], vocabulary):
                yield _open(clip, "family", [nearest], context)


def _is_family(tag: Tag, vocabulary: Vocabulary) -> bool:
    """Return whether a tag is a family ("strings") rather than a single thing ("a guitar")."""
    return vocabulary.askable(tag) and not vocabulary.phrase(tag).startswith(("a ", "an "))


def _mentioned(clip: AnnotatedClip, category: str, vocabulary: Vocabulary) -> set[Tag]:
    """Return the tags of one category that a clip's captions name or that are ambiguous."""
    named = {tag for caption in clip.captions for tag in vocabulary.named(caption)}
    ambiguous = {Tag(category, name) for name in clip.ambiguous.get(category, ())}
    return {tag for tag in named if tag.category == category} | ambiguous


def _has_more(mentioned: Iterable[Tag], tags: Iterable[Tag], vocabulary: Vocabulary) -> bool:
    """Return whether a tag in `mentioned` is unrelated to all tags in `tags`."""
    return any(not any(vocabulary.related(other, tag) for tag in tags) for other in mentioned)


def _open(clip: AnnotatedClip, format: str, tags: list[Tag], context: BuildContext) -> QAItem:
    vocabulary, templates, _, config = context
    category = tags[0].category
    key = (config.seed, QA, format, clip.source, clip.clip, category)
    prompt = hash_choice(templates.of(format, category), *key, "wording")
    phrases = [vocabulary.phrase(tag) for tag in shuffled(vocabulary.finest(tags), *key)]
    answer = hash_choice(templates.of("answer", category), *key, "answer")
    answer = answer.format(join_names(phrases))
    answer = answer[0].upper() + answer[1:]
    names = tuple(sorted(tag.name for tag in tags))
    return QAItem(clip, QA, prompt, answer, category, names, key=hash_int(*key))


def yes_or_no(
    clip: AnnotatedClip, statistics: TagStatistics, context: BuildContext
) -> Iterator[QAItem]:
    """Yield yes/no questions about a clip; those with the answer no have `QAItem.evidence`."""
    vocabulary, templates, _, config = context
    tags = [tag for tag in flatten_tags(clip.tags) if vocabulary.askable(tag)]
    limit = config.max_yes_per_clip
    present = shuffled(tags, config.seed, YES_NO, clip.source, clip.clip)[:limit]
    answers = [(tag, YES, "") for tag in present]
    # Twice the limit: balancing pairs each yes with a no about the same tag, from any clip.
    negatives = draw_negatives(clip, 2 * limit, statistics, vocabulary, config.seed)
    answers += [(negative.tag, NO, negative.evidence) for negative in negatives]
    for tag, answer, evidence in answers:
        key = (config.seed, YES_NO, clip.source, clip.clip, *tag)
        template = hash_choice(templates.of("binary", tag.category), *key, "wording")
        prompt = template.format(vocabulary.phrase(tag))
        names = (tag.name,)
        item = QAItem(clip, YES_NO, prompt, answer, tag.category, names, key=hash_int(*key))
        yield item._replace(evidence=evidence)
