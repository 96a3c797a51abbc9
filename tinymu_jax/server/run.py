"""Runs the server: its socket, its signals, and its end."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from tinymu_jax.errors import InputError
from tinymu_jax.server.config import ServerConfig

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def model_id(checkpoint: str) -> str:
    """Return a checkpoint's id in requests: its hub name, or the name of its file or folder."""
    path = Path(checkpoint)
    return (path.resolve().stem or checkpoint) if path.exists() else checkpoint


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, but does not listen yet; port 0 is any.

    Raises:
        InputError: the address is in use, or is not one of this machine.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"port is {port}: give 0 (any) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"host {host}: is not an address ({error}); give another") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise InputError(
            f"{host}:{port}: cannot be used ({error.strerror}); give another --port or --host"
        ) from error
    return bound


def address_of(bound: socket.socket) -> str:
    """Return the address of a socket as a URL."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class PageServer(uvicorn.Server):
    """A uvicorn server that closes the connections which open pages hold when it begins to stop.

    It would wait for them, as for requests.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop the server."""
        for route in getattr(self.config.app, "routes", ()):
            # Gradio's application, which is mounted, has it.
            stop = getattr(getattr(route, "app", None), "stop_event", None)
            if stop is not None:
                stop.set()
        await super().shutdown(sockets)


def run(app: FastAPI, bound: socket.socket, config: ServerConfig, open_page: bool = False) -> None:
    """Serve an app until SIGTERM or Ctrl-C, after which answers may be finished for some seconds.

    `open_page` opens the page in the browser.
    """
    _allow_many_connections()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    server = PageServer(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(config.shutdown_timeout)),
        )
    )
    if open_page:
        threading.Thread(target=_open_page, args=(server, address_of(bound)), daemon=True).start()
    # uvicorn raises the signals again that have ended it, which would end the process with another
    # exit code.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[bound])
    if app.state.server.worker.is_alive:
        # A thread that computes, as in a compilation, cannot be stopped otherwise.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _open_page(server: uvicorn.Server, address: str) -> None:
    while not server.started:
        time.sleep(0.05)
    webbrowser.open(address)


def _allow_many_connections() -> None:
    """Raise the number of files that may be open, each connection being one, where possible."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
        if soft < limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
