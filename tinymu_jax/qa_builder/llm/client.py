"""The client of any server that speaks OpenAI's chat protocol, on this machine or elsewhere."""

import http.client
import json
import math
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import Any, TypeVar

from tinymu_jax.errors import InputError

LONGEST_WAIT = 60.0
"""Seconds between two tries, however long a server says that one should wait."""

LARGEST = 4 * 2**20
"""Bytes of an answer."""

SHAPE_REFUSED = (400, 422)
"""What servers say that take no schema of the answer."""

HIDDEN = 8
"""Letters from which on a key is taken out of messages; shorter ones are stand-ins like "none"."""

Found = TypeVar("Found")


class UnansweredError(Exception):
    """No answer came; the message says why, and is one line."""

    def __init__(
        self, reason: str, again: bool, status: int | None = None, wait: float | None = None
    ) -> None:
        shown = "".join(letter if letter.isprintable() else " " for letter in reason)
        super().__init__(" ".join(shown.split()))
        self.again = again
        """Whether it is worth another try."""
        self.status, self.wait = status, wait


@dataclass(frozen=True)
class RetryPolicy:
    """How long a server is waited for."""

    timeout: float = 60.0
    """Seconds for an answer."""
    retries: int = 3
    """Tries after the first one: where it cannot be reached, is slow, busy (429), broken (5xx)."""
    first_wait: float = 1.0
    """Seconds before the second try; twice as long before each one after it."""


class LLMServer:
    """A server; several threads may ask it at once."""

    def __init__(
        self, url: str, patience: RetryPolicy, key_variable: str = "OPENAI_API_KEY"
    ) -> None:
        """Takes where it is and how long it is waited for; sends nothing.

        Args:
            url: up to what its paths have in common, which is mostly `/v1`.
            patience: with it.
            key_variable: the environment variable that holds its key, if it wants one.

        Raises:
            InputError: no such url, or a key that cannot be sent.
        """
        self.url, self.patience = _checked_url(url), patience
        self._key_variable, self._key = key_variable, _read_key(key_variable)
        # Who follows a redirection hands the key to whatever server it names.
        self._opener = urllib.request.build_opener(_Stay)
        self._stopped = threading.Event()
        self._takes_schema = True

    def models(self) -> list[str]:
        """Returns the names of its models.

        Raises:
            InputError: it cannot be asked.
        """
        try:
            return self._send("models", None, lambda body: [str(one["id"]) for one in body["data"]])
        except UnansweredError as error:
            remedy = "check that the server runs, and that the url is the one before /models"
            if error.status in (401, 403):
                remedy = f"put its key into the environment variable {self._key_variable}"
            raise InputError(f"{self.url}: {error}; {remedy}") from error

    def complete(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], **settings: Any
    ) -> str:
        """Returns what the model says; "" where it declines to say anything.

        A server that takes no schema gets it in words, from then on at once.

        Args:
            messages: each with `role` and `content`; the first is the system's.
            schema: of the answer, which is to be json.
            settings: model, temperature, seed.

        Raises:
            UnansweredError: no answer, for all patience.
        """
        if self._takes_schema:
            shape = {"name": "answer", "strict": True, "schema": schema}
            request = settings | {
                "messages": list(messages),
                "response_format": {"type": "json_schema", "json_schema": shape},
            }
            try:
                return self._send("chat/completions", request, _said)
            except UnansweredError as error:
                if error.status not in SHAPE_REFUSED:
                    raise
        in_words = f"\nThe JSON schema of the answer: {json.dumps(schema)}"
        first = dict(messages[0]) | {"content": messages[0]["content"] + in_words}
        request = settings | {"messages": [first, *messages[1:]]}
        text = self._send("chat/completions", request, _said)
        self._takes_schema = False  # only now: the fault may have been the request's own
        return text

    def stop(self) -> None:
        """Ends all waiting: whoever asks is told at the next fault that there is no answer."""
        self._stopped.set()

    def _send(
        self, path: str, content: Mapping[str, Any] | None, read: Callable[[Any], Found]
    ) -> Found:
        """Sends a request until it is answered, or patience ends."""
        wait = self.patience.first_wait
        for left in reversed(range(self.patience.retries + 1)):
            try:
                return self._send_once(path, content, read)
            except UnansweredError as error:
                if not (error.again and left):
                    raise
                seconds = wait if error.wait is None else error.wait
                if self._stopped.wait(min(seconds, LONGEST_WAIT)):
                    raise
            wait *= 2
        raise AssertionError("the last try returns or raises")

    def _send_once(
        self, path: str, content: Mapping[str, Any] | None, read: Callable[[Any], Found]
    ) -> Found:
        if self._stopped.is_set():
            raise UnansweredError("was not asked: the run ends", again=False)
        headers = {"Content-Type": "application/json", "User-Agent": "tinymu_jax"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)
        try:
            with self._opener.open(request, timeout=self.patience.timeout) as response:
                body = _read_body(response, time.monotonic() + self.patience.timeout)
            return read(json.loads(body))
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, TimeoutError):
                cause = f"no answer within {self.patience.timeout:g} s"
            raise UnansweredError(f"cannot be reached ({cause})", again=True) from error
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            reason = "what it sends is no answer of OpenAI's protocol"
            raise UnansweredError(reason, again=True) from error

    def _refusal(self, error: urllib.error.HTTPError) -> UnansweredError:
        """Returns what a status other than 200 says."""
        text = ""
        with error, suppress(OSError, http.client.HTTPException):
            text = error.read(10_000).decode(errors="replace")
        if self._key and len(self._key) >= HIDDEN:  # some servers repeat it
            text = text.replace(self._key, "...")
        reason = f"answers {error.code} {_told(text)[:200]}"
        again = error.code == 429 or error.code >= 500
        return UnansweredError(reason, again, error.code, _seconds(error.headers["Retry-After"]))


