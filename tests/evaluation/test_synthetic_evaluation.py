"""Evaluation: how answers are marked, what blind guesses get, and that each clip is heard once."""

import csv
import json
from collections import Counter
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import soundfile
from helpers import noise, refusal

from tinymu_jax.data.synthetic.facts import Facts
from tinymu_jax.data.synthetic.templates import NAMES
from tinymu_jax.evaluation.synthetic import baselines
from tinymu_jax.evaluation.synthetic.evaluate import evaluate, write_results
from tinymu_jax.evaluation.synthetic.grading import (
    FormatScore,
    grade,
    is_right,
    possible_answers,
    stated_facts,
)
from tinymu_jax.evaluation.synthetic.items import SyntheticItem, read_items
from tinymu_jax.evaluation.synthetic.scores import as_text, average_scores
from tinymu_jax.inference.engine import Request, Response

VALUES = {
    "timbre": ["pluck", "organ", "flute", "brass", "bell", "bass", "square", "voice"],
    "drums": ["drums", "none"],
    "tempo": ["slow", "medium", "fast"],
    "metre": ["three", "four"],
    "mode": ["major", "minor"],
    "contour": ["rising", "falling", "arched"],
    "register": ["low", "high"],
    "dynamics": ["loud", "soft", "swelling"],
    "voices": ["one", "several"],
    "room": ["dry", "room"],
}
TRUTH = Facts("flute", "none", "slow", "three", "minor", "rising", "low", "soft", "one", "room")
OPTIONS = ("(A) flute", "(B) bell", "(C) organ", "(D) singer")
FILES = {"Captioning": "captioning", "QA": "qa", "MCQ": "mcq", "Binary": "binary"}


def item(task, fact, expected="", truth=TRUTH, options=(), clip="a.wav", prompt="?"):
    facts = (fact,) if isinstance(fact, str) else tuple(fact)
    return SyntheticItem(clip, truth, task, facts, prompt, expected, options)


def choice(letter, options=OPTIONS, facts=("timbre",)):
    return item("MCQ", facts, options["ABCD".index(letter)], options=options)


def assert_marks(question, right, wrong):
    for answer in right:
        assert is_right(question, answer), answer
    for answer in wrong:
        assert not is_right(question, answer), answer


# --- marks -------------------------------------------------------------------------------------


def test_names_are_whole_words():
    assert_marks(
        item("QA", "register"),
        ["low", "Low.", "It is LOW, I think", "(low)"],
        ["slow", "below", "lowest", "low_", "high", "low or high", ""],
    )
    assert_marks(item("QA", "tempo"), ["slow", "Slow!"], ["low", "slowly", "slow to moderate"])
    assert_marks(
        item("QA", "drums"), ["drumless", "Drumless."], ["drums", "drum less", "drumlessly"]
    )


@pytest.mark.parametrize("no", ["no", "without", "Not", "not a", "without\nan", "it has no"])
def test_what_is_denied_is_not_named(no):
    with_drums = item("QA", "drums", truth=TRUTH._replace(drums="drums"))
    assert_marks(with_drums, ["drums", "no, drums", "piano drums", "a drums"], [f"{no} drums"])
    assert_marks(item("QA", "tempo"), [f"slow, {no} fast", "knot slow"], [f"{no} slow"])


def test_a_value_goes_by_its_name():
    assert_marks(
        item("QA", "timbre"),
        ["a flute", "Flute", "The flute."],
        ["flutes", "a flute and a bell", "a flute or an accordion", "an instrument"],
    )
    assert_marks(item("QA", "dynamics"), ["quiet"], ["soft", "quiet, then loud", "quietly"])
    # Another fact's values are no contradiction.
    assert_marks(item("QA", "mode"), ["minor, slow and low"], ["major", "in a minor or major key"])


def test_the_letter_decides_over_the_text():
    assert_marks(
        choice("B"), ["(B) flute", "B", "B) bell"], ["(A) a bell", "a bell", "", "(A) or (B)"]
    )


