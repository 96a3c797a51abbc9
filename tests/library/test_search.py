"""Indexes of libraries: exact vectors, continued work, searches by sound and words, duplicates."""

import json
import os
import shutil

import mutagen
import mutagen.id3
import numpy as np
import pytest
import soundfile
from helpers import refusal, run_cli
from safetensors.numpy import load_file, save_file

import tinymu_jax
from tinymu_jax.audio.log_mel import SAMPLE_RATE
from tinymu_jax.checkpoints.checkpoint import encoder_of, save_checkpoint
from tinymu_jax.checkpoints.open import open_checkpoint
from tinymu_jax.data.synthetic.compose import compose
from tinymu_jax.data.synthetic.facts import FACTS, Facts
from tinymu_jax.library import find, indexing
from tinymu_jax.library.duplicates import find_duplicates
from tinymu_jax.library.find import WordSearch
from tinymu_jax.library.index_file import open_index
from tinymu_jax.library.indexing import WindowEncoder, build_index, check_model
from tinymu_jax.library.packets import audio_fingerprint
from tinymu_jax.library.search import BLOCK_ROWS, Query, indexed_query, nearest, similar
from tinymu_jax.utils.files import folder_lock

NANO = tinymu_jax.load("nano")
FACTS_OF_ALL = {name: values[0] for name, values in FACTS.items()}
TIMBRES = FACTS["timbre"]


def clip(timbre, seconds=4.0, seed=0):
    facts = Facts(**FACTS_OF_ALL | {"timbre": timbre, "drums": "none"})
    return compose(facts, seconds, np.random.default_rng(seed))


