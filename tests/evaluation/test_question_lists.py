"""Lists in MusicSkills' format: how questions are read, asked and marked."""

import json
from pathlib import Path

import pytest
import soundfile
from evaluation_cases import cells, saying
from helpers import noise, refusal

from tinymu_jax.data.question_formats import LETTERS
from tinymu_jax.evaluation.question_lists import (
    ListQuestion,
    QuestionList,
    evaluate_list,
    read_questions,
)
from tinymu_jax.evaluation.report.build import write_report
from tinymu_jax.evaluation.responses import EvalModel

CHOICE = "Which? Options: (A) Oboe (B) Bassoon (C) Horn. The correct answer is:"


def record(name, prompt, answer, task, **more):
    return {
        "file_name": name,
        "input_text": prompt,
        "target_text": answer,
        "dataset": "Made",
        "task": task,
        **more,
    }


def read(folder, *records):
    """Returns the questions of a list of records."""
    (folder / "list.json").write_text(json.dumps(records))
    return read_questions([folder / "list.json"], [folder])


def words(prompt):
    return len(prompt.split())


def evaluate(asked, answers, default="", seed=0, **options):
    model = EvalModel("model", saying(answers, default), words)
    return evaluate_list(model._replace(**options), asked, seed)


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        (CHOICE, ("Oboe", "Bassoon", "Horn")),
        ("(A) Oboe, (B) Horn", ("Oboe", "Horn")),
        ("Which?\n(A) Oboe\n(B) Horn\nGive the letter.", ("Oboe", "Horn")),
        ("Which? \n Options: (A) a (B) b (C) c (D) d \n The correct answer is: ", tuple("abcd")),
    ],
)
def test_options_of_a_prompt(prompt, options, tmp_path):
    (question,) = read(tmp_path, record("a.wav", prompt, "(B)", "MCQ")).questions
    assert question.options == options
    assert question.right == 1


@pytest.mark.parametrize(
    ("answer", "right"), [("(C) Horn", 2), ("C", 2), ("Horn.", 2), ("bassoon", 1), ("A. Oboe", 0)]
)
def test_right_option_is_named_by_letter_or_text(answer, right, tmp_path):
    (question,) = read(tmp_path, record("a.wav", CHOICE, answer, "MCQ")).questions
    assert question.right == right


def test_records_own_options_come_first(tmp_path):
    part = record("a.wav", CHOICE, "(B) two", "MCQ", options=["one", "two"], category="mood")
    (question,) = read(tmp_path, part).questions
    assert question.options == ("one", "two")
    assert question.category == "mood"


def test_letters_of_the_records_options_are_no_part_of_them(tmp_path):
    options = ["(A) Oboe", "(B) Bassoon", "(C) Horn"]
    asked = read(tmp_path, record("a.wav", CHOICE, "(B) Bassoon", "MCQ", options=options))
    assert (asked.questions[0].options, asked.questions[0].right) == (
        ("Oboe", "Bassoon", "Horn"),
        1,
    )
    result = evaluate(asked, {"a.wav": "(B) Bassoon"})
    assert result.headline["Multiple choice"].value == 1


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (record("a", "Which?", "(A) x", "MCQ"), "has no options, and needs 2 to 4"),
        (record("a", "(A) x", "(A) x", "MCQ"), "has 1 option, and needs"),
        (record("a", "(A) 1 (B) 2 (C) 3 (D) 4 (E) 5", "A", "MCQ"), "has 5 options, and needs"),
        (record("a", "(B) x (A) y", "(A) x", "MCQ"), "has no options"),
        (record("a", "(A) x (B) X.", "(A) x", "MCQ"), "has the option 'x' twice, so that one"),
        (record("a", "(A) x (B)", "(A) x", "MCQ"), "has an empty option"),
        (record("a", CHOICE, "(D) Harp", "MCQ"), "answer '(D) Harp' names none of its options"),
        (record("a", CHOICE, "(A) or (B)", "MCQ"), "names none of its options, or several"),
        (record("a", "?", "x", "MCQ", options="ab"), "its options are not a list of texts"),
        (record("a", "?", "x", "MCQ", options=[1, 2]), "its options are not a list of texts"),
        (record("a", "?", "Maybe.", "Binary"), "answer 'Maybe.' is neither yes nor no"),
        (record("a", "?", "...", "QA"), "answer '...' has no words"),
        (record("a", "?", "", "QA"), "has an empty or unreadable 'target_text'"),
    ],
)
def test_questions_that_cannot_be_marked_are_refused(one, message, tmp_path):
    result = refusal(read, tmp_path, record("a", "?", "Yes.", "Binary"), one)
    assert message in result
    assert "list.json: record 1: " in result
    assert result.endswith("repair the record or take it out")