def test_yes_and_no_are_first_words():
    no = item("Binary", "mode", "No.")
    assert_marks(
        no, ["No.", "no", "No, it is minor", '"No"'], ["Not", "Nothing", "Yes.", "", "I no"]
    )
    assert_marks(no._replace(expected="Yes."), ["yes", "Yes!", "- yes"], ["No.", "Yesterday", "y"])


def test_captions_tell_one_timbre():
    caption = item("Captioning", "timbre")
    assert_marks(
        caption,
        ["You hear low, a flute, major."],
        ["You hear a flute, a bell.", "You hear a bell, slow.", "slow", ""],
    )


def test_all_that_a_caption_tells_is_counted():
    # Two values of one fact are two stated_facts; "slow" is not "low".
    text = "You hear bell, a flute, slow, triple, major, solo, not falling."
    reported = [("timbre", "flute"), ("timbre", "bell"), ("tempo", "slow"), ("metre", "three")]
    reported += [("mode", "major"), ("voices", "one")]
    assert sorted(stated_facts(text)) == sorted(reported)
    marked = grade(item("Captioning", "timbre"), text)
    assert marked[0] == FormatScore("caption_timbre", ("timbre",), 0)
    assert {p.format for p in marked[1:]} == {"caption_facts"}
    by_fact = sorted((p.facts[0], p.value) for p in marked[1:])
    expected = [
        ("metre", 1),
        ("mode", 0),
        ("tempo", 1),
        ("timbre", 0),
        ("timbre", 1),
        ("voices", 1),
    ]
    assert by_fact == expected


def test_scored_options_are_marked_beside_the_answer():
    marked = grade(choice("C"), "(A)", (-3.0, -2.0, -1.5, -9.0))
    assert [(p.format, p.value) for p in marked] == [("mcq", 0), ("mcq_scored", 1)]


# --- blind guesses -----------------------------------------------------------------------------


def shares(guess, items, answers=None):
    answers = answers or [""] * len(items)
    marked = [grade(*pair) for pair in zip(items, answers, strict=True)]
    return [point.value for point in guess(items, marked)]


def test_chance_is_one_over_what_could_be_answered():
    items = [item("QA", fact) for fact in VALUES]
    assert shares(baselines.chance, items) == [1 / len(values) for values in VALUES.values()]
    others = [choice("A"), item("Binary", "timbre", "Yes."), item("Captioning", "timbre")]
    assert shares(baselines.chance, others) == [1 / 4, 1 / 2, 1 / 8]
    # A caption's stated_facts are guessed one by one.
    assert shares(baselines.chance, others[2:], ["A bell, quadruple."]) == [1 / 8, 1 / 8, 1 / 2]


def test_a_timbre_beside_the_usual_counts():
    new = TRUTH._replace(timbre="accordion")
    assert shares(baselines.chance, [item("QA", "timbre", truth=new)]) == [1 / 9]


def test_the_most_frequent_answer_is_that_of_each_fact():
    fast = TRUTH._replace(tempo="fast", mode="major")
    items = [item("QA", "tempo", truth=t) for t in (TRUTH, fast, fast)]
    items += [item("QA", "mode", truth=t) for t in (TRUTH, TRUTH, fast, TRUTH)]
    assert shares(baselines.most_frequent, items) == [0, 1, 1, 1, 1, 0, 1]


def test_the_most_frequent_letter_and_word_are_those_of_the_format():
    letters = [choice(letter) for letter in "BDDA"]
    words = [item("Binary", f, w) for f, w in zip(VALUES, ["No.", "Yes.", "No."], strict=False)]
    assert shares(baselines.most_frequent, letters + words) == [0, 1, 1, 0, 1, 0, 1]


def test_captions_are_guessed_by_what_is_most_frequent():
    other = TRUTH._replace(timbre="bell", mode="major")
    items = [item("Captioning", "timbre", truth=t) for t in (TRUTH, other, other)]
    # What other questions are about does not count.
    items += [item("QA", "timbre")] * 3
    answers = ["major, low", "minor", "an organ"] + [""] * 3
    # Each caption: its timbre, then what the model told; "bell" and "major" are most frequent.
    expected = [0, 0, 1] + [1, 1] + [1, 1] + [1] * 3
    assert shares(baselines.most_frequent, items, answers) == expected


