"""Reads the bodies of requests, within limits of size and time."""

import asyncio

from fastapi import Request

from tinymu_jax.server.config import ServerConfig
from tinymu_jax.server.errors import ApiError


class BodyReader:
    """Reads bodies; those that are read at a time are limited together, too."""

    def __init__(self, config: ServerConfig) -> None:
        """Create a reader with the limits of a server."""
        self.config = config
        self._total = 0
        """Bytes of the bodies in memory."""

    async def read(self, request: Request) -> bytes:
        """Return a request's body, which must be JSON by its content type.

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
        try:
            async with asyncio.timeout(self.config.body_timeout):
                body = await self._read(request, too_large)
        except TimeoutError:
            raise ApiError(
                408, f"the request took more than {self.config.body_timeout:g} s to arrive"
            ) from None
        if body is None:
            raise self._too_large()
        return body

    async def _read(self, request: Request, too_large: bool) -> bytes | None:
        """Return the body, or None if it is too large.

        What is too large is read to its end, but not stored: a client that is still sending when
        the connection is closed would not see the response.
        """
        chunks, size = [], 0
        try:
            async for chunk in request.stream():
                if too_large:
                    continue
                size += len(chunk)
                self._total += len(chunk)
                chunks.append(chunk)
                if size > self.config.max_bytes:
                    too_large = True
                    self._total -= size
                    chunks, size = [], 0
                elif self._total > 8 * self.config.max_bytes:
                    raise ApiError(
                        429, "too many uploads at once: try again", headers={"Retry-After": "2"}
                    )
        finally:
            self._total -= size
        return None if too_large else b"".join(chunks)

    def _announced(self, request: Request) -> int:
        """Return the size that a request's head announces; 0 if none."""
        length = request.headers.get("content-length", "")
        return int(length) if length.isdecimal() and len(length) < 20 else 0

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the request has more than {self.config.max_upload_mb:g} MB: send less"
        )