def write(path, samples, rate=SAMPLE_RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


@pytest.fixture(scope="module")
def encoder():
    return WindowEncoder(NANO, "nano", None)


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Eight timbres, one of them 9.5 s long, and a silent recording."""
    folder = tmp_path_factory.mktemp("library") / "music"
    for number, timbre in enumerate(TIMBRES):
        write(folder / timbre[:1] / f"{timbre}.wav", clip(timbre, 9.5 if number == 0 else 4.0))
    write(folder / "silent.wav", np.zeros(SAMPLE_RATE * 4, np.int16))
    return folder


@pytest.fixture(scope="module")
def index(music, encoder):
    path = music.parent / "library.index"
    report = build_index(encoder, [music], path)
    assert report == (9, 11, 9, 0, 0, 0)
    return open_index(path)


@pytest.fixture
def folder(music, tmp_path):
    """A copy of the library that a test may change."""
    return shutil.copytree(music, tmp_path / "music")


def build(encoder, folder, **options):
    """Returns the report, the bytes of the index and the errors."""
    errors, output = {}, folder.parent / "library.index"
    options = {"update": output.exists()} | options
    report = build_index(encoder, [folder], output, on_error=errors.__setitem__, **options)
    assert not list(folder.parent.glob("*.work"))
    return report, output.read_bytes(), errors


def test_vectors_are_means_of_the_embeddings_of_each_window(index, music):
    arrays = load_file(index.path)  # by the library, not by the code that wrote it
    files = [json.loads(line)["file"] for line in arrays["files"].tobytes().splitlines()]
    assert files == sorted(files)
    number = files.index("music/p/pluck.wav")
    rows = slice(*arrays["first_window"][number : number + 2])
    samples = clip("pluck", 9.5).astype(np.float32) / 32768
    # The rest of 1.5 s is too short for a window, so the last window begins at 5.5 s.
    starts = [0.0, 4.0, 5.5]
    np.testing.assert_array_equal(arrays["window_spans"][rows], [[s, s + 4] for s in starts])
    cuts = [samples[int(s * SAMPLE_RATE) : int((s + 4) * SAMPLE_RATE)] for s in starts]
    expected = np.array([NANO.embed(cut).astype(np.float64).mean(0) for cut in cuts])
    np.testing.assert_allclose(arrays["windows"][rows], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(arrays["recordings"][number], expected.mean(0), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(
        arrays["window_norms"], np.linalg.norm(arrays["windows"].astype(float), axis=1), rtol=1e-6
    )
    assert arrays["window_silent"].sum() == 1
    assert arrays["windows"].dtype == np.float16


def test_order_and_batches_do_not_change_the_bytes(index, music, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "ENCODED_TOGETHER", 3)
    monkeypatch.setattr(indexing, "WINDOWS_PER_PART", 1)
    output = music.parent / "other.index"
    places = [*sorted(music.iterdir(), reverse=True), music]
    build_index(encoder, places, output)
    assert output.read_bytes() == index.path.read_bytes()


def test_encoder_alone_makes_the_same_index(encoder, tmp_path):
    save_checkpoint(tmp_path / "encoder", encoder_of(open_checkpoint("nano")))
    alone = tinymu_jax.load(tmp_path / "encoder")
    other = WindowEncoder(alone, "encoder", 4.0)
    assert other.info == encoder.info._replace(checkpoint="encoder")
    assert WindowEncoder(alone, "encoder", None).info.seconds == indexing.DEFAULT_SECONDS
    for seconds in (0.0, 2.9, float("inf"), float("nan")):
        assert "give 3.0 to" in refusal(WindowEncoder, alone, "encoder", seconds)
    samples = [clip("bell").astype(np.float32) / 32768]
    np.testing.assert_array_equal(other.embed(samples), encoder.embed(samples))


def test_recordings_with_new_tags_are_not_embedded_again(index, folder, encoder):
    build(encoder, folder)
    tagged = mutagen.File(folder / "b" / "bell.wav")
    tagged.add_tags()
    tagged.tags.add(mutagen.id3.TCON(text="Folk"))
    tagged.save()
    report, _, _ = build(encoder, folder)
    assert report.embedded == 0


def test_update_embeds_what_is_new_by_content(index, folder, encoder):
    build(encoder, folder)
    (folder / "b" / "bell.wav").rename(folder / "renamed.wav")
    (folder / "o" / "organ.wav").unlink()
    write(folder / "b" / "bass.wav", clip("bass", seed=5))
    write(folder / "new.wav", clip("flute", seed=6))
    report, _, _ = build(encoder, folder)
    assert report._asdict() == {
        **{"recordings": 11, "windows": 13, "embedded": 2},
        **{"removed": 0, "vanished": 2, "failed": 0},
    }
    report, pruned, _ = build(encoder, folder, prune=True)
    assert (report.recordings, report.embedded, report.removed) == (9, 0, 2)
    (folder.parent / "library.index").unlink()
    assert build(encoder, folder)[1] == pruned
    assert refusal(build, encoder, folder, update=False).endswith("--update, or name another file")


def test_interrupted_run_is_continued(index, folder, encoder, monkeypatch):
    monkeypatch.setattr(indexing, "ENCODED_TOGETHER", 2)
    monkeypatch.setattr(indexing, "WINDOWS_PER_PART", 2)
    calls, embed = [], encoder.embed

    def interrupted(clips):
        calls.append(len(clips))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return embed(clips)

    monkeypatch.setattr(encoder, "embed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_index(encoder, [folder], folder.parent / "library.index")
    assert not (folder.parent / "library.index").exists()
    other = WindowEncoder(NANO, "nano", 5.0)
    assert "unfinished work of another model" in refusal(build, other, folder)
    report, content, _ = build(encoder, folder)
    assert content == index.path.read_bytes()
    # At most the windows of the interrupted batch are embedded twice.
    assert sum(calls[3:]) <= 11 - sum(calls[:3]) + 2 * 2
    assert report.embedded < 9


def test_broken_recordings_are_reported_and_left_out(folder, encoder, index):
    (folder / "text.mp3").write_text("no sound")
    (folder / "empty.wav").touch()
    whole = (folder / "p" / "pluck.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    report, content, errors = build(encoder, folder)
    assert report.failed == 3
    assert {os.path.basename(path) for path in errors} == {"text.mp3", "empty.wav", "cut.wav"}
    assert content == index.path.read_bytes()


def test_recording_that_changes_meanwhile_is_left_out(folder, encoder, monkeypatch):
    path, read = folder / "b" / "bell.wav", encoder.read

    def changing(recording):
        yield from read(recording)
        if recording == str(path):
            write(path, clip("bell", seed=9))

    monkeypatch.setattr(encoder, "read", changing)
    report, _, errors = build(encoder, folder)
    assert report.recordings == 8
    assert "changed while it was read" in str(errors[str(path)])


def test_library_without_usable_recordings_gives_no_index(tmp_path, encoder):
    empty, output = tmp_path / "empty", tmp_path / "library.index"
    empty.mkdir()
    assert "is empty" in refusal(build_index, encoder, [empty], output)
    assert "no such file or folder" in refusal(build_index, encoder, [tmp_path / "no"], output)
    (empty / "text.wav").write_text("no sound")
    assert "no recording can be used" in refusal(build_index, encoder, [empty], output)
    file = tmp_path / "file"
    file.touch()
    assert "cannot be" in refusal(build_index, encoder, [empty], file / "library.index")
    assert sorted(tmp_path.iterdir()) == [empty, file]


def test_second_run_is_refused(folder, encoder):
    work = folder.parent / "library.index.work"
    work.mkdir()
    with folder_lock(work):
        assert "another process is writing it" in refusal(build, encoder, folder)
    assert build(encoder, folder)[0].recordings == 9


def test_damaged_and_foreign_indexes_are_refused(index, encoder, tmp_path):
    content, path = index.path.read_bytes(), tmp_path / "damaged.index"
    for size in (0, 5, 300, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        assert "is no whole index" in refusal(open_index, path)
    arrays = load_file(index.path)
    metadata = {"format": "tinymu index 1", "model": "0", "checkpoint": "", "seconds": "4"}
    save_file(arrays | {"window_norms": arrays["window_norms"][1:]}, path, metadata)
    assert "disagree in size: window_norms" in refusal(open_index, path)
    save_file({"windows": np.zeros((2, 3), np.float16)}, path)
    assert "its format is None" in refusal(open_index, path)
    assert "no such index" in refusal(open_index, tmp_path / "missing.index")
    assert "has windows of 4 s, not 5 s" in refusal(
        check_model, index, encoder.info._replace(seconds=5.0)
    )
    message = refusal(check_model, index, encoder.info._replace(model="0"))
    assert "was made by another model (nano)" in message


def test_nearest_is_the_largest_cosine():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((BLOCK_ROWS + 700, 64)).astype(np.float16)
    queries = rng.standard_normal((3, 64)).astype(np.float16)
    exact = vectors.astype(float) @ queries.astype(float).T
    exact /= np.linalg.norm(vectors.astype(float), axis=1)[:, None]
    exact /= np.linalg.norm(queries.astype(float), axis=1)
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    values, numbers = nearest(vectors, lengths, queries)
    np.testing.assert_allclose(values, exact.max(1), atol=1e-5)
    np.testing.assert_array_equal(numbers, exact.argmax(1))


@pytest.mark.parametrize("by_window", [False, True])
def test_similar_recordings_are_those_of_the_largest_cosine(index, encoder, by_window, tmp_path):
    write(tmp_path / "query.flac", clip("pluck", 9.5, seed=1))
    entry = encoder.embed_recording(tmp_path / "query.flac")
    matches = similar(index, Query(entry.read(), entry.spans, entry.silent), 4, by_window)
    query = entry.read().astype(float)
    scores = {}
    for number, recording in enumerate(index.files):
        vectors = index.windows[index.rows(number)].astype(float)
        one, other = (query, vectors) if by_window else (query.mean(0)[None], vectors.mean(0)[None])
        cosines = one @ other.T / np.outer(*(np.linalg.norm(v, axis=1) for v in (one, other)))
        scores[recording.file] = cosines
    expected = sorted(scores, key=lambda file: -scores[file].max())[:4]
    assert [os.path.relpath(m.file, index.path.parent) for m in matches] == expected
    for match, file in zip(matches, expected, strict=True):
        assert match.similarity == pytest.approx(scores[file].max(), abs=1e-3)
    if by_window:
        i, j = np.unravel_index(scores[expected[0]].argmax(), scores[expected[0]].shape)
        number = [recording.file for recording in index.files].index(expected[0])
        assert matches[0][2:4] == tuple(index.window_spans[index.rows(number)][j])
        assert matches[0][4:] == tuple(entry.spans[i])
    else:
        assert matches[0][4:] == (0, 9.5)
    assert (
        refusal(similar, index, Query(entry.read(), entry.spans, entry.silent), 0)
        == "top is 0; give 1 or more"
    )


def test_silent_windows_are_similar_to_nothing(index, encoder, music, tmp_path):
    quiet, loud = np.zeros(4 * SAMPLE_RATE, np.int16), clip("organ")
    write(tmp_path / "query.wav", np.concatenate([quiet, loud]))
    entry = encoder.embed_recording(tmp_path / "query.wav")
    assert entry.silent.tolist() == [True, False]
    matches = similar(index, Query(entry.read(), entry.spans, entry.silent), 20, True)
    assert matches[0].file == str(music / "o" / "organ.wav")
    assert matches[0][4:] == (4, 8)
    assert len(matches) == 8
    entry = encoder.embed_recording(music / "silent.wav")
    query = Query(entry.read(), entry.spans, entry.silent)
    assert similar(index, query, 1)[0].file == str(music / "silent.wav")
    assert "is silent" in refusal(similar, index, query, 1, True)


def test_recording_of_the_index_is_not_similar_to_itself(index, music, tmp_path):
    path = music / "b" / "bell.wav"
    query = indexed_query(index, path, audio_fingerprint(path))
    assert len(similar(index, query, 20)) == 8
    copy = shutil.copy(path, tmp_path / "copy.wav")
    query = indexed_query(index, copy, audio_fingerprint(copy))
    assert similar(index, query, 1)[0].similarity == 1
    assert indexed_query(index, path, "0") is None


def test_duplicates_are_grouped(folder, encoder):
    pluck, bell = (folder / name for name in ("p/pluck.wav", "b/bell.wav"))
    shutil.copy(bell, folder / "copy.wav")
    write(folder / "copy.flac", clip("bell"))
    write(folder / "cut.wav", clip("pluck", 9.5)[: 5 * SAMPLE_RATE])
    write(folder / "quiet.wav", clip("pluck", 9.5) * 0.7 / 32768)
    write(folder / "silent_too.wav", np.zeros(SAMPLE_RATE * 5, np.int16))
    build(encoder, folder)
    index = open_index(folder.parent / "library.index")
    by_file = {
        os.path.basename(group.file): {os.path.basename(c.file): c for c in group.copies}
        for group in find_duplicates(index, 0.95)
    }
    assert set(by_file) == {"bell.wav", os.path.basename(pluck)}
    kinds = {name: copy.kind for name, copy in by_file["bell.wav"].items()}
    assert kinds == {"copy.wav": "same audio", "copy.flac": "same sound"}
    assert {c.kind for c in by_file["pluck.wav"].values()} == {"near"}
    assert set(by_file["pluck.wav"]) == {"cut.wav", "quiet.wav"}
    assert by_file["pluck.wav"]["cut.wav"].similarity == pytest.approx(1, abs=1e-4)
    # With the largest threshold, copies are still found by their bytes and vectors.
    assert [len(group.copies) for group in find_duplicates(index, 1)][:1] == [2]
    for threshold in (0, 1.1, float("nan")):
        assert "give more than 0" in refusal(find_duplicates, index, threshold)


@pytest.fixture
def search(index, tmp_path, monkeypatch):
    """A search in the index, whose answers are stored in a new folder."""

    def make(on_error=lambda *args: pytest.fail(str(args))):
        made = WordSearch(index, NANO, on_error)
        made.log.path = tmp_path / "scores.jsonl"
        made._stored = made.log.read()
        return made

    return make


def test_words_are_found_and_answers_are_stored(search, index, monkeypatch):
    fits = search().find("flute", top=3)
    assert os.path.basename(fits[0].file) == "flute.wav"
    assert fits[0].probability > 0.5
    path = index.path.parent / "music" / "f" / "flute.wav"
    scores = NANO.score(path, "Is it flute?", ["Yes.", "No."])
    assert fits[0].probability == pytest.approx(scores["Yes."], abs=1e-4)
    assert len(search().find("flute")) == 8, "silence fits no words"
    monkeypatch.setattr(find, "read_windows", lambda *args, **kwargs: pytest.fail("asked again"))
    assert search().find("flute", top=3) == fits


def test_budget_is_spent_on_neighbours_of_the_best(search, monkeypatch):
    monkeypatch.setattr(find, "ROUND", 2)
    made, numbers = search(), []
    monkeypatch.setattr(
        made,
        "_scores",
        lambda question, batch, store: (
            numbers.append(batch) or {number: float(number) for number in batch}
        ),
    )
    assert len(made.find("flute", budget=5)) == 5
    assert [len(batch) for batch in numbers] == [2, 2, 1]
    index, first = made.index, numbers[0]
    vectors = index.recordings.astype(float)
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    near = (vectors @ vectors[first].T).max(1)
    audible = [n for n in range(9) if n not in first and not made._is_silent(n)]
    assert numbers[1] == sorted(audible, key=lambda n: -near[n])[:2]
    assert len({number for batch in numbers for number in batch}) == 5


def test_bad_searches_are_refused_and_bad_recordings_left_out(search, index, monkeypatch, capsys):
    assert "no words" in refusal(search().find, " ")
    assert "top is 0" in refusal(search().find, "flute", top=0)
    assert "budget is 0" in refusal(search().find, "flute", budget=0)
    assert "in place of the words" in refusal(search().find, "flute", prompt="Is it?")
    errors = {}
    made = search(errors.__setitem__)
    place = type(index).place
    monkeypatch.setattr(
        type(index),
        "place",
        lambda self, n: place(self, n).replace("bell", "missing").replace("bass", "brass"),
    )
    with made.log.writing():  # as another process would
        assert len(made.find("flute")) == 6
    assert sorted(str(error).split(": ")[1][:7] for error in errors.values()) == [
        "cannot ",
        "changed",
    ]
    assert "answers are not stored" in capsys.readouterr().err
    assert not made.log.read()
    made.log.path.write_text("{}\n")
    assert "is not a stored answer" in refusal(search)


def test_commands(folder, capsys, monkeypatch, index):
    monkeypatch.chdir(folder.parent)
    run = lambda *arguments: run_cli(capsys, monkeypatch, *arguments)  # noqa: E731
    nano = ("--checkpoint", "nano")
    (folder / "text.wav").write_text("no sound")
    code, out, err = run("index", "music", *nano, "--json")
    assert (code, json.loads(out.splitlines()[-1])["failed"]) == (2, 1)
    assert "error: music/text.wav: is text" in err
    assert run("index", "music", *nano)[0] == 2
    (folder / "text.wav").unlink()
    code, out, _ = run("index", "music", *nano, "--update")
    assert (code, out) == (0, "library.index: 9 recordings in 11 windows\n")
    code, out, _ = run("similar", "music/b/bell.wav", "--top", "2", "--windows", "--json")
    assert code == 0
    assert len([json.loads(line) for line in out.splitlines()]) == 2
    write(folder.parent / "query.wav", clip("bell", 2.0))
    code, out, _ = run("similar", "query.wav", *nano, "--top", "1")
    assert out.split()[1] == "music/b/bell.wav"
    assert run("similar", "missing.wav", *nano)[0] == 2
    assert "no duplicates" in run("duplicates")[2]
    code, out, _ = run("find", "flute", *nano, "--top", "1")
    assert (code, out.split()[1]) == (0, "music/f/flute.wav")
    assert (folder.parent / "library.index.scores.jsonl").exists()
    for wrong in (["index"], ["index", "music", "--prune"], ["similar", "query.wav", "--top", "0"]):
        code, _, err = run(*wrong)
        assert (code, err.count("error: ")) == (2, 1)