def test_a_blind_caption_is_marked_by_what_the_model_told():
    question = item("Captioning", "timbre")
    model = grade(question, "You hear flute, drums, slow, minor.")
    # It tells the tempo right, the timbre wrong, two of a kind of the mode, and nothing of drums;
    # what else it tells does not count.
    said = "You hear bell, slow, high, major, minor."
    result = baselines.match_caption_facts(
        question, model, grade(question, said), said, ["accordion"]
    )
    shares = {p.facts[0]: p.value for p in result if p.format == "caption_facts"}
    assert shares == {"timbre": 0, "drums": 1 / 2, "tempo": 1, "mode": 1 / 2}
    assert [p.value for p in result if p.format == "caption_timbre"] == [0]
    silent = baselines.match_caption_facts(question, model, grade(question, ""), "", ["accordion"])
    assert [p.value for p in silent if p.facts == ("timbre",)] == [0, 1 / 9]


def test_the_shortest_option_shares_among_equals():
    lengths = ("(A) xx", "(B) xx", "(C) xxx", "(D) xxxx")
    items = [choice(letter, lengths) for letter in "ABCD"]
    items += [item("QA", "mode"), choice("B", ("(A) xx", "(B) x", "(C) xxx", "(D) xxx"))]
    assert shares(baselines.shortest_option, items) == [1 / 2, 1 / 2, 0, 0, 1]
    same = [choice(letter, ("(A) x", "(B) y", "(C) z", "(D) w")) for letter in "ABCD"]
    assert shares(baselines.shortest_option, same) == [1 / 4] * 4


# --- scores ------------------------------------------------------------------------------------


def test_scores_are_means_by_format_and_by_fact():
    model = [
        FormatScore("mcq", ("mode", "tempo"), 1),
        FormatScore("mcq_scored", ("mode", "tempo"), 0),
        FormatScore("binary", ("mode",), 0),
        FormatScore("qa", ("tempo",), 1),
        FormatScore("qa", ("mode",), 1),
        FormatScore("caption_timbre", ("timbre",), 1),
        FormatScore("caption_facts", ("mode",), 0),
    ]
    chance = [point._replace(value=0.25) for point in model]
    shortest = [point._replace(value=0.75) for point in model[:2]]
    points = {"model": model, "chance": chance, "shortest_option": shortest}
    scores = average_scores(points, clips=1, questions=5)
    result = {name: (s.number, s.model) for name, s in scores.by_format.items()}
    assert result == {
        "mcq": (1, 1),
        "mcq_scored": (1, 0),
        "binary": (1, 0),
        "qa": (2, 1),
        "caption_timbre": (1, 1),
        "caption_facts": (1, 0),
    }
    # Neither captions nor scored options count by fact, and one question may count for two.
    assert {name: s.number for name, s in scores.by_fact.items()} == {"mode": 3, "tempo": 2}
    assert scores.by_fact["mode"].model == pytest.approx(2 / 3)
    assert scores.by_fact["tempo"].model == 1
    assert scores.by_format["mcq"].shortest_option == scores.by_format["mcq"].best_baseline == 0.75
    assert scores.by_fact["mode"].shortest_option is None
    assert scores.by_format["qa"].best_baseline is None
    assert json.loads(json.dumps(scores.to_dict())) == scores.to_dict()


# --- a whole folder ----------------------------------------------------------------------------


