"""The web application: its routes, and what happens to a request on its way."""

import asyncio
import base64
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from tinymu_jax.audio.load import Clip
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.server.body import BodyReader
from tinymu_jax.server.completion import Completion
from tinymu_jax.server.config import ServerConfig
from tinymu_jax.server.errors import INTERNAL, ApiError
from tinymu_jax.server.key import RequireKey
from tinymu_jax.server.metrics import CONTENT_TYPE, Metrics
from tinymu_jax.server.requests import ChatQuestion, read_audio, read_question
from tinymu_jax.server.schema import MAX_INPUTS, ChatRequest, EmbeddingsRequest, parse
from tinymu_jax.server.worker import Job, Progress, Worker

LOG = logging.getLogger("tinymu.server")
READERS = 2
"""Number of threads that decode recordings."""
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))
CLIENT_CLOSED = 499
"""Status of requests whose client went away; seen in the metrics only."""


def make_app(
    assistant: Assistant,
    model: str,
    config: ServerConfig | None = None,
    key: str = "",
    with_page: bool = True,
) -> FastAPI:
    """Return the web application for a model.

    Args:
        assistant: the model.
        model: its id in requests.
        config: limits; None: the defaults.
        key: key that requests must have; empty: none.
        with_page: serve the page at `/`, if gradio is installed.
    """
    server = Server(assistant, model, config or ServerConfig())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.worker.start()
        yield
        server.close()

    app = FastAPI(title="tinymu", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.server = server
    for path, method, handler in (
        ("/health", "GET", server.health),
        ("/metrics", "GET", server.show_metrics),
        ("/v1/models", "GET", server.models),
        ("/v1/models/{name:path}", "GET", server.one_model),
        ("/v1/chat/completions", "POST", server.chat),
        ("/v1/embeddings", "POST", server.embeddings),
    ):
        app.add_api_route(path, handler, methods=[method], response_model=None)
        allowed = [method]
        if method == "GET":
            allowed.append("HEAD")
            app.add_api_route(
                path, handler, methods=["HEAD"], include_in_schema=False, response_model=None
            )
        others = sorted(METHODS.difference(allowed))
        refuse = _refuse_with(405, {"Allow": ", ".join(allowed)})
        app.add_api_route(path, refuse, methods=others, include_in_schema=False)
    # Else the page, which takes all other addresses, would answer.
    for path in ("/v1", "/v1/{path:path}"):
        refuse = _refuse_with(404)
        app.add_api_route(path, refuse, methods=sorted(METHODS), include_in_schema=False)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, _other_error)
    if with_page:
        app = _mount_page(app, assistant, model, server.config)
    if key:
        app.add_middleware(RequireKey, key=key)
    return app


def _mount_page(app: FastAPI, assistant: Assistant, model: str, config: ServerConfig) -> FastAPI:
    """Serve the page at `/`, if gradio is installed."""
    if not find_spec("gradio"):
        return app
    from tinymu_jax.server.page import build_page, mount_page
    from tinymu_jax.server.page_handlers import describe_with

    page = build_page(assistant, model, describe_with(assistant))
    return mount_page(app, page, int(config.max_upload_mb * 1e6))


