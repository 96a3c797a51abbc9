"""The language-model writer, against local test servers."""

import itertools
import json
import re
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai
import pytest
from helpers import refusal
from writer_words import WORDS, Words, make_clip

from tinymu_jax.data.annotations.clip import CATEGORIES
from tinymu_jax.qa_builder.llm.client import LLMClient, UnansweredError
from tinymu_jax.qa_builder.llm.writer import WriterConfig, write_items
from tinymu_jax.qa_builder.questions.item import WRITER
from tinymu_jax.qa_builder.questions.templates import Templates
from tinymu_jax.qa_builder.tags.vocabulary import Tag

MESSAGES = [
    {"role": "system", "content": "Write."},
    {"role": "user", "content": '{"said": ["A piano, number 0."]}'},
]
TEMPLATES = Templates({("caption", ""): ("Describe the music.",)})
KEY = "sk-test-0123456789abcdef"


def good(clip="", captions=("A calm jazz piano.",)):
    """Returns a usable answer."""
    question = {"question": "What plays?", "answer": "A piano.", "category": "instrument"}
    return json.dumps({"captions": [f"{one}{clip}" for one in captions], "questions": [question]})


class Sent:
    """A request as the server saw it."""

    def __init__(self, path, headers, body):
        self.path, self.headers, self.body = path, headers, body
        self.facts = {}
        if body:
            self.facts = json.loads(body["messages"][1]["content"].partition("\n")[0])

    @property
    def number(self):
        """Of the clip, by its caption."""
        return int(re.search(r"number (\d+)", self.facts["said"][0])[1])


class Status:
    """A response with another status or body."""

    def __init__(self, code, text="", **headers):
        self.code, self.text = code, text
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@contextmanager
def serving(reply, models=("small-model", "other-model")):
    """Runs a server that sends the text or `Status` of `reply`; yields its URL and log."""
    log, ended = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            log.append(Sent(self.path, self.headers, None))
            if isinstance(models, Status):
                self.put(models)
                return
            result = {"object": "list", "data": [{"id": name} for name in models]}
            self.put(Status(200, json.dumps(result)))

        def do_POST(self):
            text = self.rfile.read(int(self.headers["Content-Length"]))
            if not text:  # the client was closed
                return
            sent = Sent(self.path, self.headers, json.loads(text))
            log.append(sent)
            said = reply(sent, ended)
            if not isinstance(said, Status):
                message = {"role": "assistant", "content": said}
                said = Status(200, json.dumps({"choices": [{"index": 0, "message": message}]}))
            self.put(said)

        def put(self, said):
            try:
                self.send_response(said.code)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.text.encode())))
                self.end_headers()
                self.wfile.write(said.text.encode())
            except OSError:  # whoever asked has gone
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", log
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def always(text):
    return lambda sent, ended: text


def chats(log):
    return [sent for sent in log if sent.path == "/v1/chat/completions"]


