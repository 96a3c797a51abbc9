"""Checks the environment variables of the hub's client, and whether the hub can be reached."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tinymu_jax.errors import InputError, reason_of
from tinymu_jax.utils.files import check_folder

SECONDS_TO_CONNECT = 3.0
"""Time within which the hub must respond, unless `HF_HUB_ETAG_TIMEOUT` is longer."""
MAX_TIMEOUT = 86_400
"""Largest accepted number of seconds to wait: a day."""
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
TIMEOUTS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
FOLDERS = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HF_XET_CACHE")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class Unreachable(NamedTuple):
    """Why the hub cannot be reached, and what to do."""

    reason: str
    remedy: str = "check the network"


def check_hub_variables() -> None:
    """Check the environment variables of huggingface_hub; call it before importing that package.

    Raises:
        InputError: a variable has an unusable value; the message names the variable.
    """
    for name, value in os.environ.items():
        if value and name in CHECKS:
            CHECKS[name](name, value)
    try:
        from huggingface_hub import get_token
    except Exception as error:  # it reads further variables when it is imported
        raise InputError(
            f"huggingface_hub cannot be imported ({reason_of(error)}); check the environment "
            f"variables {', '.join(n for n in sorted(os.environ) if n.startswith('HF_'))}"
        ) from error
    path = os.environ.get("HF_TOKEN_PATH") or "the file of `hf auth login`"
    try:
        token = get_token() or ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"HF_TOKEN_PATH: {path} cannot be read ({reason_of(error)}); correct or unset it"
        ) from error
    _check_token(path, token)


def why_unreachable() -> Unreachable | None:
    """Return why the hub cannot be reached, or None if it responds, even with an error.

    The hub is out of reach if it does not respond within a few seconds. This is checked first
    because huggingface_hub would repeat its requests for half a minute.
    """
    from huggingface_hub import constants, errors, get_session

    seconds = SECONDS_TO_CONNECT
    if os.environ.get("HF_HUB_ETAG_TIMEOUT"):
        seconds = max(seconds, constants.HF_HUB_ETAG_TIMEOUT)
    outcome: list[Exception | None] = []

    def request() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    # A daemon thread, since looking up the host's name has no timeout.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(seconds)
    if outcome == [None]:
        return None
    if outcome and isinstance(outcome[0], errors.OfflineModeIsEnabled):
        names = [name for name in OFFLINE if os.environ.get(name)] or OFFLINE[:1]
        return Unreachable(f"{' and '.join(names)} is set", f"unset {' and '.join(names)}")
    reason = reason_of(outcome[0]) if outcome else f"no response within {seconds:g} s"
    return Unreachable(with_route(reason))


def require_hub(failure: str) -> None:
    """Raise an `InputError` that begins with `failure` if the hub cannot be reached."""
    check_hub_variables()
    unreachable = why_unreachable()
    if unreachable is not None:
        reason, remedy = unreachable
        raise InputError(f"{failure}, the hub is out of reach ({reason}); {remedy} and try again")


def with_route(reason: str) -> str:
    """Return `reason` with the names of the set variables that decide the route to the hub.

    The variables' values are left out, since they may hold passwords.
    """
    certificates = CERTIFICATES if "cert" in reason.lower() else ()
    names = [n for n in ("HF_ENDPOINT", *PROXIES, *certificates) if os.environ.get(n)]
    return f"{reason}, with {', '.join(names)} set" if names else reason


def _check_endpoint(name: str, value: str) -> None:
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bracket without its pair, or an impossible port
        is_url = False
    if not is_url or any(map(str.isspace, value)):
        raise InputError(f"{name}={value}: is no URL; write https://... or unset it")


def _check_token(name: str, value: str) -> None:
    token = value.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"{name}: holds characters that no token has; set it again, or unset it")


def _check_seconds(name: str, value: str) -> None:
    if not value.strip().isdecimal() or int(value) > MAX_TIMEOUT:
        raise InputError(
            f"{name}={value}: is no whole number of seconds up to {MAX_TIMEOUT}; correct it, or "
            "unset it"
        )


def _check_cache(name: str, value: str) -> None:
    try:
        check_folder(Path(value).expanduser())
    except InputError as error:
        raise InputError(
            f"{name}: {str(error).split(';')[0]}; name a folder, or unset it"
        ) from error


def _check_certificates(name: str, value: str) -> None:
    if name.endswith("DIR"):  # one folder or several
        is_usable, kind = any(map(os.path.isdir, value.split(os.pathsep))), "folder"
    else:
        is_usable, kind = os.path.isfile(value), "file"
    if not is_usable:
        problem = f"is no {kind}" if os.path.exists(value) else "no such file or folder"
        raise InputError(f"{name}={value}: {problem}; correct it, or unset it")


CHECKS: dict[str, Callable[[str, str], None]] = {
    "HF_ENDPOINT": _check_endpoint,
    **dict.fromkeys(TOKENS, _check_token),
    **dict.fromkeys(TIMEOUTS, _check_seconds),
    **dict.fromkeys(FOLDERS, _check_cache),
    **dict.fromkeys(CERTIFICATES, _check_certificates),
}
"""Name of each variable -> function that raises an `InputError` if its value cannot be used."""
