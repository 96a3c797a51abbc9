"""The optional key, which protects everything but `/health`."""

import base64
import binascii
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from tinymu_jax.server.errors import ApiError


class RequireKey:
    """ASGI middleware that asks for a key, as a bearer token or as the password of HTTP's Basic.

    OpenAI's clients send a bearer token; browsers ask for the password.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        """Protect an app with a key."""
        self.app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if it has the key or is for `/health`."""
        if scope["type"] not in ("http", "websocket") or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        header = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(_sent_key(header), self._key):
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        is_api = scope["path"].startswith("/v1/")
        headers = {"WWW-Authenticate": "Bearer" if is_api else 'Basic realm="tinymu"'}
        error = ApiError(
            401,
            "the key is missing or wrong: send it as Authorization: Bearer KEY",
            code="invalid_api_key",
            headers=headers,
        )
        await error.response()(scope, receive, send)


def _sent_key(header: bytes) -> bytes:
    """Return the key in an `Authorization` header; empty if there is none."""
    kind, _, value = header.partition(b" ")
    if kind.lower() == b"bearer":
        return value.strip()
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
