"""The page: jobs to start, to watch and to steer, in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, RedirectResponse, Response

from o3pro_bg.web._api import by_method
from o3pro_bg.web._guard import COOKIE, Guard
from o3pro_bg.web._wire import Bounds, Refusal, body_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from o3pro_bg.web._api import Api

_FORM = 4_000  # bytes of a form that holds a token


class Page:
    """
    The page.

    Args:
        api: What starts jobs.
        bounds: How much is taken.

    Attributes:
        guard: What knows the token.
    """

    guard: Guard

    def __init__(self, api: Api, bounds: Bounds) -> None:
        self._api = api
        self._bounds = bounds

    def routes(self) -> Sequence[BaseRoute]:
        """Answer where each part of it is."""
        return [
            by_method("/", GET=self.index),
            by_method("/login", GET=self.ask, POST=self.login),
        ]

    async def index(self, _: Request) -> Response:
        """Answer the page."""
        return HTMLResponse("<!doctype html>")

    async def ask(self, _: Request) -> Response:
        """Ask for the token."""
        return HTMLResponse("<!doctype html>", 401)

    async def login(self, request: Request) -> Response:
        """Set the cookie for whoever has the token."""
        fields = parse_qs((await body_of(request, _FORM)).decode("utf-8", "replace"))
        if not self.guard.is_token(fields.get("token", [""])[0].strip()):
            raise Refusal(401, "wrong_token")
        response = RedirectResponse("./", 303)
        response.set_cookie(
            COOKIE,
            self.guard.cookie(),
            path=None,  # that of the mount, wherever it is
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response
