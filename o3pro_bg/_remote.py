"""
The service as the engine sees it: create, look, cancel, delete; answers become `News`, and trouble has a kind.

Every answer passes one gate, `_read`, and every exception one table, `_trouble_from`, so that whatever a
service, a gateway or a network does ends as one of the two. The SDK is the way in (credentials, base URL,
proxies, TLS), asked for plain HTTP responses: its models raise on, or silently accept, bodies that services
really send (null output, HTML with status 200, truncated JSON).
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

import anyio

from o3pro_bg._records import Failure, News, Usage
from o3pro_bg._states import SERVICE_WORDS, Event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx2
    from openai import AsyncAzureOpenAI

    from o3pro_bg._records import JobRequest
    from o3pro_bg.config import O3ProConfig

log = logging.getLogger("o3pro_bg")

JOB_TAG: Final = "o3pro_bg_job_id"


class Trouble(StrEnum):
    """What an exchange that brought no news means for the request that was made."""

    UNSENT = "unsent"  # provably never reached the service
    THROTTLED = "throttled"  # refused for now: 429
    REFUSED = "refused"  # refused for good: 3xx, 4xx
    DENIED = "denied"  # no credential, or one that is not let in: 401, 403
    MISSING = "missing"  # 404, 410
    UNCLEAR = "unclear"  # may have been carried out: time-out, reset, 408, 5xx, an unreadable answer


class RemoteTrouble(Exception):
    """An exchange with the service that brought no news; it never carries the request, the key or the prompt."""

    def __init__(
        self, kind: Trouble, failure: Failure, *, retry_after: float | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(f"{kind}: {failure.code} {failure.detail}".rstrip())
        self.kind = kind
        self.failure = failure
        self.retry_after = retry_after
        self.request_id = request_id


class Remote(Protocol):
    """
    The service, for the engine of one event loop.

    Every method but `aclose` raises `RemoteTrouble` and nothing else.
    """

    background: bool
    """Whether a create is answered at once; without it, it is answered by the end of the job."""

    async def prepare(self) -> None:
        """Get ready what a request needs beside the service, such as a token; nothing is sent to the service."""

    async def create(self, job_id: str, request: JobRequest) -> News:
        """Send the question, exactly once."""

    async def look(self, response_id: str) -> News:
        """Ask how far the response is."""

    async def cancel(self, response_id: str) -> None:
        """Ask the service to stop; only a look tells whether it did."""

    async def delete(self, response_id: str) -> None:
        """Have the service delete the response; one that is gone already is no trouble."""

    async def aclose(self) -> None:
        """Close the connections."""


class Client(Protocol):
    """What a handler needs of its client; `O3ProClient` and `testing.FakeClient` are two."""

    @property
    def config(self) -> O3ProConfig:
        """The configuration."""

    def is_ready(self) -> bool:
        """Tell whether the configuration makes a working client."""

    async def connect(self) -> Remote:
        """Answer a remote of its own for the running event loop; whoever asked closes it."""


class ResponsesRemote:
    """The Responses API through one `AsyncAzureOpenAI`, which it owns."""

    def __init__(
        self,
        sdk: AsyncAzureOpenAI,
        config: O3ProConfig,
        prepare: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._prepare = prepare
        self.background = config.background
        self._sdk = sdk
        self._config = config
        self._unknown_words: set[str] = set()

    async def prepare(self) -> None:
        """Have a token at hand, where tokens are used."""
        if self._prepare is not None:
            await self._prepare()

    async def create(self, job_id: str, request: JobRequest) -> News:
        """Send the question, exactly once: a repeated POST would be a second paid job."""
        timeout = self._config.create_timeout if self.background else None
        response = await self._exchange("post", "responses", timeout, self._body(job_id, request))
        return self._read(response, asked=None)

    async def look(self, response_id: str) -> News:
        """Ask how far the response is."""
        response = await self._exchange("get", _path_of(response_id), self._config.look_timeout)
        return self._read(response, asked=response_id)

    async def cancel(self, response_id: str) -> None:
        """Ask the service to stop; only a look tells whether it did."""
        await self._exchange("post", f"{_path_of(response_id)}/cancel", self._config.look_timeout)

    async def delete(self, response_id: str) -> None:
        """
        Have the service delete the response; one that is gone already is no trouble.

        It is believed to be gone where the service says so: the 404 of a gateway that knows no such path does
        not, nor does a page of HTML with status 200.
        """
        try:
            response = await self._exchange("delete", _path_of(response_id), self._config.look_timeout)
            if response.status_code != 204 and _json_of(response).get("deleted") is not True:
                raise _bad_answer(response)
        except RemoteTrouble as trouble:
            if trouble.failure.code != "lost":
                raise

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sdk.close()

    def _body(self, job_id: str, request: JobRequest) -> dict[str, Any]:
        body = {
            **request.options,
            "model": request.deployment or self._config.deployment,
            "input": request.question,
            "reasoning": {**request.options.get("reasoning", {}), "effort": request.effort},
            # Without it Azure forgets a response after about ten minutes; with it, after 30 days.
            "store": True,
        }
        if self.background:
            body["background"] = True
        if self._config.tag_jobs:
            body["metadata"] = {**request.options.get("metadata", {}), JOB_TAG: job_id}
        return body

    async def _exchange(
        self, method: str, path: str, timeout: float | None, body: Mapping[str, Any] | None = None
    ) -> httpx2.Response:
        import httpx2
        import openai

        # In the foreground an answer takes as long as its job; all else has its time.
        limits = timeout or httpx2.Timeout(None, connect=self._config.look_timeout, pool=self._config.look_timeout)
        options: Any = {"max_retries": 0, "timeout": limits, "follow_redirects": False}
        if not self._config.api_version:
            options["params"] = {"api-version": openai.omit}
        try:
            with anyio.fail_after(timeout):  # the whole of it: the SDK's time-out is that of a single read
                if method == "get":
                    return await self._sdk.get(path, cast_to=httpx2.Response, options=options)
                send = self._sdk.post if method == "post" else self._sdk.delete
                return await send(path, cast_to=httpx2.Response, body=body, options=options)
        except Exception as exc:
            trouble = _trouble_from(exc)
        # Out here it has no context: the SDK's exceptions hold the request, and with it the key and the prompt.
        raise trouble

    def _read(self, response: httpx2.Response, *, asked: str | None) -> News:
        data = _json_of(response)
        response_id, word = data.get("id"), data.get("status")
        known = isinstance(response_id, str) and response_id != "" and asked in (None, response_id)
        # A created response is worth watching whatever else is odd about the answer; a look has to make sense.
        if not known or (asked is not None and not isinstance(word, str)):
            raise _bad_answer(response)
        return News(
            event=self._event(word),
            response_id=str(response_id),
            request_id=_request_id(response),
            answer=_text_of(data),
            output_items=_items_of(data),
            failure=_failure_of(data),
            usage=_usage_of(data),
            model=_model_of(data),
            poll_after=_seconds(response, ("openai-poll-after-ms", 0.001)) or _retry_after(response) or None,
        )

    def _event(self, word: object) -> Event | None:
        event = SERVICE_WORDS.get(word) if isinstance(word, str) else None
        if event is None and (text := repr(word)[:60]) not in self._unknown_words:
            self._unknown_words.add(text)
            log.warning("the service reports a status that is not known here, %s: jobs stay as they are", text)
        return event


def _path_of(response_id: str) -> str:
    return f"responses/{quote(response_id, safe='', errors='replace')}"


def _json_of(response: httpx2.Response) -> dict[str, Any]:
    """Read a body as a JSON object; whatever is none reads as empty (HTML, null, cut off, too deep, not UTF-8)."""
    try:
        data = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _glimpse(response: httpx2.Response) -> str:
    kind = response.headers.get("content-type", "no content type").partition(";")[0]
    return f"HTTP {response.status_code} with {len(response.content)} bytes of {kind}"


def _bad_answer(response: httpx2.Response) -> RemoteTrouble:
    return RemoteTrouble(Trouble.UNCLEAR, Failure("bad_answer", _glimpse(response)), request_id=_request_id(response))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text_of(data: Mapping[str, Any]) -> str:
    """Answer the text of all messages of the output; where there is none, the words of a refusal."""
    parts = [part for item in _dicts(data.get("output")) for part in _dicts(item.get("content"))]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
    return "".join(texts or refusals)


def _items_of(data: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Answer what the output holds beside text and reasoning, such as calls of tools."""
    return tuple(item for item in _dicts(data.get("output")) if item.get("type") not in ("message", "reasoning"))


