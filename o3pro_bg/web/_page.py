"""The page: jobs to start, to watch and to steer, in a browser; without scripts it works as well."""

from __future__ import annotations

import hashlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, RedirectResponse, Response

from o3pro_bg._shown import one_line
from o3pro_bg.web._api import by_method, desk_of, wanted
from o3pro_bg.web._asked import Asked
from o3pro_bg.web._detail import detail
from o3pro_bg.web._guard import COOKIE, Guard
from o3pro_bg.web._markup import NOTHING, Html, asset, phrase, written
from o3pro_bg.web._paint import Draft, Message, frame, listing, login, overview
from o3pro_bg.web._wire import Bounds, Refusal, body_of
from o3pro_bg.web._words import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from o3pro_bg.web._api import Api
    from o3pro_bg.web._desk import Desk

_FORM: Final = 4_000  # bytes of a form that holds a token
_SPREAD: Final = 3  # so many bytes a form takes for one of UTF-8
_FIELDS: Final = 20  # of a form
_SAID: Final = ("removed",)
_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


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
            by_method("/", GET=self.index, POST=self.act),
            by_method("/login", GET=self.ask, POST=self.login),
            by_method("/page.css", GET=_style),
            by_method("/page.js", GET=_script),
        ]

    async def index(self, request: Request) -> Response:
        """Answer the page."""
        asked = Asked.of(request)
        said = phrase(asked.language, asked.said) if asked.said in _SAID else None
        message = None if said is None else Message(said, asked.language, is_bad=False)
        return await self._page(request, asked, message)

    async def act(self, request: Request) -> Response:
        """Do what a form of the page asks for, and lead to what came of it; or say why it did not work."""
        asked, fields = Asked.of(request), _NO_FIELDS
        try:
            fields = await _fields(request, _FORM + _SPREAD * self._bounds.body)
            return await self._done(request, asked, fields)
        except Refusal as refusal:
            message = Message(say(asked.language, refusal.key, **refusal.values), asked.language)
            return await self._page(request, asked, message, refusal.status, fields)

    async def _done(self, request: Request, asked: Asked, fields: Mapping[str, str]) -> Response:
        desk, job_id = desk_of(request), fields.get("job", "")
        reply: Mapping[str, Any]
        match fields.get("action"):
            case "start":
                is_ours, reply = await self._api.started(desk, _arguments(fields))
                changes, status = {"job": reply.get("job_id", "")}, 503 if is_ours else 422
            case "cancel":
                reply = await desk.cancel(job_id)
                changes, status = {"job": job_id}, 409 if "status" in reply else 404
            case "remove":
                reply = await desk.remove(job_id)
                changes, status = {"job": "", "said": "removed"}, 409 if "status" in reply else 404
            case _:
                raise Refusal(422, "wrong_field", name="action", kind="start, cancel, remove")
        if reply["success"]:
            return RedirectResponse(asked.link(**changes), 303)
        message = Message.of(reply["error"], desk.language, asked, job_id)
        return await self._page(request, asked, message, status, fields)

    async def _page(
        self,
        request: Request,
        asked: Asked,
        message: Message | None,
        status: int = 200,
        fields: Mapping[str, str] = _NO_FIELDS,
    ) -> Response:
        desk = desk_of(request)
        position = desk.feed.position()  # before the list, so that nothing falls between
        top, heading = NOTHING, phrase(asked.language, "title")
        if asked.job:
            reply: Mapping[str, Any] = await desk.result(asked.job)
            if (record := desk.record(asked.job)) is not None:
                top, heading = detail(desk, asked, record, reply), one_line(record.request.question, 60) or heading
            elif message is None:
                message, status = Message.of(reply["error"], desk.language, asked, asked.job), 404
        records = desk.records()
        main = listing(
            desk,
            asked,
            wanted(records, asked.status or None, asked.q),
            position=position,
            heading=heading,
            message=NOTHING if message is None else message.painted(),
            top=top or overview(desk, asked, Draft.of(fields, self._bounds.question), records),
        )
        return await _framed(desk, asked, heading, main, status)

    async def ask(self, request: Request) -> Response:
        """Ask for the token."""
        return await _login(request, None)

    async def login(self, request: Request) -> Response:
        """Set the cookie for whoever has the token."""
        fields = await _fields(request, _FORM)
        asked = Asked.of(request)
        if not self.guard.is_token(fields.get("token", "").strip()):
            return await _login(request, Message(say(asked.language, "wrong_token"), asked.language))
        response = RedirectResponse(asked.link(), 303)
        response.set_cookie(
            COOKIE,
            self.guard.cookie(),
            path=None,  # that of the mount, wherever it is
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response


async def _login(request: Request, message: Message | None) -> Response:
    asked = Asked.of(request)
    return await _framed(desk_of(request), asked, phrase(asked.language, "login"), login(asked, message), 401)


async def _framed(desk: Desk, asked: Asked, heading: str, main: Html, status: int) -> Response:
    page = frame(asked, heading, main, is_emulator=await desk.mark.is_emulator())
    return HTMLResponse(written(page), status)


async def _fields(request: Request, most: int) -> dict[str, str]:
    """Answer the fields of a form; of several of one name the first."""
    text = (await body_of(request, most)).decode("utf-8", "replace")
    try:
        return {name: values[0] for name, values in parse_qs(text, max_num_fields=_FIELDS).items()}
    except ValueError:
        raise Refusal(413, "too_large", most=most) from None


def _arguments(fields: Mapping[str, str]) -> dict[str, Any]:
    """
    Answer what a form says of a new job.

    Its key makes that a form which is sent twice, by a double click or a reload, starts one job; what was changed in
    between is another question, and starts another.
    """
    question = fields.get("question", "").replace("\r\n", "\n")  # which is how forms send lines
    arguments = {"question": question, "effort": fields.get("effort", "low")}
    if key := fields.get("key", ""):
        asked = hashlib.sha256(repr((key, question, arguments["effort"])).encode()).hexdigest()
        arguments["dedupe_key"] = f"page {asked}"
    return arguments


async def _style(_: Request) -> Response:
    return Response(asset("page.css"), media_type="text/css")


async def _script(_: Request) -> Response:
    return Response(asset("page.js"), media_type="text/javascript")
