"""The front door: host, key, route, headers, and the control pages beside the service."""

import hmac
import json
import re
import uuid

from o3pro_bg.emulator import _errors
from o3pro_bg.emulator._knobs import KnobError, Knobs, parse
from o3pro_bg.emulator._page import page
from o3pro_bg.emulator._server import Traffic
from o3pro_bg.emulator._service import Call, Service
from o3pro_bg.emulator._wire import Reply, Request

_PATH = re.compile(r"/(?:(?P<surface>openai/v1|openai|v1)/)?responses(?:/(?P<id>[^/]+)(?P<cancel>/cancel)?)?/?")
_LOOPBACK = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?", re.IGNORECASE)
_MARK = {"x-o3pro-bg-emulator": "1"}


def is_control(request: Request) -> bool:
    """Returns whether a request is about the emulator, and not for the service it models."""
    return request.path == "/emulator" or request.path.startswith("/emulator/")


class App:
    """Answers every request: those for the modelled service, and those about the emulator."""

    def __init__(self, knobs: Knobs, api_key: str, traffic: Traffic) -> None:
        self._service = Service(knobs)
        self._key = api_key.encode()
        self._traffic = traffic

    async def answer(self, request: Request) -> Reply:
        """Answers one request."""
        if is_control(request):
            reply = self._control(request)
        else:
            reply = await self._serve(request)
            self._service.counts["refused"] += reply.status >= 400
            reply.headers |= self._service.rate_headers()
            reply.headers |= {"x-request-id": str(uuid.uuid4()), "apim-request-id": str(uuid.uuid4())}
        reply.headers |= _MARK
        return reply

    async def _serve(self, request: Request) -> Reply:
        try:
            return await self._service.perform(self._route(request))
        except _errors.Refusal as refusal:
            return await self._service.refuse(refusal)

    def _route(self, request: Request) -> Call:
        _check_host(request)
        found = _PATH.fullmatch(request.path)
        if found is None or (found["surface"] == "openai" and not request.query.get("api-version")):
            raise _errors.resource_not_found()
        self._check_key(request)
        verb = _verb(request.method, has_id=found["id"] is not None, has_cancel=found["cancel"] is not None)
        return Call(verb, found["id"] or "", request.query, request.body)

    def _check_key(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = request.headers.get("api-key") or (token if scheme.lower() == "bearer" else "")
        if not hmac.compare_digest(given.encode(), self._key):
            raise _errors.wrong_key()

    def _control(self, request: Request) -> Reply:
        try:
            _check_host(request)
            if (request.method, request.path) == ("GET", "/emulator"):
                safe = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
                return Reply(200, page(), safe, media="text/html; charset=utf-8")
            self._check_key(request)
            return self._steer(request)
        except _errors.Refusal as refusal:
            return refusal.reply

    def _steer(self, request: Request) -> Reply:
        match request.method, request.path:
            case "GET", "/emulator/counters":
                return Reply(200, json.dumps(self._counters()).encode())
            case "POST", "/emulator/reset":
                self._service.forget()
                self._traffic.zero()
            case "PUT", "/emulator/knobs":
                self._service.turn(_knobs(request.body))
            case _:
                raise _errors.resource_not_found()
        return Reply(200, b"{}")

    def _counters(self) -> dict[str, object]:
        return {
            **self._service.counters(),
            "connections": self._traffic.connections,
            "open_connections": len(self._traffic.counted),
            "max_in_flight": self._traffic.max_in_flight,
        }


def _check_host(request: Request) -> None:
    # A page of another origin can make its own name mean 127.0.0.1, but it cannot change the Host header.
    if not _LOOPBACK.fullmatch(request.headers.get("host", "")):
        raise _errors.strange_host()


def _verb(method: str, *, has_id: bool, has_cancel: bool) -> str:
    match method, has_id, has_cancel:
        case "POST", False, False:
            return "create"
        case "GET", True, False:
            return "look"
        case "POST", True, True:
            return "cancel"
        case "DELETE", True, False:
            return "delete"
    raise _errors.resource_not_found()


def _knobs(body: bytes) -> Knobs:
    try:
        return Knobs().overlay(parse(body.decode()))
    except (KnobError, UnicodeDecodeError) as error:
        raise _errors.invalid(str(error), code="invalid_knob") from None
