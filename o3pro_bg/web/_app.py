"""All of it as one ASGI application, to be mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from o3pro_bg.web._api import Api, by_method
from o3pro_bg.web._guard import Guard
from o3pro_bg.web._lifespan import NAME
from o3pro_bg.web._metrics import metrics
from o3pro_bg.web._page import Page
from o3pro_bg.web._wire import Bounds, Refusal, refusal
from o3pro_bg.web._words import language_of, say

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from o3pro_bg.web._guard import Auth


def app(
    *,
    name: str = NAME,
    auth: Auth = None,
    allowed_hosts: Collection[str] | None = None,
    max_body: int = 4_000_000,
    max_question: int = 200_000,
    max_jobs: int = 1_000,
    max_streams: int = 1_000,
) -> ASGIApp:
    """
    Answer the ASGI application with the API, the events and the page of a `lifespan`'s jobs.

    Mount it wherever you like. It has no lifespan of its own, because servers do not run those of mounted applications:
    without `lifespan` beside it, it answers 503 and says so.

    Args:
        name: That of the lifespan.
        auth: Who may come in: a token of 16 characters or more, sent as `Authorization: Bearer` or entered on the page;
            a function of the ASGI scope that tells (or a coroutine function); `False` for whoever reaches the mount,
            where the application guards it itself. Default: only direct requests from this machine.
        allowed_hosts: The names, without ports, by which the server is asked. Default: `localhost` and its addresses,
            and any name where `auth` is given.
        max_body: The most bytes of a request's body.
        max_question: The most characters of a question.
        max_jobs: The most jobs under way; one more is answered with 429.
        max_streams: The most event streams of a worker.

    Raises:
        ValueError: The token is too short.
        TypeError: `auth` or `allowed_hosts` is none.
    """
    bounds = Bounds(max_body, max_question, max_jobs, max_streams)
    api = Api(bounds)
    page = Page(api, bounds)
    inner = Starlette(
        routes=[*api.routes(), by_method("/metrics", GET=metrics), *page.routes()],
        exception_handlers={Refusal: _refused, HTTPException: _not_here, Exception: _broken},
    )
    inner.router.redirect_slashes = False  # the guard knows better: a host may have taken our place from the path
    guard = page.guard = Guard(inner, name, auth, allowed_hosts)
    return guard


async def _refused(request: Request, exc: Any) -> Response:
    response: Response = exc.response(request)
    return response


async def _not_here(request: Request, exc: Any) -> Response:
    sentence = say(language_of(request.headers), "wrong_method" if exc.status_code == 405 else "not_here")
    return refusal(exc.status_code, sentence, exc.headers)


async def _broken(request: Request, exc: Any) -> Response:
    return refusal(500, say(language_of(request.headers), "broken", kind=type(exc).__name__))