def write_folder(folder, truths, records):
    """Writes a folder of synthetic music by hand, with silence for clips."""
    (folder / "clips").mkdir(parents=True)
    table = [",".join(("file_name", *VALUES))]
    for number, truth in enumerate(truths):
        soundfile.write(folder / "clips" / f"{number}.wav", noise(20_000 + number), 16_000)
        table.append(",".join((f"{number}.wav", *truth)))
    (folder / "facts.csv").write_text("\n".join(table) + "\n")
    lists = {}
    for clip, task, facts, prompt, expected, options in records:
        lists.setdefault(task, []).append(
            {
                "file_name": f"{clip}.wav",
                "input_text": prompt,
                "target_text": expected,
                "dataset": "Made",
                "task": task,
                "facts": facts,
                "options": options,
            }
        )
    for task, part in lists.items():
        (folder / f"{FILES[task]}.json").write_text(json.dumps(part))
    return folder


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    """Four clips; every answer is as often right as it would be by chance."""
    timbres, modes = ["flute", "bell", "organ", "voice"], ["major", "major", "minor", "minor"]
    truths = [TRUTH._replace(timbre=t, mode=m) for t, m in zip(timbres, modes, strict=True)]
    records = []
    for number, mode in enumerate(modes):
        prompt = f"Options: {' '.join(OPTIONS)}. The answer is:"
        records += [
            (number, "Captioning", ["timbre"], "Describe", f"You hear {OPTIONS[number][4:]}.", []),
            (number, "QA", ["mode"], "Major or minor?", mode, []),
            (number, "MCQ", ["timbre"], prompt, OPTIONS[number], list(OPTIONS)),
            (number, "Binary", ["mode"], "Is it major?", "No." if number > 1 else "Yes.", []),
        ]
    return write_folder(tmp_path_factory.mktemp("balanced") / "set", truths, records)


class Fake:
    """Answers by a rule, and remembers what it was asked."""

    def __init__(self, rule):
        self.rule, self.asked = rule, []

    def ask(self, asked, progress):
        self.asked += asked
        progress(len(asked), len(asked))
        return [self.reply(one) for one in asked]

    def reply(self, one):
        said = Response(*self.rule(one))
        # What is to choose takes the first here.
        return said._replace(text=one.options[0]) if one.score_only else said


def knowing(one):
    """Knows the clips of `balanced` by their names, and any other as the first."""
    number = 0 if one.audio is None else int(one.audio.stem)
    name = OPTIONS[number][4:]
    hits = tuple(float(option.endswith(name)) for option in one.options)
    answers = {
        "Captioning": f"You hear {OPTIONS[number][4:]}, slow, high.",
        "QA": "minor" if number > 1 else "major",
        "MCQ": OPTIONS[number],
        "Binary": "No." if number > 1 else "Yes.",
    }
    return answers[one.task], hits


def test_who_knows_the_clips_is_always_right(balanced):
    fake, steps = Fake(knowing), []
    result = evaluate(fake, balanced, score_options=True, progress=lambda *step: steps.append(step))
    by_format = result.scores.by_format
    for name in ("mcq", "mcq_scored", "binary", "qa", "caption_timbre"):
        assert by_format[name].model == 1, name
        assert by_format[name].number == 4
    # Timbre and tempo are right, the register never is.
    assert by_format["caption_facts"].model == pytest.approx(2 / 3)
    assert by_format["caption_facts"].number == 12
    assert {n: s.model for n, s in result.scores.by_fact.items()} == {"timbre": 1, "mode": 1}
    assert (result.scores.clips, result.scores.questions, result.scores.cut_clips) == (4, 16, 0)
    assert steps == [(len(fake.asked), len(fake.asked))]


def test_who_knows_the_clips_is_blind_on_others(balanced):
    by_format = evaluate(Fake(knowing), balanced, score_options=True).scores.by_format
    # Modes go major, major, minor, minor, and round: the next is another one twice.
    for name, silent, other in [
        ("mcq", 1 / 4, 0),
        ("mcq_scored", 1 / 4, 0),
        ("binary", 1 / 2, 1 / 2),
        ("qa", 1 / 2, 1 / 2),
        ("caption_timbre", 1 / 4, 0),
    ]:
        assert (by_format[name].no_audio, by_format[name].other_clip) == (silent, other), name


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes.", {"binary": 1 / 2}),
        ("(C)", {"mcq": 1 / 4}),
        ("minor", {"qa": 1 / 2, "caption_facts": 1 / 2}),
        ("A bell.", {"caption_timbre": 1 / 4, "caption_facts": 1 / 4}),
        ("I cannot hear it", {}),
    ],
)
def test_who_always_says_the_same_gets_chance(balanced, answer, expected):
    scores = evaluate(Fake(lambda one: (answer, (-1.0,) * len(one.options))), balanced).scores
    for name, score in scores.by_format.items():
        assert score.model == score.other_clip == expected.get(name, 0), name
        # Hearing nothing it is made to choose, here the first of what could be said; of timbres
        # that is one that no clip has.
        chosen = {"binary": 1 / 2, "qa": 1 / 2, "caption_timbre": 0}
        assert score.no_audio == chosen.get(name, score.model), name
    assert ("caption_facts" in scores.by_format) == ("caption_facts" in expected)
    assert scores.by_format["binary"].most_frequent == 1 / 2
    assert scores.by_format["mcq"].most_frequent == scores.by_format["mcq"].chance == 1 / 4


