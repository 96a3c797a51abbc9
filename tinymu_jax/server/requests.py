"""Turns the bodies of requests into questions about recordings."""

import base64
import binascii
import re
import secrets
from typing import NamedTuple

from tinymu_jax.audio.load import Clip, read_clip
from tinymu_jax.errors import InputError
from tinymu_jax.inference.assistant import Assistant
from tinymu_jax.inference.generate import Sampling
from tinymu_jax.server.config import DEFAULT_NEW_TOKENS, ServerConfig
from tinymu_jax.server.errors import ApiError
from tinymu_jax.server.schema import ChatRequest, Message
from tinymu_jax.server.worker import Question

_DATA_URI = re.compile(r"data:[^,]{0,100};base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,20}:", re.IGNORECASE)


MAX_CHARACTERS = 32
"""Largest number of characters of a question for each token that the model takes; longer texts are
refused before they are converted to tokens."""


class ChatQuestion(NamedTuple):
    """What a chat request asks."""

    question: Question
    num_unused: int
    """Number of earlier messages whose text is not used."""


def read_audio(data: str, assistant: Assistant, config: ServerConfig, param: str) -> Clip:
    """Return the recording in a base64 text or data URI, cut to the length that the model takes.

    Raises:
        ApiError: the text is no base64, the bytes are no recording, or it is too long or damaged.
    """
    content = _decode_base64(data, param)
    try:
        clip = read_clip(
            content,
            assistant.max_seconds,
            keep_damaged=assistant.keep_damaged,
            name="the recording",
        )
    except InputError as error:
        message = re.sub(r",? or use what can be read with --keep-damaged", "", str(error))
        raise ApiError(400, message, param, "invalid_audio") from None
    if clip.total_seconds > config.max_audio_seconds:
        raise ApiError(
            400,
            f"the recording has {clip.total_seconds:.1f} s, this server takes "
            f"{config.max_audio_seconds:g}: send a part of it",
            param,
            "audio_too_long",
        )
    return clip


def _decode_base64(data: str, param: str) -> bytes:
    start = _DATA_URI.match(data)
    if not start and _ADDRESS.match(data):
        raise ApiError(
            400,
            "addresses are not opened, neither on the web nor on this machine: send the recording "
            "itself as base64",
            param,
            "invalid_audio",
        )
    # Line breaks, as of the command base64, are allowed.
    text = re.sub(r"\s+", "", data[start.end() if start else 0 :])
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(
            400,
            "the recording is not base64 text: send the content of a sound file, encoded as base64",
            param,
            "invalid_audio",
        ) from None
    if not content:
        raise ApiError(400, "the recording is empty: send a sound file", param, "invalid_audio")
    return content


def read_question(request: ChatRequest, assistant: Assistant, config: ServerConfig) -> ChatQuestion:
    """Return the question of a chat request: the last message, about the latest recording.

    Raises:
        ApiError: the messages do not have this form, the recording cannot be used, the question is
            empty or too long, or a parameter is out of range.
    """
    prompt, data, param = _read_messages(request.messages)
    limit = assistant.config.max_text_tokens
    if len(prompt) > MAX_CHARACTERS * limit:
        raise ApiError(
            400,
            f"the question has {len(prompt)} characters, the model takes {limit} tokens: "
            "shorten it",
            "messages",
            "context_length_exceeded",
        )
    try:
        tokens = assistant.engine.prompts.encode_text(prompt, "the question")
    except InputError as error:
        raise ApiError(400, str(error), "messages") from None
    if len(tokens) > limit:
        raise ApiError(
            400,
            f"the question has {len(tokens)} tokens, the model takes {limit}: shorten it",
            "messages",
            "context_length_exceeded",
        )
    question = Question(
        read_audio(data, assistant, config, param),
        tokens,
        _max_new_tokens(request, config),
        _sampling(request),
        _num_top(request),
    )
    earlier = [message for message in request.messages[:-1] if message.text.strip()]
    return ChatQuestion(question, len(earlier))


def _read_messages(messages: list[Message]) -> tuple[str, str, str]:
    """Return the question, the base64 text of its recording, and the place of the recording."""
    for index, message in enumerate(messages):
        place = f"messages.{index}"
        if message.role not in ("user", "assistant") and message.text.strip():
            raise ApiError(
                400,
                f"a message of the role {message.role!r} would change nothing: the model takes a "
                "recording and one question; put everything into the question",
                place,
                "unsupported",
            )
        if message.role != "user" and message.audio:
            raise ApiError(400, "recordings belong in messages of the user", place, "unsupported")
        if len(message.audio) > 1:
            raise ApiError(
                400,
                f"the message has {len(message.audio)} recordings, the model takes one: send a "
                "request for each",
                place,
                "unsupported",
            )
    last = messages[-1]
    if last.role != "user":
        raise ApiError(400, "the last message is not the user's: end with a question", "messages")
    if not last.text.strip():
        raise ApiError(400, "the last message has no text: ask something", "messages")
    for index in reversed(range(len(messages))):
        if messages[index].audio:
            return last.text, messages[index].audio[0], f"messages.{index}"
    raise ApiError(
        400, "no recording: add a part of the type input_audio to the message", "messages"
    )


def _max_new_tokens(request: ChatRequest, config: ServerConfig) -> int:
    limits = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise ApiError(400, "max_tokens and max_completion_tokens differ: give one", "max_tokens")
    limit = limits.pop() if limits else min(DEFAULT_NEW_TOKENS, config.max_tokens)
    if not 1 <= limit <= config.max_tokens:
        raise ApiError(
            400, f"max_tokens is {limit}: this server gives 1 to {config.max_tokens}", "max_tokens"
        )
    return limit


def _sampling(request: ChatRequest) -> Sampling:
    """Return how tokens are chosen: the most probable ones unless a temperature is given."""
    if not request.temperature:
        if request.temperature is None and request.top_p is not None and request.top_p < 1:
            raise ApiError(400, "top_p without temperature: give both, or neither", "top_p")
        return Sampling()
    top_p = 1.0 if request.top_p is None else request.top_p
    seed = secrets.randbits(32) if request.seed is None else request.seed % 2**32
    try:
        return Sampling("top-p", top_p, request.temperature, seed)
    except InputError as error:
        raise ApiError(400, str(error), "temperature") from None


def _num_top(request: ChatRequest) -> int:
    if request.top_logprobs and not request.logprobs:
        raise ApiError(400, "top_logprobs without logprobs: set logprobs to true", "top_logprobs")
    return request.top_logprobs or 0
