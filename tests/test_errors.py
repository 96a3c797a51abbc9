"""Exceptions of other libraries become one sentence with a remedy."""

import pytest

from tinymu_jax.errors import InputError, one_line_errors, reason_of, translate


def test_an_exception_becomes_a_sentence_with_its_reason():
    message = "file: unreadable ({reason}); get it again"
    with pytest.raises(InputError) as caught, translate(message):
        raise RuntimeError("bad\n  magic")
    assert str(caught.value) == "file: unreadable (bad magic); get it again"


def test_the_first_matching_class_gives_the_message():
    specific = {KeyError: "a key", FileNotFoundError: lambda e: f"no {e.args[0]}", OSError: "disk"}
    for error, message in [
        (FileNotFoundError("this"), "no this"),
        (PermissionError(), "disk"),
        (KeyError(), "a key"),
        (ValueError(), "other: ValueError"),
    ]:
        with pytest.raises(InputError) as caught, translate("other: {reason}", specific):
            raise error
        assert str(caught.value) == message
        assert caught.value.__cause__ is error


def test_input_errors_and_interrupts_pass():
    for error in (InputError("as it is"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, translate("other"):
            raise error
        assert caught.value is error


def test_the_middle_of_a_long_message_is_left_out():
    message = str(InputError(f"a.json: {'x' * 10**6} is wrong; repair it"))
    assert message.startswith("a.json: xxx")
    assert message.endswith("xxx is wrong; repair it")
    assert len(message) < 2_000
    assert str(InputError("x" * 1_500)) == "x" * 1_500


def test_a_long_reason_is_cut():
    assert reason_of(ValueError("a " * 500), 10) == "a a a a a "


def test_text_that_is_not_utf8_ends_a_command_with_one_line(capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        "A \ud83d bird".encode()
    assert ended.value.code == 2
    message = r"error: 'A \ud83d bird': is not UTF-8 text; rename the file, or repair the text"
    assert capsys.readouterr().err == message + "\n"