_CUT_SHORT: Final = ("max_output_tokens", "content_filter")  # the reasons with a sentence of their own


def _failure_of(data: Mapping[str, Any]) -> Failure | None:
    if data.get("status") == "incomplete":
        details = data.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        code = f"incomplete_{reason}" if reason in _CUT_SHORT else "incomplete"
        return Failure(code, f"incomplete: {reason}" if isinstance(reason, str) else "")
    if data.get("status") == "failed":
        code, detail = _error_of(data)
        return Failure(code or "server_error", detail or "the service gave no reason")
    return None


def _usage_of(data: Mapping[str, Any]) -> Usage | None:
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return None

    def count(parent: object, key: str) -> int:
        value = parent.get(key) if isinstance(parent, dict) else None
        return value if isinstance(value, int) and 0 <= value < 2**53 else 0  # what any reader of JSON can hold

    return Usage(
        input_tokens=count(usage, "input_tokens"),
        output_tokens=count(usage, "output_tokens"),
        reasoning_tokens=count(usage.get("output_tokens_details"), "reasoning_tokens"),
        cached_tokens=count(usage.get("input_tokens_details"), "cached_tokens"),
    )


def _model_of(data: Mapping[str, Any]) -> str | None:
    model = data.get("model")
    return model if isinstance(model, str) and 0 < len(model) <= 200 and model.isprintable() else None