def test_each_question_is_asked_of_its_clip_the_next_and_none(balanced):
    fake = Fake(knowing)
    result = evaluate(fake, balanced)
    audio_seen = Counter((one.task, one.audio and one.audio.name) for one in fake.asked)
    # All clips are asked the same but for nothing: what is asked without audio is asked once.
    assert set(audio_seen.values()) == {1}
    assert len(audio_seen) == 4 * (4 + 1)
    row = next(row for row in result.rows if row.clip == "1.wav" and row.task == "MCQ")
    assert (row.answer, row.other_clip, row.no_audio) == (OPTIONS[1], OPTIONS[2], OPTIONS[0])
    assert (row.right, row.expected, row.scored, row.facts) == (True, OPTIONS[1], None, ("timbre",))


def test_without_audio_one_of_the_possible_answers_is_chosen(balanced):
    fake = Fake(lambda one: ("nothing at all",))
    result = evaluate(fake, balanced)
    said = {(row.task, row.no_audio) for row in result.rows}
    assert said == {
        ("Binary", "Yes."),
        ("QA", "major"),
        ("MCQ", "nothing at all"),
        ("Captioning", "nothing at all"),
    }
    assert result.scores.by_format["qa"].no_audio == 1 / 2
    silent = {one.task: one for one in fake.asked if one.audio is None}
    offered = {task: one.options for task, one in silent.items() if one.score_only}
    assert offered == {"QA": ("major", "minor"), "Binary": ("Yes.", "No.")}
    assert not any(one.options or one.score_only for one in fake.asked if one.audio is not None)
    # A caption is said, and its timbre is the beginning that is most probable.
    assert silent["Captioning"].options == tuple(
        f"You hear {NAMES['timbre'][value]}" for value in VALUES["timbre"]
    )


def test_a_new_timbre_is_a_possible_answer():
    usual = tuple(NAMES["timbre"][value] for value in VALUES["timbre"])
    assert possible_answers(item("QA", "timbre")) == usual
    assert possible_answers(item("QA", "timbre"), ["accordion"]) == (*usual, "accordion")


def test_what_is_not_asked_for_is_left_out(balanced):
    fake = Fake(knowing)
    result = evaluate(fake, balanced, text_only=False, max_clips=2)
    assert {one.audio.name for one in fake.asked} == {"0.wav", "1.wav"}
    assert len(fake.asked) == len(result.rows) == 8
    assert not any(one.options for one in fake.asked)
    assert (
        result.scores.by_format["qa"].no_audio is result.scores.by_format["qa"].other_clip is None
    )
    assert "mcq_scored" not in result.scores.by_format


def test_a_clip_alone_has_no_other(balanced):
    score = evaluate(Fake(knowing), balanced, max_clips=1).scores.by_format["qa"]
    assert score.other_clip is None
    assert score.no_audio == 1


def test_clips_that_were_cut_are_counted(balanced):
    fake = Fake(
        lambda one: ("", (), (), True, 4.0, 5.0 if one.audio and one.audio.stem == "2" else 4.0)
    )
    scores = evaluate(fake, balanced).scores
    assert scores.cut_clips == 1
    assert "Of 1 clips only the beginning was encoded" in as_text(scores)


