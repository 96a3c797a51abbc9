"""Errors in the form that OpenAI's clients expect."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

TYPES = {401: "authentication_error", 429: "rate_limit_error"}
"""Type of an error by its status; other statuses below 500 are `invalid_request_error`."""


class ApiError(Exception):
    """A request that cannot be answered, with the status of the response."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Create an error; `param` is the parameter at fault, `code` a name for programs."""
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    def body(self) -> dict[str, Any]:
        """Return the JSON object of the error."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        fields = {"message": str(self), "type": TYPES.get(self.status, kind)}
        return {"error": fields | {"param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the HTTP response."""
        return JSONResponse(self.body(), self.status, headers=self.headers)

    def to_json(self) -> str:
        """Return the error as JSON text, for a stream that has begun."""
        return json.dumps(self.body(), ensure_ascii=False)


INTERNAL = "the server failed to answer this request; its log says why"
