"""The fake remote and the real one keep the same promises, so that what is tested over the one holds for the other."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event
from o3pro_bg.client import O3ProClient
from o3pro_bg.config import O3ProConfig
from o3pro_bg.testing import FakeClient, FakeRemote
from tests.wire import HOST, KEY, REQUEST, body, error, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from o3pro_bg._remote import Client, Remote

FOREVER = float("inf")


class Service(ABC):
    """A service behind a remote, whose responses are as far as the test says."""

    remote: Remote

    def __init__(self, *, background: bool) -> None:
        self.config = O3ProConfig(endpoint=HOST, api_key=KEY, background=background)

    @abstractmethod
    def client(self) -> Client:
        """Answer the client of this service."""

    @abstractmethod
    def say(self, word: str) -> None:
        """Have every response that was not cancelled be `queued`, `in_progress` or `completed`."""

    @abstractmethod
    def throttle(self, call: str) -> None:
        """Refuse the next call of this kind, for 7 seconds."""

    @abstractmethod
    def is_closed(self) -> bool:
        """Tell whether the connections are closed."""


class Fake(Service):
    """The fake, whose clock decides."""

    def __init__(self, *, background: bool) -> None:
        super().__init__(background=background)
        self._fake = FakeRemote(seconds=FOREVER, queued=FOREVER, background=background)

    def client(self) -> Client:
        return FakeClient(self._fake, self.config)

    def say(self, word: str) -> None:
        self._fake.queued = FOREVER if word == "queued" else 0
        self._fake.seconds = 0 if word == "completed" else FOREVER

    def throttle(self, call: str) -> None:
        self._fake.script[call].append(RemoteTrouble(Trouble.THROTTLED, Failure("429", "quota"), retry_after=7.0))

    def is_closed(self) -> bool:
        return self._fake.is_closed


class Real(Service):
    """The real one, over a service of a dozen lines behind the HTTP client."""

    def __init__(self, *, background: bool) -> None:
        super().__init__(background=background)
        self._word = "queued"
        self._throttled: set[str] = set()
        self._words: dict[str, str] = {}
        self._http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))

    def client(self) -> Client:
        return O3ProClient(self.config, http_client=lambda: self._http)

    def say(self, word: str) -> None:
        self._word = word

    def throttle(self, call: str) -> None:
        self._throttled.add(call)

    def is_closed(self) -> bool:
        return self._http.is_closed

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        *_, last, tail = request.url.path.split("/")
        call, response_id = {
            "responses": ("create", f"resp_{len(self._words) + 1}"),
            "cancel": ("cancel", last),
        }.get(tail, ("delete" if request.method == "DELETE" else "look", tail))
        if call in self._throttled:
            self._throttled.remove(call)
            return httpx2.Response(429, json=error("429", "quota"), headers={"retry-after": "7"})
        word = self._words.setdefault(response_id, "")
        if word == "deleted":
            return httpx2.Response(404, json=error(None, f"Response with id '{response_id}' not found."))
        if call == "delete":
            self._words[response_id] = "deleted"
            return httpx2.Response(200, json={"id": response_id, "object": "response", "deleted": True})
        if call == "cancel" and self._word != "completed":
            self._words[response_id] = word = "cancelled"
        return httpx2.Response(200, content=json.dumps(self._body(response_id, word or self._word)))

    def _body(self, response_id: str, word: str) -> dict[str, Any]:
        if word != "completed":
            return body(word, id=response_id)
        usage = {"input_tokens": 1, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 2}}
        return body(word, id=response_id, output=[message("because")], usage=usage)


@asynccontextmanager
async def connected(kind: type[Service], *, background: bool = True) -> AsyncIterator[Service]:
    """Give a service of this kind, its remote connected."""
    service = kind(background=background)
    service.remote = await service.client().connect()
    try:
        yield service
    finally:
        await service.remote.aclose()


@pytest.fixture(params=[Fake, Real])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    """Give each service in turn."""
    async with connected(request.param) as service:
        yield service


async def created(service: Service) -> str:
    """Answer the id of a new response."""
    news = await service.remote.create("job-1", REQUEST)
    assert news.response_id
    return news.response_id


async def test_create_is_accepted_under_an_id(service: Service) -> None:
    """A create answers at once that the response was accepted, and under which id; each create has its own."""
    news = await service.remote.create("job-1", REQUEST)
    assert (news.event, news.failure, news.usage) == (Event.ACCEPTED, None, None)
    assert news.response_id
    assert await created(service) != news.response_id


@pytest.mark.parametrize(("word", "event"), [("queued", Event.ACCEPTED), ("in_progress", Event.PROGRESSED)])
async def test_look_tells_progress(service: Service, word: str, event: Event) -> None:
    """A look at a response under way tells how far it is, of this very response, and wishes no pause."""
    response_id = await created(service)
    service.say(word)
    news = await service.remote.look(response_id)
    assert (news.event, news.response_id, news.failure, news.poll_after) == (event, response_id, None, None)


async def test_look_brings_answer_and_usage(service: Service) -> None:
    """A look at a completed response brings its text and what it cost, as often as one looks."""
    response_id = await created(service)
    service.say("completed")
    news = await service.remote.look(response_id)
    assert (news.event, news.response_id, bool(news.answer)) == (Event.ANSWERED, response_id, True)
    assert news.usage is not None
    assert 0 < news.usage.reasoning_tokens < news.usage.output_tokens
    assert await service.remote.look(response_id) == news


@pytest.mark.parametrize("word", ["queued", "in_progress"])
async def test_cancel_is_seen_by_the_next_look(service: Service, word: str) -> None:
    """A response under way that was cancelled stays cancelled; another one goes on; a second cancel harms nothing."""
    one, two = await created(service), await created(service)
    service.say(word)
    await service.remote.cancel(one)
    await service.remote.cancel(one)
    assert (await service.remote.look(one)).event is Event.CANCELLED
    assert (await service.remote.look(two)).event in (Event.ACCEPTED, Event.PROGRESSED)
    service.say("completed")
    assert (await service.remote.look(one)).event is Event.CANCELLED
    assert (await service.remote.look(two)).event is Event.ANSWERED


async def test_cancel_of_an_ended_response_is_too_late(service: Service) -> None:
    """A response that was completed before its cancel stays completed."""
    response_id = await created(service)
    service.say("completed")
    await service.remote.cancel(response_id)
    assert (await service.remote.look(response_id)).event is Event.ANSWERED


@pytest.mark.parametrize("word", ["queued", "in_progress", "completed"])
async def test_deleted_response_is_lost(service: Service, word: str) -> None:
    """A deleted response is lost to every look and cancel after it; another is not; a second delete harms nothing."""
    one, two = await created(service), await created(service)
    service.say(word)
    await service.remote.delete(one)
    await service.remote.delete(one)
    for call in (service.remote.look, service.remote.cancel):
        with pytest.raises(RemoteTrouble) as caught:
            await call(one)
        assert (caught.value.kind, caught.value.failure.code) == (Trouble.MISSING, "lost")
    assert (await service.remote.look(two)).response_id == two


@pytest.mark.parametrize("call", ["create", "look", "cancel", "delete"])
async def test_refusal_is_trouble_and_the_next_call_works(service: Service, call: str) -> None:
    """A 429 is trouble of its kind, with the pause that was asked for, and spoils nothing that comes after it."""
    response_id = await created(service)
    calls: dict[str, Any] = {
        "create": lambda: created(service),
        "look": lambda: service.remote.look(response_id),
        "cancel": lambda: service.remote.cancel(response_id),
        "delete": lambda: service.remote.delete(response_id),
    }
    service.throttle(call)
    with pytest.raises(RemoteTrouble) as caught:
        await calls[call]()
    assert (caught.value.kind, caught.value.retry_after) == (Trouble.THROTTLED, 7.0)
    await calls[call]()


async def test_calls_may_overlap(service: Service) -> None:
    """Any number of calls may be under way at once."""
    ids = await asyncio.gather(*[created(service) for _ in range(20)])
    assert len(set(ids)) == 20
    news = await asyncio.gather(*[service.remote.look(response_id) for response_id in ids])
    assert [item.response_id for item in news] == ids


@pytest.mark.parametrize("kind", [Fake, Real])
async def test_foreground_create_is_answered_by_the_end(kind: type[Service]) -> None:
    """Without the background mode the remote says so, and a create brings the answer itself."""
    async with connected(kind, background=False) as service:
        assert service.remote.background is False
        service.say("completed")
        news = await service.remote.create("job-1", REQUEST)
    assert (news.event, bool(news.answer), bool(news.usage)) == (Event.ANSWERED, True, True)


async def test_aclose_closes(service: Service) -> None:
    """Closing the remote closes its connections, and may be done twice."""
    assert service.remote.background is True
    assert not service.is_closed()
    await service.remote.aclose()
    assert service.is_closed()
    await service.remote.aclose()