@pytest.fixture(autouse=True)
def _no_key_and_no_proxy(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "build" / "llm.jsonl"


def write(url, clips, cache, vocabulary=WORDS, progress=lambda done, total: None, **settings):
    config = WriterConfig(url, **{"parallel": 2} | settings)
    return write_items(clips, vocabulary, TEMPLATES, config, cache, progress)


# Requests and items.


def test_accepted_texts_become_items(cache):
    clip = make_clip()
    with serving(always(good(captions=("A calm piano.", "Jazz for piano.")))) as (url, _):
        items, report = write(url, [clip], cache)
    assert [(i.task, i.prompt, i.answer, i.category, i.tags) for i in items] == [
        ("Captioning", "Describe the music.", "A calm piano.", "", ()),
        ("Captioning", "Describe the music.", "Jazz for piano.", "", ()),
        ("QA", "What plays?", "A piano.", "instrument", ("piano",)),
    ]
    assert all(item.by == WRITER and item.clip is clip for item in items)
    assert len({item.key for item in items}) == 3
    assert report._replace(skipped=()) == ("small-model", 1, 0, 2, 1, {}, ())


def test_a_questions_tags_are_those_its_answer_names(cache):
    question = {"question": "What plays?", "answer": "Jazz on piano, guitar.", "category": "genre"}
    said = [question, question | {"question": "And what?", "category": "instrument"}]
    tags = {"instrument": ("piano", "banjo", "guitar"), "genre": ("jazz",)}
    with serving(always(json.dumps({"captions": [], "questions": said}))) as (url, _):
        items, _ = write(url, [make_clip(tags=tags)], cache)
    assert [item.tags for item in items] == [("jazz",), ("guitar", "piano")]


def test_a_prompt_holds_tags_and_captions_only(cache):
    clip = make_clip(
        tags={"instrument": ("piano",), "genre": ()},
        denied={"voice": ("female voice",)},
        captions=("Über\n piano.",),
        artist="Somebody",
        test_sets=("AudioSet eval",),
    )
    with serving(always(good())) as (url, log):
        write(url, [clip], cache)
    [sent] = chats(log)
    assert sent.facts == {
        "heard": {"instrument": ["piano"]},
        "not heard": {"voice": ["female voice"]},
        "said": ["Über piano."],
    }
    everything = json.dumps(sent.body)
    assert not any(word in everything for word in ("Somebody", "c0", "Made", "CC0", "AudioSet"))


def test_a_request_has_the_schema(cache):
    with serving(always(good())) as (url, log):
        write(url, [make_clip()], cache, temperature=0.3)
    [sent] = chats(log)
    assert sent.body["model"] == "small-model"
    assert sent.body["temperature"] == 0.3
    shape = sent.body["response_format"]
    assert shape["type"] == "json_schema"
    question = shape["json_schema"]["schema"]["properties"]["questions"]["items"]
    assert question["properties"]["category"]["enum"] == list(CATEGORIES)


def test_seeds_depend_on_clip_and_build(cache, tmp_path):
    with serving(always(good())) as (url, log):
        write(url, [make_clip(0), make_clip(1)], cache, parallel=1)
        write(url, [make_clip(0)], tmp_path / "same")
        write(url, [make_clip(0)], tmp_path / "other", seed=1)
    first, second, same, other = [sent.body["seed"] for sent in chats(log)]
    assert same == first
    assert len({first, second, other}) == 3
    assert all(0 <= seed < 2**31 for seed in (first, second, other))


def test_a_named_model_is_used(cache):
    with serving(always(good())) as (url, log):
        _, report = write(url, [make_clip()], cache, model="other-model")
    assert chats(log)[0].body["model"] == report.model == "other-model"


def test_items_are_in_the_order_of_the_clips(cache, tmp_path):
    def reply(sent, ended):
        time.sleep(0.02 * (7 - sent.number))  # the last clips are answered first
        return good()

    clips = [make_clip(number) for number in range(8)]
    with serving(reply) as (url, _):
        side_by_side, _ = write(url, clips, cache, parallel=8)
        one_by_one, _ = write(url, clips, tmp_path / "other", parallel=1)
    order = [json.loads(line)["clip"] for line in cache.read_text().splitlines()]
    assert order != sorted(order), "the answers did not come in another order"
    assert [item.clip.clip for item in side_by_side] == [f"c{n}" for n in range(8) for _ in "ab"]
    assert side_by_side == one_by_one


def test_requests_are_concurrent(cache):
    together = threading.Barrier(4, timeout=20)

    def reply(sent, ended):
        together.wait()  # nobody is answered before four have asked
        return good()

    with serving(reply) as (url, _):
        _, report = write(url, [make_clip(n) for n in range(4)], cache, parallel=4)
    assert not report.skipped


def test_progress_counts_clips(cache):
    seen = []
    with serving(always(good())) as (url, _):
        clips = [make_clip(n) for n in range(3)]
        write(url, clips[:1], cache)
        write(url, clips, cache, progress=lambda *now: seen.append(now))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_clip_without_tags_and_captions_is_skipped(cache):
    nothing = make_clip(1, tags={"genre": ()}, captions=())
    with serving(always(good())) as (url, log):
        _, report = write(url, [make_clip(0), nothing], cache)
    assert len(chats(log)) == report.requested == 1
    assert report.skipped == ((nothing, "it has no tags and no captions"),)


# Malformed answers.


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}\n```\n", " ```JSON {} ``` "])
def test_code_fences_are_removed(cache, fence):
    with serving(always(fence.replace("{}", good()))) as (url, _):
        items, report = write(url, [make_clip()], cache)
    assert (len(items), report.skipped) == (2, ())


NONSENSE = {
    "words": "I am happy to help!",
    "nothing": None,
    "cut": good()[:-5],
    "a list": "[]",
    "no questions": '{"captions": []}',
    "captions no list": '{"captions": "A piano.", "questions": []}',
    "a caption no text": '{"captions": [1], "questions": []}',
    "a question no object": '{"captions": [], "questions": ["What plays?"]}',
    "no answer": '{"captions": [], "questions": [{"question": "a", "category": "mood"}]}',
    "nothing written": '{"captions": [], "questions": []}',
    "too deep": "[" * 100_000,
}


@pytest.mark.parametrize("name", NONSENSE)
def test_malformed_answers_are_retried_then_skipped(cache, name):
    def reply(sent, ended):
        return NONSENSE[name] if sent.number == 1 else good()

    clips = [make_clip(n) for n in range(3)]
    with serving(reply) as (url, log):
        items, report = write(url, clips, cache, retries=2)
    assert [item.clip.clip for item in items] == ["c0", "c0", "c2", "c2"]
    [(clip, reason)] = report.skipped
    assert clip is clips[1]
    assert reason.startswith("the answer")
    tries = [sent.body["seed"] for sent in chats(log) if sent.number == 1]
    assert len(set(tries)) == 3, "other seeds, or the same nonsense comes again"


def test_a_retry_may_succeed(cache):
    said = iter(["?", good()])
    with serving(lambda *_: next(said)) as (url, _):
        items, report = write(url, [make_clip()], cache)
    assert (len(items), report.skipped) == (2, ())


def test_malformed_completions_are_retried(cache):
    said = iter([Status(200, "<html>"), Status(200, '{"choices": []}'), good()])
    with serving(lambda *_: next(said)) as (url, _):
        items, _ = write(url, [make_clip()], cache)
    assert len(items) == 2


def test_cached_malformed_answers_are_not_requested_again(cache):
    clips = [make_clip(0), make_clip(1)]
    with serving(lambda sent, _: "?" if sent.number else good()) as (url, log):
        first = write(url, clips, cache)
        before = len(chats(log))
        second = write(url, clips, cache)
    assert len(chats(log)) == before
    assert second[0] == first[0]
    assert second[1].skipped == first[1].skipped


def test_malformed_answers_alone_are_not_cached(cache):
    with serving(always("?")) as (url, _):
        _, report = write(url, [make_clip()], cache, retries=0)
    assert len(report.skipped) == 1
    with serving(always(good())) as (url, _):
        items, _ = write(url, [make_clip()], cache)
    assert len(items) == 2


# Servers that fail.


def test_a_broken_server_is_retried(cache):
    said = iter([Status(500), Status(503, "loading"), good()])
    with serving(lambda *_: next(said)) as (url, log):
        items, report = write(url, [make_clip()], cache)
    assert (len(items), len(chats(log)), report.skipped) == (2, 3, ())


def test_a_clip_is_skipped_if_the_server_stays_broken(cache):
    def reply(sent, ended):
        return Status(500, '{"error": {"message": "out of\\n memory"}}') if sent.number else good()

    with serving(reply) as (url, log):
        items, report = write(url, [make_clip(0), make_clip(1)], cache, retries=2)
        assert len(chats(log)) == 1 + 3
        assert len(items) == 2
        assert [reason for _, reason in report.skipped] == ["the server answers 500 out of memory"]
        write(url, [make_clip(0), make_clip(1)], cache, retries=0)
    assert len(chats(log)) == 4 + 1, "it was not kept, and is asked for again"


def test_a_permanent_error_is_not_retried(cache):
    with serving(lambda sent, _: Status(404, "no model") if sent.number else good()) as (url, log):
        _, report = write(url, [make_clip(0), make_clip(1)], cache)
    assert len(chats(log)) == 2
    assert report.skipped[0][1] == "the server answers 404 no model"


def test_retry_after_is_honoured(cache):
    said = iter([Status(429, Retry_After="1"), good()])
    with serving(lambda *_: next(said)) as (url, _):
        start = time.monotonic()
        items, _ = write(url, [make_clip()], cache)
    assert time.monotonic() - start >= 1
    assert len(items) == 2


def test_a_clip_is_skipped_if_retry_after_is_too_long(cache):
    busy = Status(429, "busy", Retry_After="3600")
    with serving(lambda sent, _: busy if sent.number else good()) as (url, log):
        start = time.monotonic()
        _, report = write(url, [make_clip(0), make_clip(1)], cache)
    assert time.monotonic() - start < 10
    assert [reason for _, reason in report.skipped] == ["the server answers 429 busy"]
    assert len(chats(log)) == 2, "a busy server is not hammered"


def test_waits_grow(monkeypatch):
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.1)
    times = []

    def reply(sent, ended):
        times.append(time.monotonic())
        return Status(500) if len(times) < 4 else good()

    with serving(reply) as (url, _):
        LLMClient(url).complete(MESSAGES, {}, model="m")
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert [wait > least for wait, least in zip(waits, (0.07, 0.15, 0.3), strict=True)] == [
        True
    ] * 3


def test_a_clip_is_skipped_after_a_timeout(cache):
    def reply(sent, ended):
        if sent.number == 1:
            ended.wait(30)
        return good()

    with serving(reply) as (url, _):
        start = time.monotonic()
        clips = [make_clip(n) for n in range(3)]
        items, report = write(url, clips, cache, timeout=0.5, retries=1)
        assert 1 <= time.monotonic() - start < 10
    assert len(items) == 4
    assert [reason for _, reason in report.skipped] == [
        "the server cannot be reached (no answer within 0.5 s)"
    ]


def closed_url():
    with serving(always("")) as (url, _):
        return url


def test_an_unreachable_server_is_an_error(cache):
    url = closed_url()
    for model in (None, "small-model"):
        message = refusal(write, url, [make_clip()], cache, model=model)
        assert message.startswith(f"{url}: cannot be reached")
        assert "check that the server runs" in message
    assert not cache.exists()


def test_a_missing_key_is_an_error(cache):
    with serving(always(good()), models=Status(401, "who are you?")) as (url, log):
        message = refusal(write, url, [make_clip()], cache)
    assert message.startswith(f"{url}: answers 401 who are you?")
    assert "OPENAI_API_KEY" in message
    assert len(log) == 1


@pytest.mark.parametrize("models", [Status(404, "nothing"), Status(200, "<html>"), ()])
def test_a_server_without_models_is_an_error(cache, models):
    with serving(always(good()), models=models) as (url, _):
        assert refusal(write, url, [make_clip()], cache).startswith(f"{url}: ")


@pytest.mark.parametrize("said", ["?", Status(500, "broken"), Status(400, "bad")])
def test_twenty_failures_at_the_start_end_the_run(cache, said):
    with serving(always(good())) as (url, _):
        write(url, [make_clip(100)], cache)
    remaining = cache.read_text()
    with serving(always(said)) as (url, log):
        clips = [make_clip(n) for n in range(60)]
        message = refusal(write, url, clips, cache, retries=0)
    assert f"{url}: the first 20 clips got no usable answer" in message
    assert str(cache) in message
    assert cache.read_text() == remaining
    assert len({sent.number for sent in chats(log)}) <= 20 + 2 * 2


def test_nineteen_failures_at_the_start_do_not(cache):
    clips = [make_clip(n) for n in range(21)]
    with serving(lambda sent, _: "?" if sent.number < 19 else good()) as (url, _):
        items, report = write(url, clips, cache, retries=0, parallel=1)
    assert (len(items), len(report.skipped)) == (4, 19)
    assert len(cache.read_text().splitlines()) == 21, "the nonsense is kept once more came"


def test_a_server_that_goes_down_ends_the_run(cache):
    def reply(sent, ended):
        return good() if sent.number < 5 else Status(502, "gone")

    with serving(reply) as (url, _):
        clips = [make_clip(n) for n in range(100)]
        message = refusal(write, url, clips, cache, retries=0, parallel=1)
    assert "20 clips in a row got no answer (last: the server answers 502 gone)" in message
    assert len(cache.read_text().splitlines()) == 5


def test_later_malformed_answers_do_not_end_the_run(cache):
    clips = [make_clip(n) for n in range(30)]
    with serving(lambda sent, _: "?" if sent.number else good()) as (url, _):
        _, report = write(url, clips, cache, retries=0, parallel=1)
    assert len(report.skipped) == 29


# Servers without structured output.


@pytest.mark.parametrize("code", [400, 422])
def test_a_rejected_schema_goes_into_the_prompt(cache, code):
    def reply(sent, ended):
        return Status(code, "what?") if "response_format" in sent.body else good()

    clips = [make_clip(n) for n in range(3)]
    with serving(reply) as (url, log):
        items, _ = write(url, clips, cache, parallel=1)
    assert len(items) == 6
    formats = ["response_format" in sent.body for sent in chats(log)]
    assert formats == [True, False, False, False]
    assert '"additionalProperties"' in chats(log)[1].body["messages"][0]["content"]
    assert '"additionalProperties"' not in chats(log)[0].body["messages"][0]["content"]


def test_a_rejected_request_is_not_a_rejected_schema(cache):
    with serving(lambda sent, _: good() if sent.number else Status(400, "long")) as (url, log):
        _, report = write(url, [make_clip(0), make_clip(1)], cache, parallel=1)
    assert [reason for _, reason in report.skipped] == ["the server answers 400 long"]
    assert "response_format" in chats(log)[-1].body


def test_the_cache_does_not_depend_on_how_the_schema_is_sent(cache):
    with serving(lambda s, _: Status(400) if "response_format" in s.body else good()) as (url, _):
        write(url, [make_clip()], cache)
    with serving(always(good())) as (url, log):
        write(url, [make_clip()], cache)
    assert not chats(log)


# The key.


def test_the_key_is_sent_and_never_written(cache, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")

    def reply(sent, ended):
        return Status(403, f"the key {KEY} is no good") if sent.number else good()

    with serving(reply) as (url, log):
        _, report = write(url, [make_clip(0), make_clip(1)], cache)
    assert {sent.headers["Authorization"] for sent in log} == {f"Bearer {KEY}"}
    assert KEY not in cache.read_text()
    assert "the key ... is no good" in report.skipped[0][1]
    config = WriterConfig(url)
    assert KEY not in f"{config} {asdict(config)} {report}"


def test_without_a_key_none_is_sent(cache):
    with serving(always(good())) as (url, log):
        write(url, [make_clip()], cache)
    assert all("Authorization" not in sent.headers for sent in log)


def test_another_variable_may_hold_the_key(cache, monkeypatch):
    monkeypatch.setenv("OTHER", KEY)
    with serving(always(good())) as (url, log):
        write(url, [make_clip()], cache, key_variable="OTHER")
    assert log[0].headers["Authorization"] == f"Bearer {KEY}"


def test_redirects_are_not_followed(cache, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(always(good())) as (elsewhere, seen):
        moved = Status(302, Location=f"{elsewhere}/models")
        with serving(always(good()), models=moved) as (url, _):
            assert "answers 302" in refusal(write, url, [make_clip()], cache)
    assert not seen


def test_a_malformed_key_is_not_shown(cache, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "one\ntwo")
    message = refusal(write, "http://127.0.0.1:1/v1", [make_clip()], cache)
    assert message.startswith("OPENAI_API_KEY: ")
    assert "two" not in message


# Cache and resumption.


def test_a_cache_line_has_request_answer_and_verdicts(cache):
    said = good(captions=("A calm piano.", "A banjo."))
    with serving(always(said)) as (url, log):
        write(url, [make_clip(3)], cache)
    line = json.loads(cache.read_text())
    assert re.fullmatch("[0-9a-f]{64}", line.pop("key"))
    assert line == {
        "clip": "c3",
        "source": "Made",
        "model": "small-model",
        "temperature": 0.7,
        "seed": chats(log)[0].body["seed"],
        "answer": said,
        "accepted": ["A calm piano.", "What plays? | A piano."],
        "rejected": [
            {"text": "A banjo.", "reason": "names an unknown instrument", "detail": "banjo"}
        ],
        "error": "",
    }


def test_answers_are_written_at_once(cache):
    seen = []

    def look(done, total):
        if done:
            seen.append((done, cache.read_text().count("\n")))

    with serving(always(good())) as (url, _):
        write(url, [make_clip(n) for n in range(3)], cache, progress=look)
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_a_killed_run_resumes(cache, tmp_path):
    clips = [make_clip(n) for n in range(6)]

    def kill(done, total):
        if done == 3:
            raise KeyboardInterrupt

    def reply(sent, ended):
        return good(f" é{sent.number}")

    with serving(reply) as (url, _), pytest.raises(KeyboardInterrupt):
        write(url, clips, cache, progress=kill, parallel=1)
    remaining = cache.read_bytes()
    assert remaining.count(b"\n") == 3
    cache.write_bytes(remaining[:-20])  # as where the kill came while the third line was written
    with serving(reply) as (url, log):
        items, report = write(url, clips, cache, parallel=1)
        assert [sent.number for sent in chats(log)] == [2, 3, 4, 5]
        assert (report.requested, report.cached) == (4, 2)
        whole, _ = write(url, clips, tmp_path / "whole")
    assert items == whole
    assert cache.read_bytes().startswith(b"".join(remaining.splitlines(keepends=True)[:2]))
    assert len(cache.read_text().splitlines()) == 6


def test_a_cache_of_half_a_line_is_empty(cache):
    cache.parent.mkdir()
    cache.write_text('{"key": "ab')
    with serving(always(good())) as (url, _):
        items, _ = write(url, [make_clip()], cache)
    assert len(items) == 2
    assert json.loads(cache.read_text())["clip"] == "c0"


def test_a_full_cache_needs_no_server(cache):
    clips = [make_clip(0), make_clip(1)]
    with serving(always(good())) as (url, _):
        first, _ = write(url, clips, cache, model="small-model")
    remaining = cache.read_bytes()
    again, report = write(url, clips, cache, model="small-model")
    assert again == first
    assert (report.requested, report.cached) == (0, 2)
    assert cache.read_bytes() == remaining


@pytest.mark.parametrize(
    "other",
    [{"model": "other-model"}, {"seed": 1}, {"temperature": 0}, {"captions": 1}, {"questions": 1}],
)
def test_the_cache_depends_on_the_request(cache, other):
    with serving(always(good())) as (url, log):
        write(url, [make_clip()], cache)
        write(url, [make_clip()], cache, **other)
    assert len(chats(log)) == 2
    assert len(cache.read_text().splitlines()) == 2


def test_the_cache_depends_on_the_clips_annotations(cache):
    with serving(always(good())) as (url, log):
        write(url, [make_clip()], cache)
        write(url, [replace(make_clip(), captions=("Piano, number 0.",))], cache)
    assert len(chats(log)) == 2


def test_the_cache_does_not_depend_on_concurrency(cache):
    with serving(always(good())) as (url, log):
        write(url, [make_clip()], cache)
        write(url, [make_clip()], cache, parallel=3, retries=1, timeout=9.0)
    assert len(chats(log)) == 1


def test_cached_answers_are_checked_anew(cache):
    class Strict(Words):
        tags = (*Words.tags, Tag("instrument", "lute"))

    with serving(always(good(captions=("A calm lute.",)))) as (url, log):
        _, first = write(url, [make_clip()], cache)
        _, second = write(url, [make_clip()], cache, vocabulary=Strict())
    assert len(chats(log)) == 1
    assert (first.captions, first.rejected) == (1, {})
    assert (second.captions, second.rejected) == (0, {"names an unknown instrument": 1})


def test_a_repeated_clip_is_requested_once(cache):
    with serving(always(good())) as (url, log):
        items, report = write(url, [make_clip(), make_clip()], cache)
    assert len(chats(log)) == report.requested == 1
    assert len(items) == 4


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"answer": "x"}', '{"key": 1, "answer": "x"}', '{"key": "k"}', ""]
)
def test_a_malformed_cache_is_refused(cache, line):
    cache.parent.mkdir()
    cache.write_text(f'{{"key": "k", "answer": "x"}}\n{line}\n')
    message = refusal(write, "http://127.0.0.1:1/v1", [make_clip()], cache)
    assert message.startswith(f"{cache}: line 2 ")


def test_a_cache_that_cannot_be_written_is_refused(cache, tmp_path):
    (tmp_path / "file").write_text("")
    with serving(always(good())) as (url, _):
        for place in (tmp_path / "file" / "llm.jsonl", tmp_path):
            assert str(tmp_path) in refusal(write, url, [make_clip()], place)


def test_a_full_disk_is_an_error(cache, monkeypatch):
    opened = Path.open

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, text):
            raise OSError(28, "No space left on device")

    def open_full(path, mode="r", *options, **more):
        return Full() if mode == "a" else opened(path, mode, *options, **more)

    monkeypatch.setattr(Path, "open", open_full)
    with serving(always(good())) as (url, _):
        message = refusal(write, url, [make_clip()], cache)
    assert message.startswith(f"{cache}: cannot be written (No space left on device)")


def test_rejections_are_counted_by_reason(cache):
    captions = ("A banjo.", "Rock.")
    with serving(always(good(captions=captions))) as (url, _):
        items, report = write(url, [make_clip(0), make_clip(1)], cache)
    assert report.rejected == {"names an unknown instrument": 2, "names an unknown genre": 2}
    assert (len(items), report.captions, report.questions, report.skipped) == (2, 0, 2, ())


def test_rejected_texts_are_not_repaired(cache):
    said = good(captions=("A calm banjo.", " A calm piano. "))
    with serving(always(said)) as (url, _):
        items, _ = write(url, [make_clip()], cache)
    assert [item.answer for item in items] == ["A calm piano.", "A piano."]


# Settings.


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000/v1", "ftp://host/v1", "http:///v1", "http://host:port/v1"),
        *("http://a b/v1", "http://[::1/v1", "http://me:secret@host/v1", "http://host/v1?key=1"),
    ],
)
def test_malformed_urls_are_refused(cache, url):
    message = refusal(write, url, [make_clip()], cache)
    assert "http://localhost:8000/v1" in message
    assert "secret" not in message


def test_a_url_may_end_in_a_slash(cache):
    with serving(always(good())) as (url, log):
        write(f"{url}/", [make_clip()], cache)
    assert chats(log)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("parallel", 0), ("retries", -1), ("timeout", 0), ("timeout", float("nan"))),
        *(("temperature", -1), ("temperature", 3), ("captions", -1)),
    ],
)
def test_settings_out_of_range_are_refused(cache, name, value):
    assert name in refusal(write, "http://127.0.0.1:1/v1", [make_clip()], cache, **{name: value})


def test_nothing_to_write_is_refused(cache):
    url = "http://127.0.0.1:1/v1"
    assert "captions" in refusal(write, url, [make_clip()], cache, captions=0, questions=0)


def test_a_closed_client_sends_no_request(monkeypatch):
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 1)
    tries = itertools.count()
    with serving(lambda *_: Status(500, str(next(tries)))) as (url, _):
        client = LLMClient(url)
        threading.Timer(0.2, client.close).start()
        start = time.monotonic()
        for _ in range(2):
            with pytest.raises(UnansweredError):
                client.complete(MESSAGES, {}, model="m")
    assert time.monotonic() - start < 20
    assert next(tries) == 1


def test_a_missing_openai_package_is_an_error(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    message = refusal(write, "http://127.0.0.1:1/v1", [make_clip()], cache)
    assert "pip install 'tinymu_jax[openai]'" in message
