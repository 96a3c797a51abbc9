"""Reads the bodies of requests, within limits of size and time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from tinymu_jax.server.config import ServerConfig
from tinymu_jax.server.errors import ApiError

MAX_BODIES = 8
"""Number of bodies of the largest size that may be in memory."""


class BodyReader:
    """Reads bodies; all that are in memory at a time are limited together, too."""

    def __init__(self, config: ServerConfig) -> None:
        """Create a reader with the limits of a server."""
        self.config = config
        self._total = 0
        """Bytes of the bodies in memory."""

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Give a request's body, which must be JSON by its content type.

        Raises:
            ApiError: the body is too large, comes too slowly, or is of another type.
            ClientDisconnect: the client has gone away.
        """
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        # Browsers let other sites send any type but JSON without asking.
        if content_type != "application/json":
            raise ApiError(415, f"the content type is {content_type[:80]!r}: send application/json")
        too_large = self._announced(request) > self.config.max_bytes
        if too_large and "100-continue" in request.headers.get("expect", "").lower():
            raise self._too_large()
        chunks: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self.config.body_timeout):
                    await self._read(request, chunks, too_large)
            except TimeoutError:
                raise ApiError(
                    408, f"the request took more than {self.config.body_timeout:g} s to arrive"
                ) from None
            chunks[:] = [b"".join(chunks)]
            yield chunks[0]
        finally:
            self._total -= sum(map(len, chunks))

    async def _read(self, request: Request, chunks: list[bytes], too_large: bool) -> None:
        """Append the chunks of a body.

        What is too large is read to its end, but not stored: a client that is still sending when
        the connection is closed would not see the response.
        """
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self.config.max_bytes and not too_large:
                too_large = True
                self._total -= sum(map(len, chunks))
                chunks.clear()
            if too_large:
                continue
            chunks.append(chunk)
            self._total += len(chunk)
            if self._total > MAX_BODIES * self.config.max_bytes:
                raise ApiError(
                    429, "too many uploads at once: try again", headers={"Retry-After": "2"}
                )
        if too_large:
            raise self._too_large()

    def _announced(self, request: Request) -> int:
        """Return the size that a request's head announces; 0 if none."""
        length = request.headers.get("content-length", "")
        return int(length) if length.isdecimal() and len(length) < 20 else 0

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the request has more than {self.config.max_upload_mb:g} MB: send less"
        )
