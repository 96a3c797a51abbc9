"""Bodies of requests, as OpenAI's clients send them, and their checks."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinymu_jax.inference.continuous import MAX_TOP
from tinymu_jax.server.errors import ApiError

MAX_INPUTS = 16
"""Largest number of recordings in one request for embeddings."""
MAX_MESSAGES, MAX_PARTS = 1_000, 100
"""Largest number of messages in a request, and of parts in a message."""
UNUSED = {"metadata", "user", "safety_identifier", "prompt_cache_key", "prediction"}
"""Parameters of OpenAI that say nothing about the answer, and are accepted."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "stop": ([],),
    "store": (False,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (False, True),
    "service_tier": ("auto", "default"),
}
"""Parameters of OpenAI that are not supported, and the values that change nothing."""


class _Body(BaseModel):
    """Any object; types are taken as they are, so that "1" is no number."""

    model_config = ConfigDict(strict=True, extra="ignore")


class InputAudio(_Body):
    """A sound file."""

    data: str
    """Base64 text."""
    format: str | None = None
    """Not used: files are read by their content."""


class TextPart(_Body):
    """A piece of text in a message."""

    type: Literal["text"]
    text: str


class AudioPart(_Body):
    """A recording in a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio


Part = Annotated[TextPart | AudioPart, Field(discriminator="type")]


class Message(_Body):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS)] | None = None

    @property
    def text(self) -> str:
        """The text of all parts, in lines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if isinstance(part, TextPart))

    @property
    def audio(self) -> list[str]:
        """The base64 text of all recordings."""
        parts = self.content if isinstance(self.content, list) else ()
        return [part.input_audio.data for part in parts if isinstance(part, AudioPart)]


class StreamOptions(_Body):
    """Options of a stream."""

    include_usage: bool | None = None


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    model: str


class ChatRequest(_Request):
    """A body of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP)


class EmbeddingPart(_Body):
    """A recording to embed, in the form of a message's part."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class EmbeddingsRequest(_Request):
    """A body of `/v1/embeddings`."""

    input: str | EmbeddingPart | Annotated[list[str | EmbeddingPart], Field(max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None

    @property
    def audio(self) -> list[str]:
        """The base64 text of each recording."""
        inputs = self.input if isinstance(self.input, list) else [self.input]
        return [item if isinstance(item, str) else item.input_audio.data for item in inputs]


R = TypeVar("R", bound=_Request)


def parse(body: bytes, schema: type[R]) -> R:
    """Return a request's body; raise `ApiError` if it is malformed or asks for what is missing."""
    try:
        request = schema.model_validate_json(body)
    except ValidationError as error:
        raise _malformed(error) from None
    for name, value in (request.model_extra or {}).items():
        if value is None or name in UNUSED or value in NEUTRAL.get(name, ()):
            continue
        known = "is not supported" if name in NEUTRAL else "is not known"
        raise ApiError(
            400, f"the parameter {name[:80]!r} {known}; leave it out", name[:80], "unsupported"
        )
    return request


def _malformed(error: ValidationError) -> ApiError:
    """Return the error that says best where a body is malformed."""
    details = error.errors(include_url=False, include_input=False)
    # Of the alternatives of a union, the one that fits most fails at the deepest place.
    deepest = max(details, key=lambda detail: (detail["type"] == "too_long", len(detail["loc"])))
    if deepest["type"] == "json_invalid":
        reason = deepest["msg"].removeprefix("Invalid JSON: ")
        return ApiError(400, f"the body is not JSON ({reason})", code="invalid_json")
    names, previous = [], None
    for name in deepest["loc"]:
        # pydantic also names the alternative of a union.
        is_type = isinstance(previous, int) and name in ("text", "input_audio")
        if not is_type and name != "str" and not str(name).startswith("list["):
            names.append(str(name))
        previous = name
    param = ".".join(names)[:200] or None
    return ApiError(400, f"{param or 'the body'}: {deepest['msg']}"[:600], param, deepest["type"])
