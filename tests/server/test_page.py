"""The page in headless Chromium: what a person sees and gets, at two widths."""

import contextlib
import itertools
import json
import os
import shutil
import threading
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soundfile
import uvicorn
from fastapi import FastAPI
from helpers import free_port

import tinymu_jax
from tinymu_jax.data.config import SynthesisConfig
from tinymu_jax.data.synthetic.generate import make_clip
from tinymu_jax.library.description import Description, FieldValue
from tinymu_jax.server.embed import track_html
from tinymu_jax.server.page import build_page, mount_page
from tinymu_jax.server.run import PageServer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
QUESTION = "What instrument is playing?"
OPTIONS = ("string", "organ", "flute", "trumpet", "bell")
OBSERVE = """() => {
  window.seen = [];
  const newest = () => document.querySelector("#answers article p")?.innerText ?? "";
  const note = () => window.seen.push(newest());
  const changes = {subtree: true, childList: true, characterData: true};
  new MutationObserver(note).observe(document.querySelector("#answers"), changes);
}"""
"""JavaScript: collects the texts that the newest answer had."""
needs_browser = pytest.mark.browser


FACTS = Description(
    file="a & b.wav",
    seconds=10.0,
    caption="A <string> plays.",
    fields={
        "main_instrument": FieldValue("string", 0.934, 1.0),
        "mood": FieldValue(None, 0.2, 0.5),
    },
    bpm=92.5,
    key="C major",
    time_signature=None,
    silent=False,
    timeline=(),
)


@pytest.fixture(scope="module")
def nano():
    return tinymu_jax.load("nano")


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """The folder to which browsers' files are uploaded."""
    folder = tmp_path_factory.mktemp("uploads")
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    yield folder
    os.environ.pop("GRADIO_TEMP_DIR")
    if before is not None:
        os.environ["GRADIO_TEMP_DIR"] = before


@contextlib.contextmanager
def serving(page):
    """Serves a page in a thread; gives its address."""
    app, port = mount_page(FastAPI(), page, max_bytes=2 << 20), free_port()
    server = PageServer(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(nano, uploads):
    with serving(build_page(nano, "nano", lambda path: FACTS)) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium (chromium, chromium-browser or chrome on the PATH)")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """A recording of three windows with different instruments, the last of them short."""
    path = tmp_path_factory.mktemp("songs") / "a & b.wav"
    clips = [make_clip(SynthesisConfig(seconds=4, seed=seed), 0)[1] for seed in (1, 2, 3)]
    soundfile.write(path, np.concatenate(clips)[: 10 * 16_000], 16_000, "PCM_16")
    return path


@pytest.fixture
def visit(browser, address):
    """Opens the page at a width in a session of its own; checks what the browser asked for."""
    contexts = []

    def open_page(width=1280, height=800):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        # Programs are compiled at the first clicks, beside other tests.
        page.set_default_timeout(180_000)
        page.requests, page.failures = set(), []
        page.on("request", lambda request: page.requests.add(request.url))
        page.on("pageerror", lambda error: page.failures.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#recording input[type=file]", state="attached")
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            hosts = {urlsplit(url).netloc for url in page.requests} - {""}
            assert hosts == {urlsplit(address).netloc}
            assert page.failures == []
        context.close()


def upload(page, path, appears="#track img"):
    page.set_input_files("#recording input[type=file]", str(path))
    page.wait_for_selector(appears)


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def ask(page, question=QUESTION):
    page.fill("#question textarea", question)
    page.click("#ask")
    page.wait_for_selector("#answers article p:not(.writing)")
    return page.inner_text("#answers article:first-child p")


def check_fit(page, width):
    """Nothing is wider than the window, and what one presses lies in it."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    controls = page.locator("button:visible, textarea:visible, audio:visible, input:visible")
    boxes = [control.bounding_box() for control in controls.all()]
    assert len(boxes) > 5
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)


