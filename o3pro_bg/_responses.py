"""
The Responses API, over the SDK: it is the way in (credentials, base URL, proxies, TLS), asked for plain answers.

Whatever an exchange raises becomes the one exception that the engine knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import anyio

from o3pro_bg._answers import bad_answer, json_of, read, trouble_of
from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble, Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx2
    from openai import AsyncAzureOpenAI

    from o3pro_bg._records import JobRequest, News
    from o3pro_bg.config import O3ProConfig

JOB_TAG: Final = "o3pro_bg_job_id"

_NEVER_SENT: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})


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

    async def prepare(self) -> None:
        """Have a token at hand, where tokens are used."""
        if self._prepare is not None:
            await self._prepare()

    async def create(self, job_id: str, request: JobRequest) -> News:
        """Send the question, exactly once: a repeated POST would be a second paid job."""
        timeout = self._config.create_timeout if self.background else None
        response = await self._exchange("post", "responses", timeout, self._body(job_id, request))
        return read(response, asked=None)

    async def look(self, response_id: str) -> News:
        """Ask how far the response is."""
        response = await self._exchange("get", _path_of(response_id), self._config.look_timeout)
        return read(response, asked=response_id)

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
            if response.status_code != 204 and json_of(response).get("deleted") is not True:
                raise bad_answer(response)
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


def _path_of(response_id: str) -> str:
    return f"responses/{quote(response_id, safe='', errors='replace')}"


def _trouble_from(exc: Exception) -> RemoteTrouble:
    """Turn whatever an exchange raised into the one exception that the engine knows."""
    import openai

    if isinstance(exc, RemoteTrouble):
        return exc
    if isinstance(exc, TimeoutError):
        return RemoteTrouble(Trouble.UNCLEAR, Failure("connection_lost", "TimeoutError"))
    if isinstance(exc, openai.APIStatusError):
        return trouble_of(exc.response)
    if isinstance(exc, openai.APIConnectionError):
        cause = type(exc.__cause__).__name__
        if cause in _NEVER_SENT:
            return RemoteTrouble(Trouble.UNSENT, Failure("unreachable", f"{cause}: {exc.__cause__}"[:300]))
        return RemoteTrouble(Trouble.UNCLEAR, Failure("connection_lost", cause))
    return RemoteTrouble(Trouble.UNCLEAR, Failure("internal", type(exc).__name__))
