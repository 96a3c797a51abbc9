"""The `tinymu serve` command."""

import os
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated

import tyro

from tinymu_jax.cli.options import Model
from tinymu_jax.errors import InputError, note

REQUIRED = ("fastapi", "uvicorn", "prometheus_client")


@dataclass(frozen=True)
class Serve:
    """Answer questions over HTTP, as OpenAI's clients ask them. Ctrl-C or SIGTERM stops it."""

    host: str = "127.0.0.1"
    """Address to listen at; the default is reachable from this machine only, 0.0.0.0 from all."""
    port: int = 8000
    """Port to listen at; 0: any free one."""
    batch: int = 16
    """Largest number of answers that are decoded together."""
    queue: int = 64
    """Largest number of requests that wait; more are refused with status 429."""
    max_upload_mb: float = 32.0
    """Largest size of a request in megabytes; base64 is a third larger than the sound file."""
    max_audio_seconds: float = 1800.0
    """Longest recording in seconds; of an accepted one, the model uses the start."""
    max_tokens: int = 512
    """Largest number of tokens of an answer."""
    shutdown_timeout: float = 10.0
    """Seconds after SIGTERM in which answers may be finished."""
    warm_up: bool = True
    """Compile the programs before listening, not at the first requests."""
    page: bool = True
    """Serve a page for browsers at /, if gradio is installed."""
    open: bool = False
    """Open the page in the browser."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)

    def run(self) -> int:
        """Serve until SIGTERM or Ctrl-C; return the exit code 0."""
        missing = [name for name in REQUIRED if find_spec(name) is None]
        if missing:
            raise InputError(
                f"{', '.join(missing)}: not installed; run pip install 'tinymu_jax[serve]'"
            )
        if self.open and not (self.page and find_spec("gradio")):
            raise InputError("open: there is no page; install gradio, and leave --no-page out")
        from tinymu_jax.server.app import make_app
        from tinymu_jax.server.config import KEY_VARIABLE, ServerConfig
        from tinymu_jax.server.run import LOOPBACK, address_of, bind, model_id, run
        from tinymu_jax.server.warm_up import warm_up

        config = ServerConfig(
            batch=self.batch,
            queue=self.queue,
            max_upload_mb=self.max_upload_mb,
            max_audio_seconds=self.max_audio_seconds,
            max_tokens=self.max_tokens,
            shutdown_timeout=self.shutdown_timeout,
        )
        bound = bind(self.host, self.port)
        assistant = self.model.load_assistant()
        assistant.tokenizer  # noqa: B018 - if it is missing, nothing can be asked
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key and self.host not in LOOPBACK:
            note(f"{self.host}: others can reach it; set {KEY_VARIABLE} to ask them for a key")
        if self.warm_up:
            warm_up(assistant, config.batch)
        name = model_id(self.model.checkpoint)
        app = make_app(assistant, name, config, key, self.page)
        print(f"serving {name} at {address_of(bound)} (Ctrl-C stops it)", flush=True)
        run(app, bound, config, self.open)
        return 0
