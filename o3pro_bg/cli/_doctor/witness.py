"""The library's own way to the service, with somebody beside it who sees all that comes back, and tidies up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from o3pro_bg._answers import json_of
from o3pro_bg._echo import without_texts
from o3pro_bg._lanes import KEEP_ALIVE
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._shown import one_line
from o3pro_bg.cli._doctor.facts import ENDED
from o3pro_bg.client import O3ProClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    import httpx2

    from o3pro_bg._records import JobRequest, News
    from o3pro_bg._responses import ResponsesRemote
    from o3pro_bg.config import O3ProConfig

_MARK: Final = "x-o3pro-bg-emulator"
_TO_CREATE: Final = 30.0  # seconds
_TO_LOOK: Final = 15.0
_TO_TIDY: Final = 45.0
_BETWEEN_DELETES: Final = 1.0


class Said(NamedTuple):
    """
    What came of one request.

    Attributes:
        verb: Which one it was: create, look, cancel, delete.
        status: Of the answer; 0 where none came.
        headers: Of the answer, their names in lower case.
        data: Its body, as far as that is a JSON object.
        trouble: What the library makes of it where it brought no news.
        text: The answer's text, as the library reads it.
    """

    verb: str
    status: int = 0
    headers: Mapping[str, str] = MappingProxyType({})
    data: Mapping[str, Any] = MappingProxyType({})
    trouble: RemoteTrouble | None = None
    text: str = ""

    @property
    def word(self) -> str:
        """Answer the status that it tells of a response."""
        word = self.data.get("status") if self.trouble is None else None
        return word if isinstance(word, str) else ""

    @property
    def response_id(self) -> str:
        """Answer the id of the response that it tells of."""
        found = self.data.get("id") if self.trouble is None else None
        return found if isinstance(found, str) else ""

    @property
    def param(self) -> str:
        """Answer which argument a refusal is about, as far as it says so."""
        error = self.data.get("error")
        param = error.get("param") if isinstance(error, dict) else None
        return param if isinstance(param, str) else ""

    def blames(self, argument: str) -> bool:
        """Tell whether this refuses an argument."""
        if self.trouble is None or not 400 <= self.status < 500:
            return False
        return argument in self.param or argument in self.trouble.failure.detail

    def __str__(self) -> str:
        if self.trouble is None:
            return f"{self.status} {one_line(self.word, 40)}".rstrip()
        failure = self.trouble.failure
        said = one_line(f"{failure.code}: {failure.detail}" if failure.detail else failure.code, 120)
        return f"{self.status} {said}" if self.status else f"no answer ({said})"


class Witness:
    """
    Makes requests as the library does, keeps what comes back, and leaves nothing at the service.

    Whoever leaves it, by whatever way, has every response that was made cancelled, if it runs, and deleted.

    Args:
        config: The deployment; its time-outs are shortened.
    """

    def __init__(self, config: O3ProConfig) -> None:
        self._config = replace(
            config,
            create_timeout=min(config.create_timeout, _TO_CREATE),
            look_timeout=min(config.look_timeout, _TO_LOOK),
        )
        self._remote: ResponsesRemote | None = None
        self._creating: set[asyncio.Task[Said]] = set()
        self._heard = Said("")
        self._key = ""
        self.said: list[Said] = []
        self.left: dict[str, str] = {}
        """Which responses are at the service, and the status that was last heard of each."""
        self.unanswered = 0
        """How many creates may have made a response of which nobody knows the id."""

    @property
    def heard_emulator(self) -> bool:
        """Tell whether any answer came from the emulator."""
        return any(_MARK in said.headers for said in self.said)

    async def __aenter__(self) -> Self:
        self._remote = await O3ProClient(self._config, http_client=self._make_http).connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TO_TIDY):
                    await self._tidy()
        finally:
            await self._way.aclose()

    async def create(self, job_id: str, request: JobRequest, key: str = "") -> Said:
        """Ask a question, with an idempotency key if one is given; once it has left, no Ctrl-C loses its id."""
        task = asyncio.create_task(self._create(job_id, request, key))
        self._creating.add(task)
        task.add_done_callback(self._creating.discard)
        return await asyncio.shield(task)

    async def look(self, response_id: str) -> Said:
        """Ask how far a response is."""
        return await self._ask("look", response_id, self._way.look(response_id))

    async def cancel(self, response_id: str) -> Said:
        """Ask the service to stop."""
        return await self._ask("cancel", response_id, self._way.cancel(response_id))

    async def delete(self, response_id: str) -> Said:
        """Have a response deleted."""
        said = await self._ask("delete", response_id, self._way.delete(response_id))
        if said.trouble is None:
            self.left.pop(response_id, None)
        return said

    @property
    def _way(self) -> ResponsesRemote:
        assert self._remote is not None  # noqa: S101 - for who forgot to enter
        return self._remote

    async def _create(self, job_id: str, request: JobRequest, key: str) -> Said:
        self._key = key
        try:
            said = await self._ask("create", "", self._way.create(job_id, request))
        finally:
            self._key = ""
        if said.response_id:
            self.left.setdefault(said.response_id, said.word)
        elif said.trouble is not None and said.trouble.kind is Trouble.UNCLEAR:
            self.unanswered += 1
        if said.trouble is not None:
            failure = said.trouble.failure
            told = without_texts(failure.detail, request.question, request.options)
            said.trouble.failure = replace(failure, detail=told)
        return said

    async def _ask(self, verb: str, response_id: str, call: Awaitable[News | None]) -> Said:
        self._heard, news, trouble = Said(""), None, None
        try:
            news = await call
        except RemoteTrouble as exc:
            trouble = exc
        text = news.answer if news is not None and news.answer is not None else ""
        said = self._heard._replace(verb=verb, trouble=trouble, text=text)
        self.said.append(said)
        if response_id in self.left and said.word:
            self.left[response_id] = said.word
        return said

    async def _tidy(self) -> None:
        """Cancel what runs, and delete all; a service that does not delete yet what it just stopped is asked again."""
        if self._creating:
            await asyncio.wait(self._creating)
        for response_id, word in [*self.left.items()]:
            if word not in ENDED:
                await self.cancel(response_id)
        while self.left:
            for response_id in [*self.left]:
                await self.delete(response_id)
            if self.left:
                await asyncio.sleep(_BETWEEN_DELETES)

    def _make_http(self) -> httpx2.AsyncClient:
        """Make a client like the library's own, to which somebody listens."""
        import httpx2

        # Plain http is for this machine: no proxy of the environment shall carry it to another.
        stays_here = self._config.service_url.startswith("http:")
        return httpx2.AsyncClient(
            verify=httpx2.create_ssl_context(),
            trust_env=not stays_here,
            limits=httpx2.Limits(keepalive_expiry=KEEP_ALIVE),
            event_hooks={"request": [self._mark], "response": [self._hear]},
        )

    async def _mark(self, request: httpx2.Request) -> None:
        if self._key:
            request.headers["Idempotency-Key"] = self._key

    async def _hear(self, response: httpx2.Response) -> None:
        headers = {name.lower(): value for name, value in response.headers.items()}
        self._heard = Said("", response.status_code, headers)
        await response.aread()
        self._heard = self._heard._replace(data=json_of(response))