# --- what a person does, from the upload to the file with the results -----------------------------


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_from_upload_to_download(visit, nano, song, width, tmp_path):
    page = visit(width)
    upload(page, song)
    assert page.inner_text("figcaption b") == song.name
    assert float(page.get_attribute(".picture", "data-seconds")) == 10.0
    assert page.evaluate("document.querySelector('.picture img').naturalWidth") == 998
    check_fit(page, width)

    page.evaluate(OBSERVE)
    caption = "Describe the music in full."
    assert ask(page, caption) == nano.ask(song, caption)
    pieces = list(dict.fromkeys(page.evaluate("window.seen")))
    assert len(pieces) > 3
    assert all(later.startswith(text.strip()) for text, later in itertools.pairwise(pieces))

    tab(page, "Options")
    page.fill("#choice textarea", QUESTION)
    page.fill("#options textarea", "\n".join(["", *OPTIONS, " "]))
    page.click("#score")
    page.wait_for_selector(".bar")
    check_fit(page, width)
    scores = nano.score(song, QUESTION, OPTIONS)
    rows = [row.inner_text().split() for row in page.locator(".bar").all()]
    best_first = sorted(scores, key=lambda option: -scores[option])
    assert rows == [[option, f"{100 * scores[option]:.1f}%"] for option in best_first]

    tab(page, "Timeline")
    page.fill("#each textarea", QUESTION)
    page.click("#listen")
    page.wait_for_selector("#windows .caption")
    check_fit(page, width)
    whole = nano.ask(song, QUESTION, whole=True)
    assert page.locator(".windows span").all_inner_texts() == [w.answer for w in whole.timeline]
    assert page.inner_text("#windows .caption").endswith(whole.text)

    tab(page, "Fields")
    page.click("#find")
    page.wait_for_selector("table.fields")
    check_fit(page, width)
    cells = page.locator("table.fields td").all_inner_texts()
    assert cells[:6] == ["main instrument", "string", "93%", "mood", "unknown", "20%"]
    assert cells[6:] == ["bpm", "92.5", "measured", "key", "C major", "measured"]
    assert page.inner_text("#fields .caption") == "A <string> plays."

    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "a & b.json"
    download.value.save_as(tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results == {
        "file": song.name,
        "model": "nano",
        "seconds": 10.0,
        "silent": False,
        "answers": [{"question": caption, "answer": nano.ask(song, caption)}],
        "scores": [{"question": QUESTION, "whole": False, "probabilities": pytest.approx(scores)}],
        "whole": {
            "question": QUESTION,
            "answer": whole.text,
            "timeline": [window._asdict() for window in whole.timeline],
        },
        "description": FACTS.to_json(),
    }


@needs_browser
def test_the_playhead_follows_and_clicks_seek(visit, song):
    page = visit()
    upload(page, song)
    tab(page, "Timeline")
    page.click("#listen")
    page.wait_for_selector("#windows .caption")
    time = "document.querySelector('#recording audio').currentTime"
    head = "parseFloat(document.querySelector('.playhead').style.left)"

    page.click(".strip .block:nth-child(2)")
    assert page.evaluate(time) == 4
    assert page.evaluate(head) == pytest.approx(40)
    assert page.locator(".windows .now").inner_text().startswith("0:04 to 0:08")
    # The last window was moved back to be full: its block is what is new in it.
    page.click(".windows li:nth-child(3) button")
    assert page.evaluate(time) == 6
    block = page.locator(".strip .block:nth-child(3)").get_attribute("style")
    assert "left:80.000%;width:20.000%" in block
    box = page.locator(".picture").bounding_box()
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 20)
    assert page.evaluate(time) == pytest.approx(9, abs=0.1)
    page.evaluate("document.querySelector('#recording audio').currentTime = 1")
    page.evaluate("document.querySelector('#recording audio').play()")
    page.wait_for_function(f"{head} > 13")
    assert page.evaluate(head) == pytest.approx(10 * page.evaluate(time), abs=3)


@needs_browser
def test_sessions_do_not_mix(visit, nano, song, tmp_path):
    other = tmp_path / "other.wav"
    soundfile.write(other, make_clip(SynthesisConfig(seconds=4, seed=5), 0)[1], 16_000)
    pages = {path: visit() for path in (song, other)}
    question = "Describe the music in full."
    for path, page in pages.items():
        upload(page, path)
        page.fill("#question textarea", question)
    for page in pages.values():
        page.click("#ask")
    for path, page in pages.items():
        page.wait_for_selector("#answers article p:not(.writing)")
        assert page.locator("#answers article p").all_inner_texts() == [nano.ask(path, question)]
    assert nano.ask(song, question) != nano.ask(other, question)


# --- bad input ------------------------------------------------------------------------------------


