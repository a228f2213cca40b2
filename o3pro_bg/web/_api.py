"""The HTTP API: the verbs and the dictionaries of the specification, as JSON."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from o3pro_bg._figures import is_figure
from o3pro_bg._states import JobStatus
from o3pro_bg.web._guard import DESK
from o3pro_bg.web._openapi import document
from o3pro_bg.web._schemas import KEY
from o3pro_bg.web._wire import Bounds, Refusal, answer, json_of, refusal
from o3pro_bg.web._words import language_of, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from o3pro_bg._records import JobRecord
    from o3pro_bg.web._desk import Desk

_MOST: Final = 1000  # jobs of one list
_PAGE: Final = 100  # jobs of a list where nothing is said
_STATUSES: Final = frozenset(status.value for status in JobStatus)


class Api:
    """
    The endpoints.

    Args:
        bounds: How much is taken.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    def routes(self) -> Sequence[BaseRoute]:
        """Answer where each of them is."""
        return [
            by_method("/api/jobs", GET=self.jobs, POST=self.start),
            by_method("/api/jobs/{job_id}", GET=self.job, DELETE=self.remove),
            by_method("/api/jobs/{job_id}/result", GET=self.result),
            by_method("/api/jobs/{job_id}/cancel", POST=self.cancel),
            by_method("/api/events", GET=self.events),
            by_method("/openapi.json", GET=self.openapi),
            by_method("/healthz", GET=self.health),
        ]

    async def start(self, request: Request) -> Response:
        """Start a job."""
        desk, arguments = desk_of(request), await json_of(request, self._bounds.body)
        _check_fields(arguments)
        is_ours, reply = await self.started(desk, arguments)
        if reply["success"]:
            return answer(reply, 202, {"location": f"jobs/{reply['job_id']}"})
        return answer(reply, 503 if is_ours else 422)

    async def started(self, desk: Desk, arguments: dict[str, Any]) -> tuple[bool, Any]:
        """Start a job within the bounds; raises `Refusal`, else as `Desk.start`."""
        if len(arguments["question"]) > self._bounds.question:
            raise Refusal(422, "question_long", most=self._bounds.question)
        if desk.leaving.heard.is_set():
            raise Refusal(503, "ending")
        if desk.under_way() >= self._bounds.jobs:
            raise Refusal(429, "too_many_jobs", most=self._bounds.jobs)
        return await desk.start(arguments)

    async def jobs(self, request: Request) -> Response:
        """List jobs, the newest first."""
        desk = desk_of(request)
        position = desk.feed.position()  # before the list, so that nothing falls between
        found = wanted(desk.records(), _parameter(request, "status"), _parameter(request, "q") or "")
        first = _number(request, "offset", 0, least=0)
        most = _number(request, "limit", _PAGE, least=1, most=_MOST)
        has_details = _has_details(request)
        rows = [desk.row(record, has_details=has_details) for record in found[first : first + most]]
        return answer({"jobs": rows, "total": len(found), "last_event_id": position})

    async def job(self, request: Request) -> Response:
        """Tell how far a job is."""
        desk, job_id = desk_of(request), request.path_params["job_id"]
        reply: dict[str, Any] = {**await desk.status(job_id)}
        if _has_details(request) and (record := desk.record(job_id)) is not None:
            reply["details"] = desk.details(record)
        return answer(reply, 200 if reply["success"] else 404)

    async def result(self, request: Request) -> Response:
        """Tell what came of a job."""
        reply = await desk_of(request).result(request.path_params["job_id"])
        if "status" not in reply:
            return answer(reply, 404)
        return answer(reply, 200 if "total_time" in reply else 409)

    async def cancel(self, request: Request) -> Response:
        """Cancel a job."""
        return _changed(await desk_of(request).cancel(request.path_params["job_id"]))

    async def remove(self, request: Request) -> Response:
        """Forget a job that has ended."""
        return _changed(await desk_of(request).remove(request.path_params["job_id"]))

    async def events(self, request: Request) -> Response:
        """Tell what changes, as it does."""
        feed = desk_of(request).feed
        if feed.streams >= self._bounds.streams:
            raise Refusal(503, "too_many_streams", most=self._bounds.streams)
        after = request.headers.get("last-event-id") or _parameter(request, "after")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # which has nginx pass each event on
        if request.method == "HEAD":  # for whom there is no end to wait for
            return Response(None, 200, headers, "text/event-stream")
        return StreamingResponse(feed.stream(after), 200, headers, "text/event-stream")

    async def openapi(self, request: Request) -> Response:
        """Describe all this."""
        return answer(document(self._bounds, desk_of(request).efforts))

    async def health(self, request: Request) -> Response:
        """Tell whether jobs are taken on."""
        desk = desk_of(request)
        if desk.leaving.heard.is_set() or not desk.is_well():
            return refusal(503, say(language_of(request.headers), "ending"))
        return answer({"success": True})