@pytest.mark.parametrize(
    ("task", "first", "second"), [("MCQ", "(A) Oboe", "(C)"), ("Binary", "Yes.", "No, it is not.")]
)
def test_two_right_answers_are_refused(task, first, second, tmp_path):
    records = [record("a", CHOICE, answer, task) for answer in (first, second)]
    message = refusal(read, tmp_path, *records)
    repeated = "repeats another record's question about the recording with the answer"
    assert f"record 1: {repeated} {second!r}" in message


def test_repeated_questions_are_asked_once_and_other_answers_are_wanted_too(tmp_path):
    asked = read(
        tmp_path,
        record("a.wav", "Which mood?", "Sad.", "QA"),
        record("a.wav", "Which mood?", "Sad.", "QA"),
        record("a.wav", "Which mood?", "Gloomy.", "QA"),
        record("b.wav", "Which mood?", "Sad.", "QA"),
        record("a.wav", CHOICE, "(A) Oboe", "MCQ"),
        record("a.wav", CHOICE, "A", "MCQ"),
    )
    assert asked.repeated == 2
    assert [question.answers for question in asked.questions] == [
        ("Sad.", "Gloomy."),
        ("Sad.",),
        ("(A) Oboe",),
    ]


def test_lists_may_have_a_folder_each(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        text = json.dumps([record("a.wav", "?", "Yes.", "Binary")])
        (tmp_path / f"{name}.json").write_text(text)
    lists, folders = [tmp_path / "one.json", tmp_path / "two.json"], [tmp_path / "one"]
    result = read_questions(lists, folders)
    assert (result.name, len(result.questions), result.repeated) == ("one, two", 1, 1)
    result = read_questions(lists, [*folders, tmp_path / "two"])
    assert [question.audio.parent.name for question in result.questions] == ["one", "two"]
    assert "2 lists and 3 audio folders" in refusal(read_questions, lists, [*folders] * 3)
    assert "no list: name one or more json files" in refusal(read_questions, [], folders)
    assert "is not a folder" in refusal(read_questions, lists, [tmp_path / "no"])


# --- marking -----------------------------------------------------------------------------------


def choice(name, right, **more):
    fields = {"options": ("Oboe", "Bassoon", "Horn"), "right": right, "dataset": "Made"}
    return ListQuestion(Path(name), "Which?", "MCQ", ("",), **(fields | more))


def test_multiple_choice_by_the_letter():
    questions = [choice(f"{n}.wav", 1) for n in range(4)]
    asked = QuestionList("L", questions, 0)
    # Right; right; wrong; the option's text has no letter.
    answers = {"0.wav": "(B) Bassoon", "1.wav": "B", "2.wav": "(A) Bassoon", "3.wav": "Bassoon"}
    result = evaluate(asked, answers)
    assert cells(result.tables[0], "all") == {"accuracy": 0.5, "unanswered": 0.25}
    assert result.headline["Multiple choice"].value == 0.5
    assert result.headline["Multiple choice"].count == 4
    (confusion,) = result.confusions
    assert confusion.labels == ["A", "B", "C", "unanswered"]
    assert confusion.counts == [[0] * 4, [1, 2, 0, 1], [0] * 4, [0] * 4]


def test_yes_or_no_by_the_first_word():
    made = ListQuestion(Path("a.wav"), "Is it?", "Binary", ("No.",), "Made", "", ("yes", "no"), 1)
    questions = [made._replace(audio=Path(f"{n}.wav")) for n in range(4)]
    answers = {"0.wav": "No, it is slow.", "1.wav": "yes", "2.wav": "It is no.", "3.wav": "NO"}
    result = evaluate(QuestionList("L", questions, 0), answers)
    assert cells(result.tables[0], "all") == {"accuracy": 0.5, "unanswered": 0.25}
    assert result.confusions[0].counts == [[0, 0, 0], [1, 2, 1], [0, 0, 0]]


def test_other_answers_are_compared_with_all_wanted_texts():
    made = ListQuestion(Path("a.wav"), "?", "QA", ("It is slow.", "A slow tune"), "Made")
    questions = [made._replace(audio=Path(f"{n}.wav")) for n in range(3)]
    answers = {"0.wav": "it is SLOW", "1.wav": "a slow song", "2.wav": ""}
    result = evaluate(QuestionList("L", questions, 0), answers)
    table = result.tables[0]
    # ROUGE-L: 1; 2 of 3 words; 0. BLEU-1: 5 of 6 words, with 6 said of 9.
    assert cells(table, "all")["exact"] == round(1 / 3, 4)
    assert cells(table, "all")["ROUGE-L"] == round((1 + 2 / 3) / 3, 4)
    assert list(cells(table, "all")) == ["exact", "ROUGE-L", "BLEU-1", "BLEU-4"]
    assert list(result.headline) == ["QA, exact", "QA, ROUGE-L"]
    assert "nrefs:2" in result.settings["BLEU of QA"]
    assert result.confusions == []


def test_rows_are_by_data_set_and_category():
    questions = [
        choice("0.wav", 0, category="genre"),
        choice("1.wav", 1, category="genre", dataset="Other"),
        choice("2.wav", 1, category="mood"),
        choice("3.wav", 1),
    ]
    result = evaluate(QuestionList("L", questions, 0), {}, "(A)")
    accuracies = {row: cells(result.tables[0], row)["accuracy"] for row in result.tables[0].rows}
    assert accuracies == {
        "all": 0.25,
        "data set Made": round(1 / 3, 4),
        "data set Other": 0,
        "category genre": 0.5,
        "category mood": 0,
    }
    alone = evaluate(QuestionList("L", questions[2:], 0), {}, "(A)")
    assert list(alone.tables[0].rows) == ["all", "category mood"]


def test_rules_that_do_not_listen_stand_beside():
    made = ListQuestion(Path("a.wav"), "Is it?", "Binary", ("No.",), "Made", "", ("yes", "no"), 1)
    questions = [choice("0.wav", 0), choice("1.wav", 2), choice("2.wav", 1), made]
    result = evaluate(QuestionList("L", questions, 0), {})
    table = result.tables[-1]
    assert {row: cells(table, row)["accuracy"] for row in table.rows} == {
        # Oboe and Horn are equally short: half of a hit for the first two each.
        "multiple choice: shortest option": round(1 / 3, 4),
        "multiple choice: longest option": round(1 / 3, 4),
        **{f"multiple choice: always {letter}": round(1 / 3, 4) for letter in LETTERS[:3]},
        "yes or no: always yes": 0,
        "yes or no: always no": 1,
    }


def test_what_was_left_out_is_told(tmp_path):
    soundfile.write(tmp_path / "0.wav", noise(1600), 16_000)
    long = ListQuestion(tmp_path / "2.wav", "too " * 130, "QA", ("x",), "Made")
    questions = [choice(tmp_path / f"{n}.wav", 1) for n in range(2)]
    asked = QuestionList("L", [*questions, long], 3)
    result = evaluate(asked, {"1.wav": None}, "(B)")
    assert result.missing == 1
    assert result.notices == [
        "2 of 3 questions skipped: 1 whose recording is missing or broken, 1 whose prompt is too "
        "long for the model; they are listed below",
        "3 records that repeat another one are asked once",
    ]
    assert [why.split(":")[0] for why in result.tables[-1].rows] == [
        str(tmp_path / "1.wav"),
        str(tmp_path / "2.wav"),
    ]
    assert cells(result.tables[0], "all")["accuracy"] == 1
    assert result.tables[0].rows["all"][0].count == 1
    assert write_report([result], tmp_path / "report").is_file()
    assert "no question could be asked" in refusal(evaluate, asked, {}, None)
    only_long = QuestionList("L", [long], 0)
    assert "L: no question could be asked: " in refusal(evaluate, only_long, {})


def test_seed_and_prompt_limit_count():
    made = ListQuestion(Path("a.wav"), "?", "QA", ("a b c d e f g",), "Made")
    asked = QuestionList("L", [made._replace(audio=Path(f"{n}.wav")) for n in range(7)], 0)
    answers = {f"{number}.wav": "a b c d e f g"[: 2 * number] + "x y z" for number in range(7)}

    def result(**fields):
        return evaluate(asked, answers, **fields)

    assert result(seed=1).headline != result().headline
    assert "no question could be asked" in refusal(result, max_prompt_tokens=0)


def test_worst_answers_are_taken_from_every_task():
    made = ListQuestion(Path("t.wav"), "?", "QA", ("a b c d",), "Made")
    questions = [choice(f"{n}.wav", 1) for n in range(30)]
    questions += [made._replace(audio=Path(f"t{n}.wav")) for n in range(3)]
    answers = {"t0.wav": "a b c d", "t1.wav": "a b c x", "t2.wav": "x"}
    result = evaluate(QuestionList("L", questions, 0), answers, "(A) Oboe")
    assert [one.audio for one in result.worst[:5]] == [
        "0.wav",
        "t2.wav",
        "1.wav",
        "t1.wav",
        "2.wav",
    ]
    assert len(result.worst) == 20
    assert (result.worst[0].score, result.worst[3].score) == (None, 0.75)
    assert result.worst[0].options == ("Oboe", "Bassoon", "Horn")
    assert result.worst[1].options == ()


def test_the_real_example_list(shared_dir, tmp_path):
    path = shared_dir / "data" / "musicskills_example.json"
    asked = read_questions([path], [shared_dir / "audio"])
    assert all(question.audio.is_file() for question in asked.questions)
    records = json.loads(path.read_text())
    reported = {(one["file_name"], one["input_text"]): one["target_text"] for one in records}
    result = evaluate(asked, reported)
    assert len(asked.questions) == len(records) == 6
    assert {name: one.value for name, one in result.headline.items()} == {
        "Multiple choice": 1,
        "Yes or no": 1,
        "Captioning, exact": 1,
        "Captioning, ROUGE-L": 1,
        "QA, exact": 1,
        "QA, ROUGE-L": 1,
    }
    assert result.worst == []