def test_results_are_written_whole(balanced, tmp_path):
    result = evaluate(Fake(knowing), balanced, score_options=True)
    folder = write_results(result, tmp_path / "out")
    assert json.loads((folder / "scores.json").read_text()) == result.scores.to_dict()
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == [row.answer for row in result.rows]
    assert [row["scored"] for row in rows if row["task"] == "MCQ"] == list("ABCD")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("facts.csv", "flute", "banjo", "line 2 is not a clip with its facts"),
        ("facts.csv", "file_name", "name", "is not a table of facts"),
        ("facts.csv", "0.wav", "9.wav", "record 0: 0.wav is not in facts.csv"),
        ("facts.csv", "flute", "bell", "'You hear flute.' to 'Describe' contradicts the facts"),
        ("mcq.json", "[", "", "is not json"),
        ("mcq.json", '"(A) flute", "(B) bell"', '"(B) bell"', "lacks the options"),
        ("mcq.json", '"(C) organ"', '"(A) organ"', "lacks the options"),
        ("mcq.json", 'text": "(A) flute"', 'text": "flute"', "or a right one"),
        ("mcq.json", 'text": "(A) flute"', 'text": "(B) bell"', "contradicts the facts"),
        ("binary.json", '"Yes."', '"No."', "contradicts the facts"),
        ("qa.json", '["mode"]', '["weather"]', "unknown facts"),
        ("qa.json", '"facts"', '"topics"', "has no list of facts"),
        ("qa.json", '"QA"', '"MCQ"', "its task is 'MCQ', not 'QA'"),
        ("qa.json", '"Major or minor?"', '""', "has no 'input_text'"),
    ],
)
def test_folders_that_cannot_be_marked_are_refused(balanced, tmp_path, file, old, new, message):
    for source in balanced.glob("*.*"):
        text = source.read_text()
        changed = text.replace(old, new, 1) if source.name == file else text
        assert (changed != text) == (source.name == file)
        (tmp_path / source.name).write_text(changed)
    refused = refusal(evaluate, Fake(knowing), tmp_path)
    assert message in refused
    assert str(tmp_path) in refused
    assert "synthesise the folder again" in refused


def test_a_folder_without_facts_or_questions_is_refused(balanced, tmp_path):
    assert "facts.csv: cannot be read" in refusal(read_items, tmp_path)
    (tmp_path / "facts.csv").write_bytes((balanced / "facts.csv").read_bytes())
    assert "holds no questions" in refusal(read_items, tmp_path)
    assert "give 1 or more" in refusal(read_items, balanced, 0)


def test_every_answer_of_a_synthesised_folder_is_right(tmp_path):
    from tinymu_jax.data.config import SynthesisConfig
    from tinymu_jax.data.synthetic.generate import synthesize

    config = SynthesisConfig(
        clips=12, seconds=1.0, seed=5, captions=2, open=5, choice=3, binary=4, workers=1
    )
    folder = synthesize(tmp_path / "set", config)
    items = read_items(folder)
    table = list(csv.DictReader((folder / "facts.csv").open()))
    assert list(dict.fromkeys(i.path.name for i in items)) == [row["file_name"] for row in table]
    assert Counter(i.task for i in items) == {"Captioning": 24, "QA": 60, "MCQ": 36, "Binary": 48}
    expected = {(i.path, i.prompt): i.expected for i in items}
    fake = Fake(lambda one: (expected.get((one.audio, one.prompt), ""),))
    scores = evaluate(fake, folder).scores
    assert all(s.model == 1 for s in [*scores.by_format.values(), *scores.by_fact.values()])
    # Clip by clip, so that each is listened to once; what hears nothing stands in between.
    runs = [audio for audio, _ in groupby(one.audio for one in fake.asked)]
    assert [audio for audio in runs if audio] == list(dict.fromkeys(i.path for i in items))
    assert runs.count(None) > 6
    # What a caption tells is told once, and is all true.
    reported = sum(i.expected.count(",") + 1 for i in items if i.task == "Captioning")
    assert scores.by_format["caption_facts"].number == reported


# --- what is shown -----------------------------------------------------------------------------


