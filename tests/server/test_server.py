"""The server: OpenAI's client against it, its limits, bad requests, and its end."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
from fastapi.testclient import TestClient
from helpers import ROOT, free_port, refusal
from server_process import QUESTION, message, question, running, wait_until, wav

import tinymu_jax
from tinymu_jax.inference.continuous import Answer
from tinymu_jax.server.app import make_app
from tinymu_jax.server.config import ServerConfig
from tinymu_jax.server.run import bind, model_id

LIMITS = {"max_upload_mb": 1.0, "max_audio_seconds": 20.0, "max_tokens": 64}


@pytest.fixture(scope="module")
def assistant():
    return tinymu_jax.load("nano")


@pytest.fixture(scope="module")
def served(assistant):
    with running(assistant, ServerConfig(queue=300, **LIMITS)) as (address, server):
        yield address, server


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def http(served):
    with httpx.Client(base_url=served[0], timeout=60) as client:
        yield client


def metric(http, name):
    text = http.get("/metrics").text
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def ask(client, content, text=QUESTION, **options):
    return client.chat.completions.create(
        model="nano", messages=[message(content, text)], **options
    )


# --- answers -------------------------------------------------------------------------------------


def test_an_answer_is_that_of_ask(client, assistant):
    content, samples = wav()
    answer = ask(client, content)
    assert answer.choices[0].message.content == assistant.ask(samples, QUESTION)
    assert answer.choices[0].finish_reason == "stop"
    expected = len(assistant.encode_prompt(QUESTION))
    assert answer.usage.prompt_tokens == expected + 25
    assert answer.usage.prompt_tokens_details.audio_tokens == 25
    tokens = assistant.generate_tokens(samples, assistant.encode_prompt(QUESTION))
    assert answer.usage.completion_tokens == len(tokens)
    assert answer.model == "nano"
    assert answer.tinymu["encoded_seconds"] == answer.tinymu["total_seconds"] == 4.0


@pytest.mark.parametrize(("kind", "seconds"), [("MP3", 6.0), ("FLAC", 4.0)])
def test_recordings_of_other_formats(client, assistant, kind, seconds):
    content, _ = wav(seconds, format=kind, subtype=None)
    answer = ask(client, f"data:audio/x;base64,{base64.b64encode(content).decode()}")
    assert answer.choices[0].message.content == assistant.ask(content, QUESTION)
    assert answer.tinymu["encoded_seconds"] == 4.0
    assert answer.tinymu["total_seconds"] == pytest.approx(seconds, abs=0.1)


def test_a_stream_is_the_answer_in_pieces(client):
    content, _ = wav(frequency=220)
    whole = ask(client, content, logprobs=True, top_logprobs=2).choices[0]
    options = {"stream": True, "stream_options": {"include_usage": True}, "logprobs": True}
    *chunks, last = list(ask(client, content, top_logprobs=2, **options))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content for delta in deltas) == whole.message.content
    assert len([delta for delta in deltas if delta.content]) > 1
    assert [c.choices[0].finish_reason for c in chunks][-2:] == [None, whole.finish_reason]
    assert last.choices == []
    rows = [row for c in chunks if c.choices[0].logprobs for row in c.choices[0].logprobs.content]
    assert last.usage.completion_tokens == len(rows) == len(whole.logprobs.content)
    assert [row.token for row in rows] == [row.token for row in whole.logprobs.content]
    assert chunks[-1].tinymu["total_seconds"] == 4.0


def test_log_probabilities(client, assistant):
    content, samples = wav()
    answer = ask(client, content, logprobs=True, top_logprobs=3, max_tokens=3).choices[0]
    assert answer.finish_reason == "length"
    prompt = assistant.encode_prompt(QUESTION)
    tokens = assistant.generate_tokens(samples, prompt, 3)
    logits = assistant.target_logits(samples, prompt, tokens).astype(np.float64)
    for row, logit, token in zip(answer.logprobs.content, logits, tokens, strict=False):
        total = np.log(np.exp(logit).sum())
        assert row.logprob == pytest.approx(logit[token] - total, abs=1e-4)
        assert row.top_logprobs[0].token == row.token  # greedy
        top = [entry.logprob for entry in row.top_logprobs]
        assert top == pytest.approx(sorted(logit - total)[:-4:-1], abs=1e-4)
        assert bytes(row.bytes).decode() == row.token
    assert "".join(row.token for row in answer.logprobs.content) == answer.message.content


def test_a_seed_gives_the_same_answer_and_others_do_not(client, assistant):
    content, samples = wav()
    options = {"temperature": 2.0, "top_p": 0.99, "max_tokens": 12}
    texts = [ask(client, content, seed=n, **options).choices[0].message.content for n in (1, 1, 2)]
    options = {"strategy": "top-p", "temperature": 2.0, "top_p": 0.99}
    assert texts[0] == texts[1] == assistant.ask(samples, QUESTION, 12, seed=1, **options)
    assert texts[2] == assistant.ask(samples, QUESTION, 12, seed=2, **options) != texts[0]


def test_temperature_0_is_greedy(client):
    content, _ = wav()
    expected = ask(client, content).choices[0].message.content
    assert ask(client, content, temperature=0, seed=5).choices[0].message.content == expected


def test_a_later_question_is_about_the_recording_before(client, assistant):
    content, samples = wav(frequency=330)
    messages = [
        message(content),
        {"role": "assistant", "content": "A piano."},
        {"role": "user", "content": "Is the tempo fast or slow?"},
    ]
    answer = client.chat.completions.create(model="nano", messages=messages)
    expected = assistant.ask(samples, "Is the tempo fast or slow?")
    assert answer.choices[0].message.content == expected
    assert answer.tinymu["unused_messages"] == 2


def test_clients_at_once_get_the_answers_that_each_gets_alone(client, assistant):
    texts = [QUESTION, "Describe the music you hear.", "Is the tempo fast or slow?"]
    clips = [wav(frequency=110 * (1 + n)) for n in range(4)]
    cases = [(clips[n % 4], texts[n % 3]) for n in range(16)]

    def run(case):
        (content, _), text = case
        return ask(client, content, text).choices[0].message.content

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(run, cases))
    assert answers == [assistant.ask(samples, text) for (_, samples), text in cases]
    assert len(set(answers)) > 2


def test_embeddings(client, assistant):
    content, samples = wav()
    text = base64.b64encode(content).decode()
    expected = assistant.embed(samples).mean(axis=0)
    # The client asks for base64 by itself, and for floats where told.
    for options in ({}, {"encoding_format": "float"}):
        got = client.embeddings.create(
            model="nano", input=[text, f"data:audio/wav;base64,{text}"], **options
        )
        for row in got.data:
            np.testing.assert_allclose(row.embedding, expected, rtol=1e-5, atol=1e-5)
    assert [row.index for row in got.data] == [0, 1]


def test_models_health_and_metrics(client, http):
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").id == "nano"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
    assert http.get("/health").json() == {"status": "ok"}
    before = metric(http, "tinymu_completion_tokens_total")
    path = 'tinymu_requests_total{path="/v1/chat/completions",status="200"}'
    answers = metric(http, path)
    used = ask(client, wav()[0]).usage.completion_tokens
    assert metric(http, "tinymu_completion_tokens_total") - before == used
    assert metric(http, path) - answers == 1
    assert metric(http, "tinymu_queue_length") == metric(http, "tinymu_running_answers") == 0


# --- what is refused -----------------------------------------------------------------------------

TONE = wav(1.0)[0]


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"temperature": -1}, 400, "temperature: Input should be greater than or equal to 0"),
        ({"temperature": "warm"}, 400, "temperature: "),
        ({"top_p": 0.5}, 400, "top_p without temperature"),
        ({"max_tokens": 0}, 400, "max_tokens is 0: this server gives 1 to 64"),
        ({"max_tokens": 65}, 400, "max_tokens is 65"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 400, "differ"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            400,
            "messages.0.content.0.text: Field required",
        ),
        ({"stream": "yes"}, 400, "stream: Input should be a valid boolean"),
        ({"n": 2}, 400, "the parameter 'n' is not supported"),
        ({"stop": ["."]}, 400, "the parameter 'stop' is not supported"),
        ({"tools": [{"type": "function"}]}, 400, "the parameter 'tools' is not supported"),
        ({"typo": 1}, 400, "the parameter 'typo' is not known"),
        ({"top_logprobs": 2}, 400, "top_logprobs without logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs: Input should be less"),
        ({"model": "gpt-4o"}, 404, "the model 'gpt-4o' is not here"),
        ({"model": None}, 400, "model: Input should be a valid string"),
        ({"messages": []}, 400, "messages: List should have at least 1 item"),
        ({"messages": "hello"}, 400, "messages: Input should be a valid"),
        ({"messages": [{"role": "user", "content": "What?"}]}, 400, "no recording"),
        ({"messages": [message(TONE, " ")]}, 400, "the last message has no text"),
        ({"messages": [message(TONE, "why " * 99)]}, 400, "the model takes 64: shorten it"),
        ({"messages": [message(TONE, "x" * 10**5)]}, 400, "100000 characters, the model takes 64"),
        ({"messages": [message(TONE, "\ud800")]}, 400, ""),
        ({"messages": [message("ha, no")]}, 400, "is not base64 text"),
        ({"messages": [message("")]}, 400, "the recording is empty"),
        ({"messages": [message(b"hello, this is text")]}, 400, "is text, not a recording"),
        ({"messages": [message(b"\0\1\2\3" * 99)]}, 400, "the recording: "),
        ({"messages": [message(TONE[:100])]}, 400, "the recording: "),
        ({"messages": [message(wav(0.01)[0])]}, 400, "less than one window"),
        (
            {"messages": [message(wav(21, subtype="PCM_16")[0])]},
            400,
            "21.0 s, this server takes 20",
        ),
        ({"messages": [message("file:///etc/passwd")]}, 400, "addresses are not opened"),
        ({"messages": [message("https://example.com/a.wav")]}, 400, "addresses are not opened"),
        ({"messages": [message("/etc/passwd")]}, 400, "is not base64 text"),
        ({"messages": [message("/etc/hosts00")]}, 400, "the recording: "),
        (
            {"messages": [{"role": "system", "content": "Be brief."}, message(TONE)]},
            400,
            "a message of the role 'system' would change nothing",
        ),
        ({"messages": [message(TONE), {"role": "assistant", "content": "A"}]}, 400, "not the user"),
        (
            {"messages": [{"role": "user", "content": message(TONE)["content"] * 2}]},
            400,
            "the message has 2 recordings",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            400,
            "'text', 'input_audio'",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(http, change, status, text):
    content = json.dumps(question(TONE) | change)
    response = http.post(
        "/v1/chat/completions", content=content, headers={"Content-Type": "application/json"}
    )
    error = response.json()["error"]
    assert response.status_code == status, error
    assert text in error["message"]
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 600


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe{}", 400),
        (b"[" * 100_000, 400),
        (b'{"model": "nano", "seed": ' + b"9" * 5000 + b"}", 400),
    ],
)
def test_bodies_that_are_no_requests(http, body, status):
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        response = http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status
        assert response.json()["error"]["message"]


def test_neutral_values_of_unsupported_parameters_are_accepted(client):
    neutral = {"n": 1, "stop": None, "presence_penalty": 0, "user": "me", "seed": -(2**40)}
    neutral |= {"response_format": {"type": "text"}, "store": False, "top_p": 1}
    assert ask(client, TONE, **neutral).choices[0].message.content


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["a calm piano"], "is not base64 text"),
        ([], "input has 0 recordings"),
        (["UklGRg=="] * 17, "input: List should have at most 16 items"),
        ({"a": 1}, "input"),
        ("ftp://host/x", "addresses are not opened"),
    ],
)
def test_embeddings_that_cannot_be_computed(http, given, text):
    response = http.post("/v1/embeddings", json={"model": "nano", "input": given})
    assert response.status_code == 400
    assert text in response.json()["error"]["message"]


def test_addresses_and_methods_that_are_not_there(http):
    assert http.post("/v1/completions", json={}).status_code == 404
    refused = http.get("/v1/chat/completions")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert refused.json()["error"]["message"] == "another method is needed"
    assert http.delete("/health").status_code == 405
    assert http.head("/health").status_code == 200
    assert http.get("/../../etc/passwd").json()["error"]["type"] == "invalid_request_error"
    response = http.post("/v1/chat/completions", content=json.dumps(question(TONE)))
    assert response.status_code == 415


def test_the_page_leaves_addresses_of_the_api_alone(assistant):
    pytest.importorskip("gradio", reason="the page needs the extra serve")
    http = TestClient(make_app(assistant, "tiny"))
    assert "text/html" in http.get("/").headers["content-type"]
    for method, path, status in (
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/health", 405),
        ("POST", "/v1/completions", 404),
        ("GET", "/v1/files", 404),
        ("GET", "/v1", 404),
        ("OPTIONS", "/v1/chat/completions", 405),
    ):
        response = http.request(method, path)
        assert (response.status_code, list(response.json())) == (status, ["error"])


def test_errors_reach_openais_client_as_its_own(client):
    with pytest.raises(openai.BadRequestError, match="is not base64") as caught:
        ask(client, "no!")
    assert caught.value.code == "invalid_audio"
    assert caught.value.param == "messages.0"


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
def test_uploads_over_the_limit_are_refused_and_not_stored(http, announced):
    block = b'{"model": "' + b"x" * 1_000_000
    blocks = [block] * 40

    def chunks():
        yield from blocks

    content = b"".join(blocks) if announced else chunks()
    response = http.post(
        "/v1/chat/completions", content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert response.json()["error"]["message"] == "the request has more than 1 MB: send less"


def test_an_upload_that_does_not_end_is_given_up(assistant):
    limits = ServerConfig(queue=0, batch=1, body_timeout=0.2)
    with running(assistant, limits) as (address, server):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n"
                b"Content-Type: application/json\r\n\r\n{"
            )
            assert b" 408 " in connection.recv(1000)
        assert server._num_requests == 0


def test_uploads_that_do_not_end_take_no_places(assistant):
    with running(assistant, ServerConfig(queue=0, batch=1)) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(3)]
        for connection in idle:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n"
                b"Content-Type: application/json\r\n\r\n{"
            )
        body = question(TONE, max_tokens=2)
        response = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)
        assert response.status_code == 200
        for connection in idle:
            connection.close()


@pytest.fixture
def slow(assistant, monkeypatch):
    """A server for one answer at a time, with one place to wait. Steps are slow; no answer ends."""
    add = Answer._add
    monkeypatch.setattr(Answer, "_add", lambda answer, chosen, row, _: add(answer, chosen, row, -1))
    with running(assistant, ServerConfig(batch=1, queue=1, max_tokens=500)) as (address, server):
        step = server.worker._decoder.step

        def slow_step():
            time.sleep(0.05)
            return step()

        monkeypatch.setattr(server.worker._decoder, "step", slow_step)
        yield address, server


SHORT, LONG = {"max_tokens": 2}, {"max_tokens": 500}


def test_a_full_queue_says_when_to_come_back(slow):
    address, server = slow
    url = f"{address}/v1/chat/completions"
    body = question(TONE, stream=True, **LONG)
    with ThreadPoolExecutor(2) as pool:
        with httpx.stream("POST", url, json=body, timeout=60) as first:
            first.iter_lines()
            wait_until(lambda: server.worker.num_running == 1)
            second = pool.submit(lambda: httpx.post(url, json=question(TONE, **SHORT), timeout=60))
            wait_until(lambda: server.worker.num_waiting == 1)
            third = httpx.post(url, json=question(TONE, **SHORT))
            assert third.status_code == 429
            assert 1 <= int(third.headers["Retry-After"]) <= 60
            assert third.json()["error"]["type"] == "rate_limit_error"
        assert second.result().status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_row(slow, stream):
    address, server = slow
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps(question(TONE, stream=stream, **LONG)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        wait_until(lambda: server.worker.num_running == 1)
        (answer,) = server.worker._running
    wait_until(lambda: server.worker.num_running == 0)
    wait_until(lambda: server._num_requests == 0)
    assert not answer.is_done
    assert not server.worker._decoder.answers
    assert "tinymu_cancelled_requests_total 1.0" in server.metrics.text().decode()
    # The server answers the next one.
    response = httpx.post(
        f"{address}/v1/chat/completions", json=question(TONE, **SHORT), timeout=60
    )
    assert response.status_code == 200


def test_a_client_that_goes_away_leaves_the_queue(slow):
    address, server = slow
    url = f"{address}/v1/chat/completions"
    body = question(TONE, stream=True, **LONG)
    with httpx.stream("POST", url, json=body, timeout=60) as first:
        first.iter_lines()
        wait_until(lambda: server.worker.num_running == 1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=question(TONE, **SHORT), timeout=0.5)
        wait_until(lambda: server.worker.num_waiting == 0)
        assert server.worker.num_running == 1


def test_answers_that_take_too_long_are_ended_with_the_server(slow):
    address, server = slow
    body = question(TONE, **LONG)
    with ThreadPoolExecutor(2) as pool:
        url = f"{address}/v1/chat/completions"
        streamed = pool.submit(lambda: httpx.post(url, json=body | {"stream": True}, timeout=60))
        wait_until(lambda: server.worker.num_running == 1)
        waits = pool.submit(lambda: httpx.post(url, json=body, timeout=60))
        wait_until(lambda: server.worker.num_waiting == 1)
        server.stop_serving()
        assert waits.result().status_code == 503
        with pytest.raises(httpx.RemoteProtocolError):
            streamed.result()
    wait_until(lambda: not server.worker.is_alive)


def test_hundreds_of_requests_at_once(served, http):
    address, server = served
    bodies = [json.dumps(question(TONE, max_tokens=1 + n % 5)) for n in range(10)]
    broken = [b"{", json.dumps(question("no")).encode(), b"x" * 2_000_000]

    def send(n):
        content = broken[n // 4 % 3] if n % 4 == 0 else bodies[n % 10]
        headers = {"Content-Type": "application/json"}
        return many.post("/v1/chat/completions", content=content, headers=headers).status_code

    limits = httpx.Limits(max_connections=None)
    client = httpx.Client(base_url=address, limits=limits, timeout=120)
    with client as many, ThreadPoolExecutor(200) as pool:
        statuses = list(pool.map(send, range(200)))
    assert [statuses.count(status) for status in (200, 400, 413)] == [150, 34, 16]
    assert server._num_requests == 0
    assert http.get("/health").json() == {"status": "ok"}


def test_an_error_in_the_computation_ends_its_requests_only(served, client, monkeypatch):
    _, server = served

    def fail():
        raise MemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(server.worker._decoder, "step", fail)
        with pytest.raises(openai.InternalServerError, match="its log says why"):
            ask(client, TONE)
    assert ask(client, TONE).choices[0].message.content


# --- the documentation ---------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "serve.md").read_text("utf-8")


@pytest.fixture
def song(tmp_path, monkeypatch):
    (tmp_path / "song.wav").write_bytes(wav()[0])
    monkeypatch.chdir(tmp_path)


def test_the_commands_of_the_page(served, song):
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    blocks = [block.replace("http://127.0.0.1:8000", served[0]) for block in blocks]
    outputs = [
        subprocess.run(["bash", "-euc", block], capture_output=True, check=True, text=True).stdout
        for block in blocks
        if "curl" in block
    ]
    chat, embeddings, watch = outputs
    assert json.loads(chat)["choices"][0]["message"]["content"]
    assert len(json.loads(embeddings)["data"][0]["embedding"]) == 800
    assert "tinymu_queue_length 0.0" in watch


def test_the_python_of_the_page(served, song, capsys):
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(block.replace("http://127.0.0.1:8000", served[0]), {})
    whole, streamed = capsys.readouterr().out.split("\n", 1)
    assert whole.startswith(f"{streamed} {{'encoded_seconds': 4.0")


# --- the key, the socket, the command ------------------------------------------------------------


def test_a_key_is_asked_for(assistant):
    with running(assistant, key="s3cret") as (address, _):
        assert httpx.get(f"{address}/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic !"}):
            for path in ("/v1/models", "/metrics", "/"):
                response = httpx.get(address + path, headers=headers)
                assert response.status_code == 401
                assert response.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{address}/metrics", auth=("any", "s3cret")).status_code == 200
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="s3cret", max_retries=0)
        assert [model.id for model in client.models.list()] == ["nano"]


def test_addresses_that_cannot_be_used():
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        message = refusal(bind, "127.0.0.1", port)
        assert message.startswith(f"127.0.0.1:{port}: cannot be used (Address already in use)")
    assert "give another" in refusal(bind, "no such host", 0)
    assert refusal(bind, "127.0.0.1", 70_000).startswith("port is 70000")


def test_a_checkpoint_gives_no_path_away(tmp_path):
    (tmp_path / "my_run").mkdir()
    assert model_id(str(tmp_path / "my_run")) == "my_run"
    assert model_id("AndreasXi/TinyMU") == "AndreasXi/TinyMU"
    assert model_id("nano") == "nano"


@pytest.mark.parametrize(
    ("field", "value"), [("batch", 0), ("queue", -1), ("max_upload_mb", 0), ("max_tokens", 10_000)]
)
def test_limits_out_of_range(field, value):
    assert refusal(ServerConfig, **{field: value}).startswith(f"{field} is {value}")


def test_the_command_serves_until_sigterm():
    port = free_port()
    command = [sys.executable, "-m", "tinymu_jax", "serve", "--checkpoint", "nano"]
    command += ["--port", str(port), "--no-warm-up", "--no-page"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            assert process.stdout.readline().startswith(f"serving nano at {address} ")
            wait_until(lambda: _answers(address))
            # While an answer is being generated, the end waits for it.
            with ThreadPoolExecutor(1) as pool:
                url = f"{address}/v1/chat/completions"
                answer = pool.submit(lambda: httpx.post(url, json=question(TONE), timeout=60))
                wait_until(lambda: _counts(address))
                process.send_signal(signal.SIGTERM)
                assert answer.result().status_code in (200, 499)
            assert process.wait(30) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def _answers(address):
    try:
        return httpx.get(f"{address}/health").status_code == 200
    except httpx.HTTPError:
        return False


def _counts(address):
    text = httpx.get(f"{address}/metrics").text
    waits = re.search(r"^tinymu_queue_length (\S+)$", text, re.MULTILINE)[1]
    runs = re.search(r"^tinymu_first_token_seconds_count (\S+)$", text, re.MULTILINE)[1]
    return float(waits) or float(runs)
