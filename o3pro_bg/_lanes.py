"""
How requests travel: without the SDK's work on each of them, on its credentials, URL and headers.

There are two lanes. One is the HTTP client that the SDK itself uses, with whatever proxies, hooks and TLS settings it
was given. The other is aiohttp, which takes a fifth of the time, where it is installed and nothing else was asked for.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import anyio

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping

    import httpx2
    from aiohttp import ClientSession

    from o3pro_bg._headers import Answer

    Auth = Callable[[], Awaitable[Mapping[str, str]]]

KEEP_ALIVE: Final = 75.0  # longer than the longest pause between looks, so that a look needs no handshake
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_SHORTEST_KEY: Final = 8  # characters: what is shorter stands in any text
_TO_CONNECT: Final = 30.0  # seconds for a connection, where an answer may take as long as it likes


class Way(NamedTuple):
    """
    Where requests go, and what each of them says.

    Attributes:
        base_url: The service; paths follow it.
        headers: What each request says.
        auth: Answers the headers that open the door.
        query: What follows each path.
    """

    base_url: str
    headers: Mapping[str, str]
    auth: Auth
    query: str


class Lane(Protocol):
    """Brings requests to the service; an answer of whatever status is one, all else is raised."""

    async def send(
        self, method: str, path: str, timeout: float | None, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Answer what the service says at this path, within so many seconds, or whenever it likes."""
        ...

    async def aclose(self) -> None:
        """Close what is the lane's own."""
        ...


class HttpxLane:
    """The client that the SDK uses, which is closed by it."""

    def __init__(self, http: httpx2.AsyncClient, way: Way) -> None:
        self._http = http
        self._way = way

    async def send(
        self, method: str, path: str, timeout: float | None, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Answer what the service says at this path, within so many seconds, or whenever it likes."""
        import httpx2

        with anyio.fail_after(timeout):  # the whole of it: the client's time-out is that of a single read
            auth = await self._way.auth()
            request = self._http.build_request(
                method,
                f"{self._way.base_url}{path}{self._way.query}",
                headers={**self._way.headers, **auth},
                content=_encoded(body),
                timeout=timeout or httpx2.Timeout(None, connect=_TO_CONNECT, pool=_TO_CONNECT),
            )
            response = await self._http.send(request, follow_redirects=False)
        return _hushed(response.status_code, response.headers, response.content, auth)

    async def aclose(self) -> None:
        """Nothing is its own."""


class _Answer(NamedTuple):
    status_code: int
    headers: Mapping[str, str]
    content: bytes


def _hushed(status: int, headers: Mapping[str, str], content: bytes, auth: Mapping[str, str]) -> _Answer:
    """Answer what came back; from what is said about a refusal, which people read, the key that was sent is taken."""
    for value in auth.values():
        key = value.removeprefix("Bearer ").encode()
        if status >= 300 and len(key) >= _SHORTEST_KEY:
            content = content.replace(key, b"[the key]")
    return _Answer(status, headers, content)


class AiohttpLane:
    """A session of aiohttp, which is made on the loop of the first request, and trusts these certificates."""

    def __init__(self, tls: ssl.SSLContext, way: Way) -> None:
        import aiohttp
        import yarl

        self._aiohttp = aiohttp
        self._timeout_of = functools.cache(lambda total: aiohttp.ClientTimeout(total, sock_connect=_TO_CONNECT))
        self._url = yarl.URL
        self._tls = tls
        self._way = way
        self._session: ClientSession | None = None

    async def send(
        self, method: str, path: str, timeout: float | None, body: Mapping[str, Any] | None = None
    ) -> _Answer:
        """Answer what the service says at this path, within so many seconds, or whenever it likes."""
        if self._session is None:
            self._session = self._open()
        auth = await self._way.auth()
        async with self._session.request(
            method,
            self._url(f"{self._way.base_url}{path}{self._way.query}", encoded=True),
            headers=auth,
            data=_encoded(body),
            timeout=self._timeout_of(timeout),
            allow_redirects=False,
        ) as response:
            return _hushed(response.status, response.headers, await response.read(), auth)

    async def aclose(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> ClientSession:
        connector = self._aiohttp.TCPConnector(limit=0, ssl=self._tls, keepalive_timeout=KEEP_ALIVE)
        jar = self._aiohttp.DummyCookieJar()
        return self._aiohttp.ClientSession(connector=connector, headers=self._way.headers, cookie_jar=jar)


def _encoded(body: Mapping[str, Any] | None) -> bytes | None:
    """Answer the body as JSON; what UTF-8 has no place for is escaped, as Python does it, which is JSON's way."""
    return None if body is None else _JSON.encode(body).encode(errors="backslashreplace")