def test_the_table_fits_a_terminal(balanced):
    scores = evaluate(Fake(knowing), balanced, score_options=True).scores
    text = as_text(scores)
    rows = {line[:15].strip(): line[15:].split() for line in text.splitlines()}
    names = ["number", "model", "chance", "frequent", "shortest", "no", "audio", "next", "clip"]
    assert rows["by format"] == names
    assert rows["mcq"] == ["4", "100.0", "25.0", "25.0", "25.0", "25.0", "0.0"]
    assert rows["mode"] == ["8", "100.0", "50.0", "50.0", "-", "50.0", "50.0"]
    assert max(map(len, text.splitlines())) <= 80


def test_pictures_show_scores_and_questions(balanced, tmp_path):
    pytest.importorskip("matplotlib")
    from tinymu_jax.evaluation.synthetic.plots import plot_facts, plot_question

    result = evaluate(Fake(knowing), balanced)
    plot_facts(result.scores, tmp_path / "facts.svg", "by fact: $")
    plot_question(balanced / "clips" / "0.wav", result.rows[0], tmp_path / "clip.png")
    assert (tmp_path / "facts.svg").read_text().startswith("<?xml")
    assert (tmp_path / "clip.png").read_bytes().startswith(b"\x89PNG")
    nothing = average_scores({"model": []}, 0, 0)
    assert "no scores by fact" in refusal(plot_facts, nothing, tmp_path / "x.png")


# --- a model -----------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path):
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for number, path in enumerate(paths):
        soundfile.write(path, np.roll(noise(20_000), 99 * number) * (number + 1), 16_000)
    return paths


def test_answers_are_those_that_each_clip_gets_alone(assistant, clips):
    # Of three lengths, so that there are full batches, mixed ones and silent rows between.
    prompts = [
        " ".join(f"t{5 + (7 * i + j) % 90}" for j in range(n)) for i in range(6) for n in (3, 20)
    ]
    asked = [
        Request(clip, prompt, "QA") for clip in (clips[0], None, *clips[1:]) for prompt in prompts
    ]
    steps = []
    replies = assistant.batch_engine(8).ask(asked, lambda *step: steps.append(step))
    assert steps == [(16, 48), (32, 48), (48, 48)]
    audio_seen = [one for one in asked if one.audio is not None]
    expected = [assistant.ask(one.audio, one.prompt, 8) for one in audio_seen]
    result = [reply for one, reply in zip(asked, replies, strict=True) if one.audio is not None]
    assert [reply.text for reply in result] == expected
    assert len({reply.text for reply in replies}) > 10


def test_each_clip_is_listened_to_once(assistant, clips, monkeypatch):
    from tinymu_jax.inference import audio_cache, engine, generate

    encoded, shapes, encode, pad = [], [], audio_cache.encode_clips, generate.pad_questions

    def count(params, samples, *rest, **named):
        encoded.extend(len(one) for one in samples)
        return encode(params, samples, *rest, **named)

    def note(*arguments):
        batch = pad(*arguments)
        shapes.append(len(batch.num_audio))
        return batch

    monkeypatch.setattr(audio_cache, "encode_clips", count)
    monkeypatch.setattr(audio_cache, "CACHE_SIZE", 1)
    monkeypatch.setattr(engine, "CACHE_SIZE", 2)
    monkeypatch.setattr(generate, "pad_questions", note)
    assistant.audio_cache.clear()
    prompts = [" ".join(["t5"] * n) for n in (2, 3, 4, 17, 18)]
    asked = [Request(c, p, t) for c in clips for t in ("QA", "MCQ") for p in prompts]
    assistant.batch_engine(2).ask(asked)
    assert len(encoded) == len(clips)
    # 30 questions of two sizes and formats: no batch is full, all are filled up.
    assert shapes == [16, 16]


def test_options_are_scored_as_alone_and_without_audio(assistant, clips):
    options = ("t40 t41", "t7", "t300 t2 t9", "t5")
    asked = [Request(audio, "t5 t6 t90", "MCQ", options) for audio in (clips[0], None)]
    with_audio, without = assistant.batch_engine(2).ask(asked)
    expected = assistant.score_details(clips[0], "t5 t6 t90", options)
    result = with_audio.log_likelihoods
    np.testing.assert_allclose(result, [w.log_likelihood for w in expected], atol=1e-4)
    np.testing.assert_allclose(without.log_likelihoods, [w.prior for w in expected], atol=1e-4)