class Server:
    """The handlers of all routes, and what they share."""

    def __init__(self, assistant: Assistant, model: str, config: ServerConfig) -> None:
        """Create the handlers; see `make_app` for the arguments."""
        self.assistant, self.model, self.config = assistant, model, config
        self.metrics = Metrics()
        self.worker = Worker(assistant, config.batch, self.metrics)
        self.metrics.watch(lambda: self.worker.num_waiting, lambda: self.worker.num_running)
        self.created = int(time.time())
        self._bodies = BodyReader(config)
        self._readers = ThreadPoolExecutor(READERS, "tinymu-reader")
        self._num_requests = 0
        self._mean_seconds = 1.0

    def close(self) -> None:
        """Stop the threads."""
        self.worker.stop()
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def health(self) -> Response:
        """Answer that the server works, or that its computing thread has ended."""
        alive = self.worker.is_alive
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    async def show_metrics(self) -> Response:
        """Return the metrics in the format of Prometheus."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def models(self) -> dict[str, Any]:
        """List the one model."""
        return {"object": "list", "data": [self._model()]}

    async def one_model(self, name: str) -> dict[str, Any]:
        """Describe the model."""
        self._check_model(name)
        return self._model()

    async def chat(self, request: Request) -> Response:
        """Answer a question about a recording."""
        return await self._handle(request, "/v1/chat/completions", self._chat)

    async def embeddings(self, request: Request) -> Response:
        """Embed recordings."""
        return await self._handle(request, "/v1/embeddings", self._embed)

    async def _handle(
        self, request: Request, path: str, handler: Callable[["_Visit"], Awaitable[Response]]
    ) -> Response:
        """Handle a request, and count it when its response has been sent."""
        visit = _Visit(self, request, path)
        status = 500
        try:
            self._check_room()
            response = await handler(visit)
            status = response.status_code
        except ApiError as error:
            status = error.status
            raise
        except InputError as error:
            status = 400
            raise ApiError(400, str(error), code="invalid_audio") from None
        except ClientDisconnect:
            status = CLIENT_CLOSED
            self.metrics.cancelled.inc()
            raise
        except asyncio.CancelledError:
            # The time to finish answers after SIGTERM is over.
            status = 503
            raise ApiError(503, "the server stops: ask again later") from None
        except Exception:
            LOG.exception("a request to %s failed", path)
            raise ApiError(500, INTERNAL) from None
        finally:
            if status != 200 or not visit.is_stream:
                self._leave(visit, status)
        return response

    def _check_room(self) -> None:
        """Raise `ApiError` if as many requests are answered or wait as may."""
        if self._num_requests >= self.config.max_requests:
            raise ApiError(
                429,
                f"{self._num_requests} requests are being answered or wait: try again",
                code="queue_full",
                headers={"Retry-After": str(self._seconds_to_wait())},
            )

    def _admit(self, visit: "_Visit") -> None:
        """Give a request a place, once its body is there: slow uploads must not take all places."""
        self._check_room()
        self._num_requests += 1
        visit.is_admitted = True

    def _leave(self, visit: "_Visit", status: int) -> None:
        """Give the place of a request away, and count the request."""
        self._num_requests -= visit.is_admitted
        visit.count(status)
        if status == 200:
            self._mean_seconds += 0.1 * (visit.seconds - self._mean_seconds)

    def _seconds_to_wait(self) -> int:
        """Return the seconds after which there should be a place again."""
        rounds = max(1.0, self.config.queue / self.config.batch / 4)
        return min(60, max(1, math.ceil(rounds * self._mean_seconds)))

    async def _chat(self, visit: "_Visit") -> Response:
        async with self._bodies.read(visit.request) as body:
            self._admit(visit)
            asked, request = await self._in_reader(self._read_chat, body)
        del body
        completion = Completion(request, asked, self.assistant, self.model)
        job = Job(asked.question)
        visit.watch(job)
        self.worker.submit(job)
        # The response begins with the first token: until then, errors have their own status.
        events = _events(job, await visit.first_event(job))
        if request.stream:
            visit.is_stream = True
            return _EventStream(
                self._stream(visit, completion, events),
                lambda: self._end_stream(visit, job, completion),
            )
        try:
            async for progress in events:
                completion.add(progress)
        finally:
            self._finish(visit, job, completion)
        return JSONResponse(completion.body())

    def _read_chat(self, body: bytes) -> tuple[ChatQuestion, ChatRequest]:
        request = parse(body, ChatRequest)
        self._check_model(request.model)
        asked = read_question(request, self.assistant, self.config)
        # The recording as text is not needed any more.
        request.messages = []
        return asked, request

    async def _stream(
        self, visit: "_Visit", completion: Completion, events: AsyncIterator[Progress]
    ) -> AsyncIterator[str]:
        try:
            async for event in completion.stream(events):
                yield event
        except ClientDisconnect:
            return
        except Exception:
            LOG.exception("a stream failed")
            visit.failed = True
            yield f"data: {ApiError(500, INTERNAL).to_json()}\n\n"

    def _end_stream(self, visit: "_Visit", job: Job, completion: Completion) -> None:
        status = 500 if visit.failed else 200 if completion.finish_reason else CLIENT_CLOSED
        if status == CLIENT_CLOSED:
            self.metrics.cancelled.inc()
        self._finish(visit, job, completion)
        self._leave(visit, status)

    def _finish(self, visit: "_Visit", job: Job, completion: Completion) -> None:
        """End a job, and count its tokens."""
        visit.end()
        if completion.finish_reason is None:
            self.worker.cancel(job)
        usage = completion.usage()
        self.metrics.prompt_tokens.inc(usage["prompt_tokens"])
        self.metrics.completion_tokens.inc(usage["completion_tokens"])

    async def _embed(self, visit: "_Visit") -> Response:
        async with self._bodies.read(visit.request) as body:
            self._admit(visit)
            request, clips = await self._in_reader(self._read_embeddings, body)
        del body
        vectors = []
        for clip in clips:
            job = Job(lambda clip=clip: self.assistant.embed(clip))
            visit.watch(job)
            self.worker.submit(job)
            try:
                columns = await visit.first_event(job)
            finally:
                visit.end()
            # One vector for a recording: the mean over time.
            vectors.append(columns.astype(np.float64).mean(axis=0).astype(np.float32))
        return JSONResponse(_embeddings_body(vectors, request, self.model))

    def _read_embeddings(self, body: bytes) -> tuple[EmbeddingsRequest, list[Clip]]:
        request = parse(body, EmbeddingsRequest)
        self._check_model(request.model)
        if not 1 <= len(request.audio) <= MAX_INPUTS:
            raise ApiError(
                400, f"input has {len(request.audio)} recordings: send 1 to {MAX_INPUTS}", "input"
            )
        clips = [
            read_audio(data, self.assistant, self.config, f"input.{index}")
            for index, data in enumerate(request.audio)
        ]
        request.input = []
        return request, clips

    async def _in_reader(self, function: Callable[[bytes], Any], body: bytes) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, body)

    def _model(self) -> dict[str, Any]:
        return {"id": self.model, "object": "model", "created": self.created, "owned_by": "tinymu"}

    def _check_model(self, name: str) -> None:
        if name != self.model:
            raise ApiError(
                404,
                f"the model {name[:80]!r} is not here: this server has {self.model!r}",
                "model",
                "model_not_found",
            )


class _Visit:
    """A request on its way through the server."""

    def __init__(self, server: Server, request: Request, path: str) -> None:
        self.request, self.path = request, path
        self.is_stream = self.failed = self.is_admitted = False
        self._server, self._start = server, time.perf_counter()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the request's head."""
        return time.perf_counter() - self._start

    def count(self, status: int) -> None:
        """Count the request in the metrics."""
        metrics = self._server.metrics
        metrics.requests.labels(self.path, str(status)).inc()
        metrics.request_seconds.labels(self.path).observe(self.seconds)

    def watch(self, job: Job) -> None:
        """Cancel a job when the client goes away."""

        async def wait() -> None:
            while (await self.request.receive())["type"] != "http.disconnect":
                pass
            job.emit(ClientDisconnect())
            self._server.worker.cancel(job)

        self._watcher = asyncio.create_task(wait())

    def end(self) -> None:
        """Watch no more."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def first_event(self, job: Job) -> Any:
        """Return a job's first event; without one, the job is cancelled."""
        try:
            return await job.next_event()
        except BaseException:
            self.end()
            self._server.worker.cancel(job)
            raise


