"""Responses of `/v1/chat/completions`, whole and as streams of server-sent events."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tinymu_jax.audio.windows import is_silent
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.continuous import TokenChoice
from tinymu_jax.server.requests import ChatQuestion
from tinymu_jax.server.schema import ChatRequest
from tinymu_jax.server.worker import Progress
from tinymu_jax.tokenizer import END_TEXT, TextStream

LEAST_LOG_PROBABILITY = -9999.0
"""Stands for minus infinity, which JSON does not have."""


class Completion:
    """The answer to a chat request, as far as it has been generated."""

    def __init__(
        self, request: ChatRequest, asked: ChatQuestion, assistant: Assistant, model: str
    ) -> None:
        """Create an empty answer of the model with the id `model`."""
        self.request, self.asked, self.model = request, asked, model
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self.tokens: list[int] = []
        self.num_audio = 0
        self.finish_reason: str | None = None
        self._assistant = assistant
        self._text, self._log_probabilities = TextStream(assistant.tokenizer), []
        self._pieces: list[str] = []

    def add(self, progress: Progress) -> tuple[str, list[dict[str, Any]] | None]:
        """Add new tokens; return their text and, if asked for, their log-probabilities."""
        self.tokens += [choice.token for choice in progress.choices]
        self.num_audio, self.finish_reason = progress.num_audio, progress.finish_reason
        piece = self._text.add(self.tokens)
        if self.finish_reason:
            piece += self._text.finish()
        self._pieces.append(piece)
        if not self.request.logprobs:
            return piece, None
        rows = [self._log_probability(choice) for choice in progress.choices]
        self._log_probabilities += rows
        return piece, rows

    def body(self) -> dict[str, Any]:
        """Return the JSON object of a whole response."""
        logprobs = self._log_probabilities if self.request.logprobs else None
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(self._pieces), "refusal": None},
            "logprobs": _logprobs(logprobs),
            "finish_reason": self.finish_reason,
        }
        return self._head("chat.completion") | {
            "choices": [choice],
            "usage": self.usage(),
            "tinymu": self.details(),
        }

    def usage(self) -> dict[str, Any]:
        """Return the numbers of tokens; an audio vector counts as a token of the prompt."""
        prompt = self.num_audio + len(self.asked.question.prompt)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": len(self.tokens),
            "total_tokens": prompt + len(self.tokens),
            "prompt_tokens_details": {"audio_tokens": self.num_audio, "cached_tokens": 0},
        }

    def details(self) -> dict[str, Any]:
        """Return what was used of the recording and of the conversation."""
        clip = self.asked.question.clip
        return {
            "encoded_seconds": round(clip.encoded_seconds, 3),
            "total_seconds": round(clip.total_seconds, 3),
            "damage": clip.damage,
            "silent": is_silent(clip.samples),
            "unused_messages": self.asked.num_unused,
        }

    def chunk(
        self, delta: dict[str, str] | None, logprobs: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Return the JSON object of an event of a stream; without `delta`, the one with `usage`."""
        chunk = self._head("chat.completion.chunk")
        if delta is None:
            return chunk | {"choices": [], "usage": self.usage()}
        choice = {"index": 0, "delta": delta, "logprobs": _logprobs(logprobs)}
        chunk["choices"] = [choice | {"finish_reason": self.finish_reason}]
        if self.finish_reason:
            chunk["tinymu"] = self.details()
        return chunk

    async def stream(self, events: AsyncIterator[Progress]) -> AsyncIterator[str]:
        """Yield the server-sent events of the answer."""
        yield _event(self.chunk({"role": "assistant", "content": ""}))
        async for progress in events:
            text, logprobs = self.add(progress)
            if text or logprobs or self.finish_reason:
                yield _event(self.chunk({"content": text}, logprobs))
        options = self.request.stream_options
        if options is not None and options.include_usage:
            yield _event(self.chunk(None))
        yield "data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _log_probability(self, choice: TokenChoice) -> dict[str, Any]:
        row = self._token(choice.token, choice.log_probability)
        return row | {"top_logprobs": [self._token(*pair) for pair in choice.top]}

    def _token(self, token: int, log_probability: float) -> dict[str, Any]:
        is_end = token == self._assistant.config.end_token
        text = END_TEXT if is_end else self._assistant.tokenizer.decode([token])
        # A token may hold only a part of a character's bytes.
        content = None if "\ufffd" in text else list(text.encode())
        value = max(log_probability, LEAST_LOG_PROBABILITY)
        return {"token": text, "logprob": value, "bytes": content}


def _logprobs(rows: Sequence[dict[str, Any]] | None) -> dict[str, Any] | None:
    return None if rows is None else {"content": rows, "refusal": None}


def _event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