def test_what_is_to_choose_answers_with_the_most_probable_option(assistant, clips, monkeypatch):
    monkeypatch.setattr("tinymu_jax.inference.engine.generate", None)  # nothing is said
    options = ("t7", "t40 t41", "t300 t2 t9", "t5")
    for audio, name in ((clips[0], "log_likelihood"), (None, "prior")):
        asked = Request(audio, "t5 t6 t90", "QA", options, score_only=True)
        details = assistant.score_details(clips[0], "t5 t6 t90", options)
        (reply,) = assistant.batch_engine(2).ask([asked])
        assert reply.text == max(details, key=lambda one: getattr(one, name)).option


def test_no_audio_is_the_decoder_on_the_prompt_alone(assistant, golden_dir, clips):
    torch = pytest.importorskip("torch")
    from oracles import torch_modules as oracle

    module = oracle.build_tinymu(json.loads((golden_dir / "tinymu_tiny.json").read_text()))
    state = torch.load(golden_dir / "tinymu_tiny.pt", weights_only=True)["model"]
    module.load_state_dict(state, strict=True)
    prompt, made = [5, 6, 90], []
    for _ in range(6):
        # As published, with no audio vectors: separator, padded prompt, answer.
        tokens = [0, *prompt, *[17] * (129 - len(prompt)), *made]
        seen = [1] * (1 + len(prompt)) + [0] * (129 - len(prompt)) + [1] * len(made)
        with torch.no_grad():
            logits = module.text_decoder.lm(
                input_ids=torch.tensor([tokens]), attention_mask=torch.tensor([seen])
            ).logits
        made.append(int(logits[0, -1].argmax()))
    expected = assistant.tokenizer.decode(made)
    # Alone, and in a row beside one that hears something.
    asked = [Request(None, "t5 t6 t90", "QA"), Request(clips[0], "t5 t6 t90", "QA")]
    asker = assistant.batch_engine(6)
    assert asker.ask(asked[:1])[0].text == asker.ask(asked)[0].text == expected
    assert asker.ask(asked)[1].text != expected


def test_a_model_is_evaluated_on_a_folder(assistant, balanced):
    result = evaluate(assistant, balanced, max_clips=2, score_options=True, max_new_tokens=4)
    assert [row.scored in set("ABCD") for row in result.rows if row.task == "MCQ"] == [True, True]
    assert all(isinstance(row.no_audio, str) for row in result.rows)
    alone = assistant.ask(balanced / "clips" / "0.wav", "Major or minor?", 4)
    assert result.rows[1].answer == alone


def test_what_was_not_heard_is_told(assistant, clips, monkeypatch):
    asked = [Request(clips[0], "t5", "QA"), Request(None, "t5", "QA")]
    assert [reply.cut for reply in assistant.batch_engine(2).ask(asked)] == [False, False]
    monkeypatch.setattr(assistant.audio_cache, "config", replace(assistant.config, max_seconds=1.0))
    assistant.audio_cache.clear()
    assert [reply.cut for reply in assistant.batch_engine(2).ask(asked)] == [True, False]
    assistant.audio_cache.clear()


def test_what_cannot_be_asked_stands_in_the_place_of_its_reply(assistant, clips, tmp_path):
    long, missing = " ".join(["t5"] * 130), tmp_path / "missing.wav"
    asked = [
        Request(missing, "t5", "QA"),
        Request(clips[0], long, "QA"),
        Request(clips[0], "t5", "QA"),
    ]
    asker = assistant.batch_engine(4)
    first, second, third = asker.ask(asked)
    assert "missing.wav: no such file" in str(first)
    assert "130 tokens, the model takes 129" in str(second)
    assert third == asker.ask(asked[2:])[0]
    assert "max_new_tokens is 0" in refusal(assistant.batch_engine, 0)
