"""
The Responses API, over the SDK: it is the way in, with its credentials, its base URL and its HTTP client.

Whatever an exchange raises becomes the one exception that the engine knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from o3pro_bg._answers import bad_answer, json_of, read, trouble_of
from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble, Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from openai import AsyncAzureOpenAI

    from o3pro_bg._headers import Answer
    from o3pro_bg._lanes import Lane
    from o3pro_bg._records import JobRequest, News
    from o3pro_bg.config import O3ProConfig

JOB_TAG: Final = "o3pro_bg_job_id"

# The names of httpx2 and of aiohttp for a request of which nothing left.
_NEVER_SENT: Final = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"}
    | {"ClientConnectorError", "ConnectionTimeoutError", "ClientHttpProxyError"}
)


class ResponsesRemote:
    """
    The Responses API through one `AsyncAzureOpenAI`, which it owns.

    Args:
        sdk: The SDK's client.
        config: The deployment.
        lane: How requests travel.
        prepare: Gets ready what a request needs beside the service.
    """

    def __init__(
        self,
        sdk: AsyncAzureOpenAI,
        config: O3ProConfig,
        lane: Lane,
        prepare: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._prepare = prepare
        self.background = config.background
        self._sdk = sdk
        self._config = config
        self._lane = lane

    async def prepare(self) -> None:
        """Have a token at hand, where tokens are used."""
        if self._prepare is not None:
            await self._prepare()

    async def create(self, job_id: str, request: JobRequest) -> News:
        """Send the question, exactly once: a repeated POST would be a second paid job."""
        timeout = self._config.create_timeout if self.background else None
        answer = await self._exchange("POST", "responses", timeout, self._body(job_id, request))
        return read(answer, asked=None)

    async def look(self, response_id: str) -> News:
        """Ask how far the response is."""
        answer = await self._exchange("GET", _path_of(response_id), self._config.look_timeout)
        return read(answer, asked=response_id)

    async def cancel(self, response_id: str) -> None:
        """Ask the service to stop; only a look tells whether it did."""
        await self._exchange("POST", f"{_path_of(response_id)}/cancel", self._config.look_timeout)

    async def delete(self, response_id: str) -> None:
        """
        Have the service delete the response; one that is gone already is no trouble.

        It is believed to be gone where the service says so: the 404 of a gateway that knows no such path does
        not, nor does a page of HTML with status 200.
        """
        try:
            answer = await self._exchange("DELETE", _path_of(response_id), self._config.look_timeout)
            if answer.status_code != 204 and json_of(answer).get("deleted") is not True:
                raise bad_answer(answer)
        except RemoteTrouble as trouble:
            if trouble.failure.code != "lost":
                raise

    async def aclose(self) -> None:
        """Close the connections."""
        await self._lane.aclose()
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
    ) -> Answer:
        """Answer what came back, if the service did what was asked."""
        try:
            answer = await self._lane.send(method, path, timeout, body)
        except Exception as exc:
            trouble = _trouble_from(exc)
        else:
            if 200 <= answer.status_code < 300:
                return answer
            trouble = trouble_of(answer)
        # Out here it has no context: exceptions of the network hold the request, and with it the key and the prompt.
        raise trouble


def _path_of(response_id: str) -> str:
    return f"responses/{quote(response_id, safe='', errors='replace')}"


def _trouble_from(exc: Exception) -> RemoteTrouble:
    """Turn whatever an exchange raised into the one exception that the engine knows."""
    import httpx2

    if isinstance(exc, RemoteTrouble):
        return exc
    name = type(exc).__name__
    if not _NEVER_SENT.isdisjoint(kind.__name__ for kind in type(exc).__mro__):
        return RemoteTrouble(Trouble.UNSENT, Failure("unreachable", f"{name}: {exc}"[:300]))
    is_of_aiohttp = type(exc).__module__.partition(".")[0] == "aiohttp"
    if isinstance(exc, TimeoutError | httpx2.RequestError) or is_of_aiohttp:
        return RemoteTrouble(Trouble.UNCLEAR, Failure("connection_lost", name))
    return RemoteTrouble(Trouble.UNCLEAR, Failure("internal", name))
