"""Settings of the server."""

from dataclasses import dataclass

from tinymu_jax.audio.load import MAX_CLIP_SECONDS
from tinymu_jax.errors import InputError
from tinymu_jax.inference.engine import MAX_NEW_TOKENS

KEY_VARIABLE = "TINYMU_API_KEY"
"""Environment variable with the key that requests must have; unset or empty: none is needed."""
DEFAULT_NEW_TOKENS = 300
"""Largest number of tokens of an answer if a request does not say; that of `tinymu ask`."""


@dataclass(frozen=True)
class ServerConfig:
    """Limits of the server.

    Raises:
        InputError: a field is out of range.
    """

    batch: int = 16
    """Largest number of answers that are decoded together."""
    queue: int = 64
    """Largest number of requests that wait for a place in the batch; more get status 429."""
    max_upload_mb: float = 32.0
    """Largest size of a request in megabytes (10^6 bytes)."""
    max_audio_seconds: float = 1800.0
    """Longest recording in seconds; of an accepted one, the model uses the start."""
    max_tokens: int = 512
    """Largest number of tokens of an answer."""
    body_timeout: float = 60.0
    """Seconds in which a request must arrive."""
    shutdown_timeout: float = 10.0
    """Seconds after SIGTERM in which answers may be finished."""

    def __post_init__(self) -> None:
        rules = [
            (1 <= self.batch <= 1024, f"batch is {self.batch}: give 1 to 1024"),
            (self.queue >= 0, f"queue is {self.queue}: give 0 or more"),
            (self.max_upload_mb > 0, f"max_upload_mb is {self.max_upload_mb:g}: give more than 0"),
            (
                0 < self.max_audio_seconds <= MAX_CLIP_SECONDS,
                f"max_audio_seconds is {self.max_audio_seconds:g}: give up to {MAX_CLIP_SECONDS}",
            ),
            (
                1 <= self.max_tokens <= MAX_NEW_TOKENS,
                f"max_tokens is {self.max_tokens}: give 1 to {MAX_NEW_TOKENS}",
            ),
            (self.body_timeout > 0, f"body_timeout is {self.body_timeout:g}: give more than 0"),
            (
                self.shutdown_timeout >= 0,
                f"shutdown_timeout is {self.shutdown_timeout:g}: give 0 or more",
            ),
        ]
        for valid, message in rules:
            if not valid:
                raise InputError(message)

    @property
    def max_requests(self) -> int:
        """Largest number of requests that are in the server at a time."""
        return self.batch + self.queue

    @property
    def max_bytes(self) -> int:
        """Largest size of a request in bytes."""
        return int(self.max_upload_mb * 1e6)