def by_method(path: str, **endpoints: Callable[[Request], Awaitable[Response]]) -> Route:
    """Answer a route with an endpoint for each of these methods: others are refused, and told of all of these."""

    async def endpoint(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, endpoint, methods=[*endpoints])


def desk_of(request: Request) -> Desk:
    """Answer the desk to which a request was let in."""
    desk: Desk = request.scope[DESK]
    return desk


def _changed(reply: Mapping[str, Any]) -> Response:
    if reply["success"]:
        return answer(reply)
    return answer(reply, 409 if "status" in reply else 404)


def wanted(records: Sequence[JobRecord], status: str | None, text: str) -> list[JobRecord]:
    """Answer the records of this status that hold this text, or whose id begins so, the newest first."""
    if status is not None and status not in _STATUSES:
        raise Refusal(422, "wrong_field", name="status", kind=", ".join(sorted(_STATUSES)))
    text = text.casefold()
    return [
        record
        for record in reversed(records)
        if (status is None or record.status.value == status)
        and (not text or text in record.request.question.casefold() or record.job_id.startswith(text))
    ]


def _parameter(request: Request, name: str) -> str | None:
    """Answer a parameter; raises `Refusal` where it is given twice."""
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise Refusal(422, "wrong_field", name=name, kind="one value")
    return values[0] if values else None


def _has_details(request: Request) -> bool:
    text = _parameter(request, "details")
    if text not in (None, "true", "false"):
        raise Refusal(422, "wrong_field", name="details", kind="true, false")
    return text == "true"


def _number(request: Request, name: str, otherwise: int, *, least: int, most: int = 10**9) -> int:
    if (text := _parameter(request, name)) is None:
        return otherwise
    if not (text.isascii() and text.isdecimal() and len(text) < 16 and least <= int(text) <= most):
        raise Refusal(422, "wrong_field", name=name, kind=f"{least} - {most}")
    return int(text)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_key(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(KEY, value) is not None


def _is_whole(value: object) -> bool:
    """Tell whether this is a whole number, which JSON may write with a point."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    return is_int or (isinstance(value, float) and value.is_integer())


_FIELDS: Final = {
    "question": ("a text", _is_text),
    "effort": ("a text", _is_text),
    "timeout": ("a number of seconds, or null", lambda value: value is None or is_figure(value)),
    "dedupe_key": ("1 to 512 characters of ASCII, or null", lambda value: value is None or _is_key(value)),
    "priority": ("a whole number", _is_whole),
    "options": ("an object", lambda value: isinstance(value, dict)),
}


def _check_fields(arguments: Mapping[str, Any]) -> None:
    """Raise `Refusal` for what is no set of arguments."""
    for name, value in {"question": None, **arguments}.items():
        if name not in _FIELDS:
            raise Refusal(422, "unknown_field", name=ascii(name[:40]))
        kind, is_right = _FIELDS[name]
        if not is_right(value):
            raise Refusal(422, "wrong_field", name=name, kind=kind)