class _EventStream(StreamingResponse):
    """Server-sent events; calls a function at their end, also if the client has gone away."""

    def __init__(self, events: AsyncIterator[str], on_end: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A generator that has not begun runs no `finally` when it is dropped.
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            LOG.warning("the server stopped while an answer was streamed")
        finally:
            self._on_end()


async def _events(job: Job, first: Progress) -> AsyncIterator[Progress]:
    """Yield a question's events to the last, from the first on."""
    yield first
    progress = first
    while progress.finish_reason is None:
        progress = await job.next_event()
        yield progress


def _embeddings_body(
    vectors: list[np.ndarray], request: EmbeddingsRequest, model: str
) -> dict[str, Any]:
    """Return the JSON object of embeddings."""
    as_text = request.encoding_format == "base64"
    rows = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if as_text
            else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": rows, "model": model, "usage": usage}


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    paths = "see /v1/models, /v1/chat/completions, /v1/embeddings, /health and /metrics"
    message = {404: f"there is nothing at this address: {paths}", 405: "another method is needed"}
    text = message.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, text, headers=error.headers).response()


def _refuse_with(
    status: int, headers: dict[str, str] | None = None
) -> Callable[[], Awaitable[Response]]:
    """Return a handler that raises an HTTP error."""

    async def handle() -> Response:
        raise HTTPException(status, headers=headers)

    return handle


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED)


async def _other_error(request: Request, error: Exception) -> Response:
    return ApiError(500, INTERNAL).response()
