"""What the tests of the server share: recordings as requests have them, and a running server."""

import base64
import contextlib
import io
import threading
import time

import numpy as np
import soundfile
import uvicorn

from tinymu_jax.server.app import make_app
from tinymu_jax.server.run import address_of, bind

QUESTION = "What is the main instrument?"


def wav(seconds=4.0, frequency=440.0, **options):
    """Returns the content of a sound file with a tone, and its samples at 16 kHz."""
    time_axis = np.arange(int(seconds * 16_000)) / 16_000
    samples = (0.3 * np.sin(2 * np.pi * frequency * time_axis)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, **({"format": "WAV", "subtype": "FLOAT"} | options))
    return file.getvalue(), samples


def message(content, text=QUESTION):
    """Returns a message with a recording, given as bytes or as text."""
    data = content if isinstance(content, str) else base64.b64encode(content).decode()
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return {"role": "user", "content": [{"type": "text", "text": text}, audio]}


def question(content, text=QUESTION, **fields):
    """Returns the body of a chat request."""
    return {"model": "nano", "messages": [message(content, text)]} | fields


@contextlib.contextmanager
def running(assistant, config=None, key=""):
    """Runs a server in a thread; gives its address and its app."""
    app = make_app(assistant, "nano", config, key, with_page=False)
    bound = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    # What SIGTERM does in a process of its own.
    app.state.server.stop_serving = lambda: setattr(server, "should_exit", True)
    try:
        yield address_of(bound), app.state.server
    finally:
        server.should_exit = True
        thread.join(30)


def wait_until(condition, seconds=30.0):
    """Waits until a condition is true; fails after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