def _request_id(response: httpx2.Response) -> str | None:
    return response.headers.get("apim-request-id") or response.headers.get("x-request-id")


def _seconds(response: httpx2.Response, *names: tuple[str, float]) -> float | None:
    """Answer the first of these headers that holds a number, times its factor."""
    for name, factor in names:
        try:
            seconds = float(response.headers[name]) * factor
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _retry_after(response: httpx2.Response) -> float | None:
    seconds = _seconds(response, ("retry-after-ms", 0.001), ("retry-after", 1.0))
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(response.headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, OverflowError):
        return None


def _error_of(data: Mapping[str, Any]) -> tuple[str, str]:
    """Answer the code and the message of Azure's error body, of API Management's, or of OpenAI's."""
    error = data.get("error")
    body: Mapping[str, Any] = error if isinstance(error, dict) else data
    code, message = body.get("code"), body.get("message")
    fired = _fired_filters(body.get("innererror"))
    detail = message if isinstance(message, str) else ""
    # It goes into logs: a code is one word, and not whatever text a gateway puts there.
    word = code[:60] if isinstance(code, str) else ""
    return (word if re.fullmatch(r"[\w.-]+", word, re.ASCII) else ""), f"{detail[:500]}{fired}"


def _fired_filters(innererror: object) -> str:
    result = innererror.get("content_filter_result") if isinstance(innererror, dict) else None
    if not isinstance(result, dict):
        return ""
    fired = [name for name, verdict in result.items() if isinstance(verdict, dict) and verdict.get("filtered")]
    return f" [{', '.join(fired)}]" if fired else ""


_NEVER_SENT: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})

# HTTP status, a word that the code or the message holds, what it means, our word for it; the first row that fits.
_REFUSALS: Final = (
    (400, "content_filter", Trouble.REFUSED, "content_filter"),
    (401, "audience", Trouble.DENIED, "wrong_audience"),
    (401, "", Trouble.DENIED, "invalid_key"),
    (403, "", Trouble.DENIED, "forbidden"),
    (404, "DeploymentNotFound", Trouble.MISSING, "deployment_not_found"),
    (404, "Response with id", Trouble.MISSING, "lost"),
    (404, "", Trouble.MISSING, "resource_not_found"),
    (408, "", Trouble.UNCLEAR, ""),
    (410, "", Trouble.MISSING, "lost"),
    (429, "insufficient_quota", Trouble.REFUSED, "insufficient_quota"),
    (429, "", Trouble.THROTTLED, ""),
)


def _meaning_of(status: int, said: str) -> tuple[Trouble, str]:
    if status < 400:
        return Trouble.REFUSED, "redirected"
    rows = ((kind, name) for row, word, kind, name in _REFUSALS if row == status and word in said)
    return next(rows, (Trouble.UNCLEAR if status >= 500 else Trouble.REFUSED, ""))


def _trouble_from(exc: Exception) -> RemoteTrouble:
    """Turn whatever an exchange raised into the one exception that the engine knows."""
    import openai

    if isinstance(exc, RemoteTrouble):
        return exc
    if isinstance(exc, TimeoutError):
        return RemoteTrouble(Trouble.UNCLEAR, Failure("connection_lost", "TimeoutError"))
    if isinstance(exc, openai.APIStatusError):
        return _trouble_from_status(exc.response)
    if isinstance(exc, openai.APIConnectionError):
        cause = type(exc.__cause__).__name__
        if cause in _NEVER_SENT:
            return RemoteTrouble(Trouble.UNSENT, Failure("unreachable", f"{cause}: {exc.__cause__}"[:300]))
        return RemoteTrouble(Trouble.UNCLEAR, Failure("connection_lost", cause))
    return RemoteTrouble(Trouble.UNCLEAR, Failure("internal", type(exc).__name__))


def _trouble_from_status(response: httpx2.Response) -> RemoteTrouble:
    code, message = _error_of(_json_of(response))
    kind, name = _meaning_of(response.status_code, f"{code} {message}")
    failure = Failure(name or code or f"http_{response.status_code}", message or _glimpse(response))
    return RemoteTrouble(kind, failure, retry_after=_retry_after(response), request_id=_request_id(response))
