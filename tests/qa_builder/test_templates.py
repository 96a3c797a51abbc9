"""Templates of questions and answers."""

import pytest
from helpers import refusal

from tinymu_jax.data.annotations.clip import CATEGORIES
from tinymu_jax.qa_builder.questions.templates import FORMATS, join_names, read_templates
from tinymu_jax.qa_builder.tags.vocabulary import read_vocabulary


@pytest.fixture(scope="module")
def part():
    return read_templates()


def rows():
    """Returns a line of a table for each format and category."""
    return {
        (name, category): f"{name},{category},{'{}' if name in ('binary', 'answer') else 'Well?'}"
        for name, categories in FORMATS.items()
        for category in categories
    }


def table(folder, lines, head="format,category,wording"):
    path = folder / "wordings.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


@pytest.mark.parametrize("format", ["open", "choice", "binary", "answer"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_there_are_twelve_wordings_of_each_kind_and_category(part, format, category):
    result = part.of(format, category)
    assert len({wording.lower() for wording in result}) == len(result) >= 12


@pytest.mark.parametrize(
    ("format", "category", "least"),
    [("family", "instrument", 12), ("family", "genre", 12), ("caption", "", 12), ("letter", "", 3)],
)
def test_there_are_wordings_of_the_other_formats(part, format, category, least):
    result = part.of(format, category)
    assert len({wording.lower() for wording in result}) == len(result) >= least


def test_only_binary_and_answer_templates_have_a_placeholder(part):
    for (format, _), wordings in part.by_format.items():
        for wording in wordings:
            assert wording.count("{}") == (format in ("binary", "answer")), wording
            assert wording.replace("{}", "").count("{") == 0


def test_wordings_are_whole_sentences(part):
    for (format, _), wordings in part.by_format.items():
        for wording in wordings:
            assert wording == wording.strip()
            assert "  " not in wording
            assert wording[0].isupper() or wording[0] == "{"
            if format == "binary":
                assert wording.endswith("?")
            elif format != "answer":
                assert wording.endswith(("?", "."))


def test_some_answers_are_the_phrase_itself(part):
    for category in CATEGORIES:
        assert "{}" in part.of("answer", category)


def test_no_wording_of_a_question_answers_it(part):
    vocabulary = read_vocabulary()
    asked = {"instrument", "genre", "mood", "voice"}
    general = {"vocals", "speech"}
    for (format, category), wordings in part.by_format.items():
        if format in ("open", "choice", "family") and category in asked:
            for wording in wordings:
                named = {tag.name for tag in vocabulary.named(wording) if tag.category == category}
                assert named <= general, wording


def test_wordings_are_read_in_the_order_of_the_table(tmp_path):
    lines = [*rows().values(), 'open,mood,"How, then?"']
    result = read_templates(table(tmp_path, lines))
    assert result.of("open", "mood") == ("Well?", "How, then?")
    assert result.of("letter") == ("Well?",)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("song,mood,Why?", "is for 'song' of 'mood', which does not exist"),
        ("open,colour,Why?", "is for 'open' of 'colour', which does not exist"),
        ("caption,mood,Why?", "is for 'caption' of 'mood'"),
        ("family,mood,Why?", "is for 'family' of 'mood'"),
        ("open,mood,", "has an empty wording"),
        ("open,mood,Well?", "repeats the template 'Well?'"),
        ("open,mood,Is it {}?", "has the template 'Is it {}?'; remove the braces"),
        ("binary,mood,Is it sad?", "has the template 'Is it sad?'; write {} once"),
        ("binary,mood,Is {} {}?", "write {} once"),
        ("binary,mood,Is {it} {}?", "write {} once"),
        ("answer,mood,{0}", "write {} once"),
        ("open,mood,Why?,more", "has 4 fields where there are 3 columns"),
    ],
)
def test_tables_with_faults_are_refused(tmp_path, line, said):
    lines = [*rows().values(), line]
    message = refusal(read_templates, table(tmp_path, lines))
    assert said in message
    assert f"wordings.csv: line {len(lines) + 1} " in message


def test_incomplete_tables_are_refused(tmp_path):
    lines = rows()
    del lines["binary", "tempo"]
    message = refusal(read_templates, table(tmp_path, lines.values()))
    assert message.endswith("has no template for binary of tempo; add one")
    lines = rows()
    del lines["caption", ""]
    message = refusal(read_templates, table(tmp_path, lines.values()))
    assert message.endswith("has no template for caption; add one")
    message = refusal(read_templates, table(tmp_path, [], "format,wording"))
    assert "has no column category; name a csv of format, category, wording" in message
    assert "cannot be read" in refusal(read_templates, tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (["a piano"], "a piano"),
        (["a piano", "drums"], "a piano and drums"),
        (["sad", "slow", "calm"], "sad, slow and calm"),
    ],
)
def test_names_are_joined_as_in_a_sentence(names, joined):
    assert join_names(names) == joined
