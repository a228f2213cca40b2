"""How the web parts read bodies and write answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from o3pro_bg.web._words import language_of, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    How much is taken.

    Attributes:
        body: Bytes of a request's body.
        question: Characters of a question.
        jobs: Jobs under way.
        streams: Event streams.
    """

    body: int
    question: int
    jobs: int
    streams: int


class Refusal(Exception):
    """A request that is refused, and why."""

    def __init__(self, status: int, key: str, **values: object) -> None:
        super().__init__(key)
        self.status = status
        self.key = key
        self.values = values

    def response(self, request: Request) -> Response:
        """Answer it, in the language of whoever asks."""
        return refusal(self.status, say(language_of(request.headers), self.key, **self.values))


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer this as JSON; what no encoding has is escaped."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "backslashreplace"), status, headers, "application/json")


def refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """Answer what the specification answers for what did not work."""
    return answer({"success": False, "error": sentence}, status, headers)


async def body_of(request: Request, most: int) -> bytes:
    """Answer the body of a request; raises `Refusal` for one of more bytes than that."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise Refusal(413, "too_large", most=most)
    return bytes(body)


async def json_of(request: Request, most: int) -> dict[str, Any]:
    """Answer the JSON object in the body of a request; raises `Refusal` for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "not_json")
    try:
        value = json.loads(await body_of(request, most), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Refusal(400, "not_json") from None
    if not isinstance(value, dict):
        raise Refusal(422, "no_object")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
