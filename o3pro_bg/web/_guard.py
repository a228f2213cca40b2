"""
Who may come in, and what browsers are told about every answer.

Without `auth` only this very machine is answered, by a name of its own: else any web site could have a browser on it
ask (DNS rebinding), and whatever stands before the server would open it to all. A change that a browser asks for on
behalf of another site is refused in any case.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse

from o3pro_bg.web._lifespan import desk_of
from o3pro_bg.web._wire import refusal
from o3pro_bg.web._words import language_of, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    Auth = str | bool | None | Callable[[Scope], bool | Awaitable[bool]]

COOKIE: Final = "o3pro_bg"
DESK: Final = "o3pro_bg.desk"  # where the scope of a request holds the desk
_SHORTEST: Final = 16  # characters of a token
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_PROXIED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """
    Lets in who may come in, and leads him to the desk.

    Args:
        app: What he comes to.
        name: The name of the lifespan.
        auth: As in `app`.
        allowed_hosts: As in `app`.
    """

    def __init__(self, app: ASGIApp, name: str, auth: Auth, allowed_hosts: Collection[str] | None) -> None:
        if isinstance(auth, str) and len(auth) < _SHORTEST:
            raise ValueError(f"auth has to be a token of {_SHORTEST} characters or more, such as secrets.token_hex()")
        if auth is True or not (auth is None or auth is False or isinstance(auth, str) or callable(auth)):
            raise TypeError("auth has to be a token, a function of an ASGI scope, False, or None")
        if isinstance(allowed_hosts, str):
            raise TypeError("allowed_hosts has to be a collection of names, not one name")
        self._app = app
        self._name = name
        self._auth = auth
        self._hosts = _LOOPBACK if allowed_hosts is None and auth is None else allowed_hosts and {*allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope}  # that of whoever mounts us stays as it is

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = await self._refusal(scope)
        await (self._app if refused is None else refused)(scope, receive, send_guarded)

    async def _refusal(self, scope: Scope) -> Response | None:
        """Answer how a request is refused, or None for one that is let in."""
        headers = Headers(scope=scope)
        language = language_of(headers)
        if (desk := desk_of(self._name)) is None:
            return refusal(503, say(language, "no_lifespan", name=self._name))
        scope[DESK] = desk
        path = path_of(scope)
        if (place := _place_of(scope, path)) is not None:
            return RedirectResponse(place, 307)
        if len(path) > 1 and path.endswith("/"):  # Litestar has added that: nobody asked for it
            path, scope["path"] = path[:-1], scope["path"][:-1]
        if path == "/healthz":  # who asks for that has no token, and no name to ask by
            return None
        if self._hosts is not None and host_of(headers.get("host", "")) not in self._hosts:
            return refusal(400, say(language, "wrong_host"))
        if self._auth is None and not _is_direct(scope, headers):
            return refusal(403, say(language, "no_auth"))
        if scope["method"] not in _SAFE and not _is_own(headers):
            return refusal(403, say(language, "wrong_origin"))
        if path in ("/login", "/page.css", "/page.js") or await self._is_known(scope, headers):
            return None
        if path == "/" and scope["method"] in ("GET", "HEAD"):
            scope["path"] = scope["path"][: -len(path)] + "/login"
            return None
        return refusal(401, say(language, "no_token"), {"www-authenticate": "Bearer"})

    async def _is_known(self, scope: Scope, headers: Headers) -> bool:
        if callable(self._auth):
            answer = self._auth(scope)
            return bool(await answer if inspect.isawaitable(answer) else answer)
        if not isinstance(self._auth, str):
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_token(token.strip())
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return _are_same(cookie, self.cookie())

    def is_token(self, text: str) -> bool:
        """Tell whether this is the token; takes as long if only the last character is wrong."""
        return isinstance(self._auth, str) and _are_same(text, self._auth)

    def cookie(self) -> str:
        """Answer what a browser shows from then on: it tells nobody the token."""
        return hmac.new(str(self._auth).encode(), b"o3pro_bg cookie", hashlib.sha256).hexdigest()


def _are_same(one: str, other: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(one.encode()).digest(), hashlib.sha256(other.encode()).digest())


def path_of(scope: Scope) -> str:
    """Answer the path of a request below the mount."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] or "/" if root and (path + "/").startswith(root + "/") else path


def _place_of(scope: Scope, path: str) -> str | None:
    """
    Answer where a request should go instead, or None where it is right.

    That for the page ends with a slash, because its links are relative, and no other does. What was asked for is in
    `raw_path`, which no host changes; a relative place is right wherever we are mounted.
    """
    asked = (scope.get("raw_path") or b"").decode("latin-1") or scope["path"]
    query = scope.get("query_string", b"").decode("latin-1")
    if path == "/" and not asked.endswith("/"):
        place = f"./{asked.rpartition('/')[2]}/"
    elif path != "/" and asked.endswith("/") and not asked.endswith("//"):
        place = f"../{asked[:-1].rpartition('/')[2]}"
    else:
        return None
    return f"{place}?{query}" if query else place


def host_of(host: str) -> str:
    """Answer the name, without the port, by which the server was asked."""
    name, _, port = host.lower().rpartition(":")
    return name if port.isdecimal() and name else host.lower()


def _is_direct(scope: Scope, headers: Headers) -> bool:
    """Tell whether somebody on this machine asks, and nothing stands between."""
    try:
        is_near = ip_address((scope.get("client") or ("", 0))[0]).is_loopback
    except ValueError:
        return False
    return is_near and not any(name in headers for name in _PROXIED)


def _is_own(headers: Headers) -> bool:
    """Tell whether a change is not asked for by a browser on behalf of another site."""
    site: Any = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()