@needs_browser
def test_bad_input_is_a_sentence_and_the_page_goes_on(visit, song, tmp_path):
    page = visit(390)
    page.click("#ask")
    page.wait_for_selector("#answers .notice")
    assert "no recording yet" in page.inner_text("#answers .notice")

    def refused(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            soundfile.write(path, content, 16_000)
        upload(page, path, "#track .notice")
        text = page.inner_text("#track .notice")
        page.click("#ask")
        page.wait_for_selector("#answers .notice")
        check_fit(page, 390)
        page.get_by_label("Clear").click()
        page.wait_for_selector("#track .notice", state="detached")
        return text

    assert refused("words.mp3", b"no sound at all\n" * 9).startswith("words.mp3: is text")
    assert "short.wav" in refused("short.wav", np.zeros(100))
    assert "silent.wav: is silent" in refused("silent.wav", np.zeros(80_000))

    upload(page, song)
    page.fill("#question textarea", "why " * 999)
    page.click("#ask")
    page.wait_for_selector("#answers .notice")
    assert "the prompt has" in page.inner_text("#answers .notice")
    tab(page, "Options")
    page.fill("#options textarea", "piano")
    page.click("#score")
    page.wait_for_selector("#bars .notice")
    assert "give at least two" in page.inner_text("#bars .notice")
    tab(page, "Ask")
    assert ask(page)


@needs_browser
def test_a_file_that_is_too_large_is_refused(visit, song, tmp_path):
    page = visit(390)
    soundfile.write(tmp_path / "long.wav", np.zeros(1_500_000), 16_000)
    page.set_input_files("#recording input[type=file]", str(tmp_path / "long.wav"))
    page.wait_for_selector(".toast-body")
    assert "exceed the maximum allowed size" in page.inner_text(".toast-body")
    upload(page, song)
    assert ask(page)


@needs_browser
def test_a_new_recording_clears_the_results_and_may_not_be_playable(visit, song, tmp_path):
    page = visit()
    upload(page, song)
    ask(page)
    page.get_by_label("Clear").click()
    page.wait_for_selector("#track img", state="detached")
    # Chromium plays no AIFF.
    path = tmp_path / "other.aiff"
    soundfile.write(path, make_clip(SynthesisConfig(seconds=4, seed=5), 0)[1], 16_000)
    upload(page, path)
    assert page.locator("#answers article").count() == 0
    assert "cannot play" in page.inner_text(".track .mute")
    assert ask(page)


@needs_browser
def test_files_of_a_session_are_removed(visit, uploads, song):
    page = visit()
    upload(page, song)
    assert len([path for path in uploads.rglob("*") if path.is_file()]) >= 1
    page.close()
    for _ in range(100):
        if not list(uploads.iterdir()):
            break
        threading.Event().wait(0.1)
    assert list(uploads.iterdir()) == []


@needs_browser
def test_a_server_stops_while_a_page_is_open(browser, nano, uploads, song):
    page = browser.new_page()
    with serving(build_page(nano, "nano")) as address:
        page.goto(address)
        upload(page, song)
        assert page.get_by_role("tab").all_inner_texts() == ["Ask", "Options", "Timeline"]
    page.close()


@pytest.mark.parametrize("component", ["recording", "question"])
@pytest.mark.parametrize("path", [__file__, "http://127.0.0.1:9/song.wav"])
def test_a_request_cannot_name_a_file_or_an_address(address, uploads, path, component):
    config = httpx.get(f"{address}config").json()
    ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
    event = next(e for e in config["dependencies"] if ids[component] in e["inputs"])
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    data = [file if one == ids[component] else None for one in event["inputs"]]
    session = {"session_hash": f"{component}{len(path)}"}
    request = {"data": data, "fn_index": event["id"], **session}
    assert httpx.post(f"{address}gradio_api/queue/join", json=request).status_code == 200
    with httpx.stream("GET", f"{address}gradio_api/queue/data", params=session) as events:
        messages = [json.loads(line[6:]) for line in events.iter_lines() if line[:5] == "data:"]
    last = next(m for m in messages if m["msg"] == "process_completed")
    assert not last["success"]
    assert last["output"]["error"] == "files have to be uploaded"
    assert not list(uploads.rglob(Path(path).name))


@pytest.mark.parametrize("path", [__file__, "pyproject.toml", "/etc/hostname"])
def test_files_of_the_server_are_not_served(address, path):
    assert httpx.get(f"{address}gradio_api/file={path}").status_code in (403, 404)


def test_an_upload_has_a_limit(address):
    files = {"files": ("long.wav", b"0" * (3 << 20))}
    assert httpx.post(f"{address}gradio_api/upload", files=files).status_code == 413


# --- the same parts in a notebook -----------------------------------------------------------------


@needs_browser
def test_parts_stand_alone_in_a_notebook(browser, nano, song):
    whole = nano.ask(song, QUESTION, whole=True)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url[:5]))
    page.on("pageerror", lambda error: errors.append(str(error)))
    # Two in one document, as two outputs of a notebook are.
    page.set_content(track_html(song, 4.0) + track_html(song, 4.0, whole))
    page.wait_for_function("document.querySelectorAll('audio')[1].readyState > 0")
    page.click(".windows li:nth-child(2) button")
    times = "[...document.querySelectorAll('audio')].map(audio => audio.currentTime)"
    assert page.evaluate(times) == [0, 4]
    heads = "[...document.querySelectorAll('.playhead')].map(head => head.style.left)"
    assert page.evaluate(heads)[1] == "40%"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert set(requests) <= {"data:"}
    assert errors == []
    page.close()