class _Stay(urllib.request.HTTPRedirectHandler):
    """Leaves a redirection as what it is: an answer that is none."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _said(body: Any) -> str:
    """Returns the text of a chat's answer."""
    text = body["choices"][0]["message"]["content"]
    if not isinstance(text, str | None):
        raise TypeError(text)
    return text or ""


def _told(text: str) -> str:
    """Returns the message of an error, in the protocol's form or any other."""
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(text)["error"]["message"])
    return text


def _read_body(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Reads an answer, also from a server that sends it bit by bit."""
    parts: list[bytes] = []
    while part := response.read1(2**16):
        parts.append(part)
        if time.monotonic() > deadline:
            raise TimeoutError
        if sum(map(len, parts)) > LARGEST:
            raise ValueError("too long")
    return b"".join(parts)


def _seconds(retry_after: str | None) -> float | None:
    """Returns how long a server says to wait: it gives seconds, or a time of day."""
    if retry_after is None:
        return None
    with suppress(ValueError):
        seconds = float(retry_after)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    with suppress(ValueError, OverflowError):
        date = parsedate_tz(retry_after)
        return None if date is None else max(0.0, mktime_tz(date) - time.time())
    return None


def _checked_url(url: str) -> str:
    remedy = "give one like http://localhost:8000/v1"
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018 - looking at it is what checks it
    except ValueError as error:
        raise InputError(f"{url!r}: is no url ({error}); {remedy}") from error
    fit = parts.scheme in ("http", "https") and parts.hostname and url.isascii()
    if not fit or any(c.isspace() for c in url):
        raise InputError(f"{url!r}: is no url of a server; {remedy}")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(
            f"{parts.scheme}://{parts.hostname}: the url of the server holds more than host and "
            f"path; {remedy}, and the key in the environment"
        )
    return url.rstrip("/")


def _read_key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{variable}: holds letters that no key has; set it again")
    return key or None
