"""Chat client for servers with an OpenAI-compatible API, based on the openai package."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tinymu_jax.errors import InputError, reason_of

SCHEMA_REJECTED = (400, 422)
"""HTTP status codes of servers that reject a request for structured output."""
MIN_KEY_LENGTH = 8
"""Shortest API key, in characters, that error messages hide; shorter keys are no secrets."""
MALFORMED = (AttributeError, LookupError, TypeError, ValueError, RuntimeError)
"""Exceptions caused by malformed responses, which the openai package does not validate."""
T = TypeVar("T")


class UnansweredError(Exception):
    """The server gave no answer to a request; the message gives the reason in one line.

    `status` is the HTTP status code of an error response, else None. `retry` tells whether the same
    request may succeed if it is sent again.
    """

    def __init__(self, reason: str, status: int | None = None, retry: bool = False) -> None:
        super().__init__(reason)
        self.status, self.retry = status, retry


class LLMClient:
    """Thread-safe chat client for one server.

    The openai package repeats a request if the server is unreachable, slow, busy (429) or broken
    (5xx). It waits for the time in `Retry-After` (up to two minutes), or with exponential backoff.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 60.0,
        retries: int = 3,
        key_variable: str = "OPENAI_API_KEY",
    ) -> None:
        """Create the client without sending a request.

        Args:
            url: base URL of the server, usually ending in `/v1`.
            timeout: seconds to wait for each part of a response.
            retries: maximum number of attempts after the first.
            key_variable: environment variable of the API key, which a local server may not need.

        Raises:
            InputError: the openai package is missing, the URL is malformed or the key has
                characters that cannot be sent.
        """
        self.url, self.timeout, self.retries = _check_url(url), timeout, retries
        self._key_variable, self._key = key_variable, _read_key(key_variable)
        try:
            import openai
        except ImportError as error:
            raise InputError(
                "a language model needs the openai package: pip install 'tinymu_jax[openai]'"
            ) from error
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            timeout=timeout,
            max_retries=retries,
            # Following a redirect would send the key to another server.
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )
        self._headers = {} if self._key else {"Authorization": openai.Omit()}
        self._supports_schema = True

    def models(self) -> list[str]:
        """Return the model names that the server lists; raise `InputError` on failure."""
        try:
            return self._call(
                self._client.models.list, lambda page: [str(model.id) for model in page.data]
            )
        except UnansweredError as error:
            remedy = "check that the server runs, and that the URL is the part before /models"
            if error.status in (401, 403):
                remedy = f"set the environment variable {self._key_variable} to its API key"
            raise InputError(f"{self.url}: {error}; {remedy}") from error

    def complete(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], **settings: Any
    ) -> str:
        """Send chat messages to the model; return the text of its answer, or "" if it is empty.

        The first message is the system message. `settings` are further fields of the request:
        model, temperature, seed. If the server rejects structured output, the schema is sent as
        text in the system message. If this succeeds, all later requests do the same.

        Raises:
            UnansweredError: the server gave no answer after all retries.
        """
        if self._supports_schema:
            json_schema = {"name": "answer", "strict": True, "schema": schema}
            try:
                return self._chat(
                    messages=list(messages),
                    response_format={"type": "json_schema", "json_schema": json_schema},
                    **settings,
                )
            except UnansweredError as error:
                if error.status not in SCHEMA_REJECTED:
                    raise
        schema_text = f"\nThe JSON schema of the answer: {json.dumps(schema)}"
        system = dict(messages[0]) | {"content": messages[0]["content"] + schema_text}
        text = self._chat(messages=[system, *messages[1:]], **settings)
        self._supports_schema = False  # only after a success, since the request itself may be wrong
        return text

    def close(self) -> None:
        """Close the connections; a request that waits for its next attempt fails at once."""
        self._client.close()

    def _chat(self, **request: Any) -> str:
        return self._call(self._client.chat.completions.create, _answer_text, **request)

    def _call(self, method: Callable[..., Any], read: Callable[[Any], T], **request: Any) -> T:
        """Call the API's `method`, return `read(response)`; raise `UnansweredError` on failure."""
        openai = self._openai
        try:
            return read(method(extra_headers=self._headers, **request))
        except openai.APIStatusError as error:
            reason = f"answers {error.status_code} {self._message(error)}"
            raise UnansweredError(reason.strip(), error.status_code) from error
        except openai.APITimeoutError as error:
            reason = f"cannot be reached (no answer within {self.timeout:g} s)"
            raise UnansweredError(reason) from error
        except openai.APIConnectionError as error:
            reason = reason_of(error.__cause__ or error)
            raise UnansweredError(f"cannot be reached ({reason})") from error
        except (openai.OpenAIError, *MALFORMED) as error:
            reason = "sends no chat completion of the OpenAI API"
            raise UnansweredError(reason, retry=True) from error

    def _message(self, error: Any) -> str:
        """Return the server's error message in one printable line, without the API key."""
        text = error.response.text
        if isinstance(error.body, Mapping) and "message" in error.body:
            text = str(error.body["message"])
        if self._key and len(self._key) >= MIN_KEY_LENGTH:  # some servers repeat the key
            text = text.replace(self._key, "...")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]


def _answer_text(completion: Any) -> str:
    text = completion.choices[0].message.content
    if not isinstance(text, str | None):
        raise TypeError("the content is not a string")
    return text or ""


def _check_url(url: str) -> str:
    remedy = "give one like http://localhost:8000/v1"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it validates it
    except ValueError as error:
        raise InputError(f"{url!r}: is not a URL ({error}); {remedy}") from error
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(
            f"{parts.scheme}://{parts.hostname}: a server URL has only a host and a path; {remedy}"
            ", and the key in the environment"
        )
    is_http = parts.scheme in ("http", "https") and parts.hostname and url.isascii()
    if not is_http or any(c.isspace() for c in url):
        raise InputError(f"{url!r}: is not the URL of a server; {remedy}")
    return url.rstrip("/")


def _read_key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{variable}: holds characters that no key has; set it again")
    return key or None
