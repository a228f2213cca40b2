"""`serve`: the page and the HTTP API of the command's jobs, on this machine."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from o3pro_bg.cli._exits import Exit, Stop
from o3pro_bg.cli._place import client_of, home, language, place_of
from o3pro_bg.cli._screen import put, say
from o3pro_bg.errors import StoreError

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.applications import Starlette as Host

    from o3pro_bg._settings import Settings
    from o3pro_bg.client import O3ProClient

VARIABLE: Final = "O3PRO_BG_TOKEN"
_GRACE: Final = 2  # seconds for requests in flight, before they are cut off
_SHORTEST: Final = 16  # characters of a token


def serve(arguments: argparse.Namespace) -> Exit:
    """Serve the command's jobs until Ctrl-C; they go on after it."""
    if not all(map(find_spec, ("starlette", "uvicorn"))):
        raise Stop(Exit.CONFIGURATION, "serve needs the extra web: pip install 'o3pro-bg[web]'")
    client = client_of(arguments)
    settings: Settings = {"language": language(), **place_of(arguments)}
    token = _token(arguments.host)
    listener = _listener(arguments.host, arguments.port)
    _run(client, settings, token, listener)
    return Exit.COMPLETED


def _run(client: O3ProClient, settings: Settings, token: str | None, listener: socket.socket) -> None:
    """Serve until a signal comes; raises StoreError where the jobs cannot be had."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from o3pro_bg.web import app, lifespan

    troubles: list[StoreError] = []

    @asynccontextmanager
    async def living(host: Host) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(lifespan(client, **settings)(host))
                put(f"The page of the jobs: {_place_of(listener)} ({_reach(listener)}). Ctrl-C ends it; jobs go on.")
            except StoreError as trouble:  # the server would print a traceback
                troubles.append(trouble)
                server.should_exit = True
            yield

    host = Starlette(lifespan=living, routes=[Mount("/", app(auth=token))])
    server = uvicorn.Server(
        uvicorn.Config(
            host, log_level="warning", server_header=False, proxy_headers=False, timeout_graceful_shutdown=_GRACE
        )
    )
    server.run(sockets=[listener])
    if troubles:
        raise troubles[0]


def _token(host: str) -> str | None:
    """Answer the token that is needed: none on loopback, where none is set; elsewhere one that is kept in a file."""
    if token := os.environ.pop(VARIABLE, ""):  # what we start has no business with it
        if len(token) < _SHORTEST:
            raise Stop(Exit.CONFIGURATION, f"{VARIABLE} has to have {_SHORTEST} characters or more")
        return token
    if is_loopback(host):
        return None
    path = home() / "token"
    say(f"the token that is asked for is in {path} (or set {VARIABLE}); between here and a browser, use https")
    return _kept(path)


def _kept(path: Path) -> str:
    """Answer the token in this file, which is made where there is none, and which only its owner reads."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with open(path, "x", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(secrets.token_hex(24))
        except FileExistsError:
            pass
        token = path.read_text("ascii").strip()
    except (OSError, ValueError) as exc:
        raise Stop(Exit.CONFIGURATION, f"the token cannot be kept in {path}: {exc}; set {VARIABLE}") from None
    if len(token) < _SHORTEST:
        raise Stop(Exit.CONFIGURATION, f"{path} holds no token of {_SHORTEST} characters: remove it, or set {VARIABLE}")
    return token


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listener(host: str, port: int) -> socket.socket:
    """Answer a socket that listens there; raises `Stop` where none can."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(address[0]), port), family=family)
    except OSError as exc:
        where = f"nothing can listen at {host}, port {port}: {exc.strerror or exc}"
        raise Stop(Exit.CONFIGURATION, f"{where}; --port chooses another") from None


def _reach(listener: socket.socket) -> str:
    return "for this machine alone" if is_loopback(listener.getsockname()[0]) else "for whoever has the token"


def _place_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
