"""How a look travels: on either lane it says what the SDK would say, and whatever befalls it has a kind."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from o3pro_bg._lanes import AiohttpLane, HttpxLane
from o3pro_bg._records import JobRequest
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event
from o3pro_bg.client import O3ProClient
from o3pro_bg.config import O3ProConfig
from o3pro_bg.emulator import Emulator
from tests.wire import ID, REQUEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from o3pro_bg._responses import ResponsesRemote

OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: application/json\r\napim-request-id: r-1\r\n%s\r\n%s"
BODY = b'{"id": "resp_1", "status": "completed", "output": [], "deleted": true}'


def answer(body: bytes = BODY, headers: bytes = b"") -> bytes:
    """Answer what a server sends."""
    return OK % (len(body), headers, body)


class Server:
    """A server on this machine that answers every request alike, and notes their heads."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heads: list[list[str]] = []
        self.bodies: list[str] = []
        self.connections = 0
        self.pause = 0.0
        self.waits_for = 0  # requests, before it answers any
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")[:-2]
                self.heads.append(lines)
                length = [int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length")]
                self.bodies.append((await reader.readexactly(sum(length))).decode())
                while len(self.heads) < self.waits_for:
                    await asyncio.sleep(0.01)
                for sent in self.answer.splitlines(keepends=True):
                    writer.write(sent)
                    await writer.drain()
                    await asyncio.sleep(self.pause)
                if not self.answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def headers(self, number: int) -> dict[str, str]:
        """Answer the headers of a request."""
        pairs = (line.partition(": ") for line in self.heads[number][1:])
        return {name.lower(): value for name, _, value in pairs}


@asynccontextmanager
async def serving(said: bytes = answer()) -> AsyncIterator[Server]:
    """Have a server answer this."""
    server = Server(said)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def connected(url: str, *, http_client: Any = None, **config: Any) -> AsyncIterator[ResponsesRemote]:
    """Give a remote of this endpoint, or of a gateway that stands there."""
    place = {"base_url": f"{url}/v1"} if "auth" in config else {"endpoint": url}
    settings = {**place, "api_key": "secret", **config}
    remote = await O3ProClient(O3ProConfig(**settings), http_client=http_client).connect()
    try:
        yield remote
    finally:
        await remote.aclose()


@pytest.fixture
def has_aiohttp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Say whether aiohttp is installed."""
    if not request.param:
        monkeypatch.setattr("o3pro_bg.client._has_aiohttp", lambda: False)
    return bool(request.param)


both = pytest.mark.parametrize("has_aiohttp", [True, False], ids=["aiohttp", "httpx2"], indirect=True)


async def trouble_of(remote: ResponsesRemote) -> RemoteTrouble:
    """Answer the trouble that a look meets."""
    with pytest.raises(RemoteTrouble) as caught:
        await remote.look(ID)
    return caught.value


@both
@pytest.mark.parametrize("auth", ["key", "bearer"])
@pytest.mark.parametrize(
    ("key", "status", "said"),
    [
        ("a-long-key", 401, "no: [the key]"),
        ("a-long-key", 300, "no: [the key]"),
        ("a-long-key", 307, "no: [the key]"),
        ("a-long-key", 200, "no: a-long-key"),
        ("7-chars", 401, "no: 7-chars"),
        ("8--chars", 401, "no: [the key]"),
    ],
)
async def test_what_is_said_of_a_refusal_does_not_repeat_the_key(
    has_aiohttp: bool, auth: str, key: str, status: int, said: str
) -> None:
    """The key that was sent is taken out of what people read; an answer, and what is no key but a word, stay whole."""
    content = f"no: {key}".encode()
    async with (
        serving(answer(content).replace(b"200 OK", f"{status} no".encode())) as server,
        connected(server.url, api_key=key, auth=auth) as remote,
    ):
        assert (await remote._lane.send("GET", "x", 5)).content.decode() == said


@both
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"api_version": "preview"},
        {"api_version": "2025-04-01-preview"},
        {"auth": "bearer"},
    ],
    ids=["key", "preview", "dated", "bearer"],
)
async def test_a_look_says_what_the_sdk_would_say(has_aiohttp: bool, config: dict[str, Any]) -> None:
    """Path, query, credentials and the SDK's own headers are those of a request that the SDK makes itself."""
    async with serving() as server, connected(server.url, **config) as remote:
        assert isinstance(remote._lane, AiohttpLane if has_aiohttp else HttpxLane)
        news = await remote.look(ID)
        await remote.delete(ID)
    assert (news.event, news.response_id, news.request_id) == (Event.ANSWERED, ID, "r-1")
    look, delete = (server.heads[number][0].split(" ") for number in (0, 1))
    assert (look[0], look[1:]) == ("GET", delete[1:])
    ours, theirs = server.headers(0), server.headers(1)
    assert {name: ours[name] for name in ("user-agent", "accept")} == {
        name: theirs[name] for name in ("user-agent", "accept")
    }
    for name in ("api-key", "authorization"):
        assert ours.get(name) == theirs.get(name)
    assert ("api-key" in ours) is not ("authorization" in ours)


@both
async def test_a_connection_serves_many_looks(has_aiohttp: bool) -> None:
    """Looks need no handshake each: the connection is kept."""
    async with serving() as server, connected(server.url) as remote:
        for _ in range(5):
            await remote.look(ID)
    assert server.connections == 1


@both
@pytest.mark.parametrize("status", [301, 307])
async def test_a_look_follows_no_redirect(has_aiohttp: bool, status: int) -> None:
    """A redirect is a refusal: the key goes nowhere else."""
    async with serving() as other, serving() as server:
        server.answer = b"HTTP/1.1 %d Moved\r\nlocation: %s/x\r\ncontent-length: 0\r\n\r\n" % (
            status,
            other.url.encode(),
        )
        async with connected(server.url) as remote:
            trouble = await trouble_of(remote)
    assert (trouble.kind, trouble.failure.code) == (Trouble.REFUSED, "redirected")
    assert other.heads == []


@both
async def test_a_status_is_read(has_aiohttp: bool) -> None:
    """A 429 is a 429 on either lane, with what its headers say."""
    said = b"HTTP/1.1 429 Wait\r\nRetry-After: 7\r\nX-Request-Id: r-2\r\ncontent-length: 2\r\n\r\n{}"
    async with serving(said) as server, connected(server.url) as remote:
        trouble = await trouble_of(remote)
    assert (trouble.kind, trouble.retry_after, trouble.request_id) == (Trouble.THROTTLED, 7.0, "r-2")


@both
async def test_a_look_that_dribbles_is_given_up_as_a_whole(has_aiohttp: bool) -> None:
    """The time-out of a look is that of the whole exchange, however often a byte arrives."""
    async with serving(answer(b"\n" * 200)) as server:
        server.pause = 0.05
        async with connected(server.url, look_timeout=0.2) as remote:
            trouble = await trouble_of(remote)
    assert (trouble.kind, trouble.failure.code) == (Trouble.UNCLEAR, "connection_lost")


@both
async def test_what_never_left_is_told_from_what_may_have(has_aiohttp: bool) -> None:
    """A connection that cannot be made is unsent; one that ends without an answer is unclear, and so is nonsense."""
    async with serving(b"") as server, connected(server.url) as remote:
        lost = await trouble_of(remote)
    async with connected("http://127.0.0.1:1") as remote:
        unsent = await trouble_of(remote)
    async with serving(b"what?\r\n\r\n") as server, connected(server.url, look_timeout=5) as remote:
        nonsense = await trouble_of(remote)
    assert (lost.kind, unsent.kind, nonsense.kind) == (Trouble.UNCLEAR, Trouble.UNSENT, Trouble.UNCLEAR)
    assert (lost.failure.code, unsent.failure.code) == ("connection_lost", "unreachable")
    assert "secret" not in f"{lost} {unsent} {nonsense}"


@both
async def test_a_create_whose_connection_is_lost_may_have_arrived(has_aiohttp: bool) -> None:
    """A create that the service took, and did not answer, is never sent again as one that did not leave."""
    async with serving(b"") as server, connected(server.url) as remote:
        with pytest.raises(RemoteTrouble) as caught:
            await remote.create("job-1", REQUEST)
    assert caught.value.kind is Trouble.UNCLEAR
    assert len(server.heads) == 1
    async with connected("http://127.0.0.1:1") as remote:
        with pytest.raises(RemoteTrouble) as caught:
            await remote.create("job-1", REQUEST)
    assert (caught.value.kind, caught.value.failure.code) == (Trouble.UNSENT, "unreachable")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """An emulator whose jobs never end."""
    with Emulator("outcome=never queued=0") as emulator:
        yield emulator


@both
async def test_a_broken_answer_is_looked_for_again(has_aiohttp: bool, emulator: Emulator) -> None:
    """Bodies that are cut off, or that are none of ours, are unclear on either lane."""
    async with connected(emulator.endpoint, api_key=emulator.api_key) as remote:
        created = await remote.create("job-1", REQUEST)
        for fault in ("truncated", "short", "empty", "html"):
            emulator.set_knobs(f"outcome=never queued=0 fault={fault} on=look times=1")
            with pytest.raises(RemoteTrouble) as caught:
                await remote.look(str(created.response_id))
            assert caught.value.kind is Trouble.UNCLEAR, fault
        emulator.set_knobs("outcome=never queued=0")
        assert (await remote.look(str(created.response_id))).event is Event.PROGRESSED


async def test_an_own_client_carries_the_looks_too() -> None:
    """A client of the user's, with his hooks, proxies and TLS settings, carries every request."""
    seen: list[str] = []

    async def hook(request: httpx2.Request) -> None:
        seen.append(request.method)

    async with serving() as server:
        make = lambda: httpx2.AsyncClient(event_hooks={"request": [hook]}, headers={"x-mine": "1"})  # noqa: E731
        async with connected(server.url, http_client=make) as remote:
            await remote.look(ID)
            await remote.cancel(ID)
    assert seen == ["GET", "POST"]
    assert server.headers(0)["x-mine"] == "1"


async def test_a_proxy_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment names a proxy, looks go through it, as all else does."""
    async with serving(b"HTTP/1.1 403 no\r\ncontent-length: 0\r\n\r\n") as proxy:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with connected("https://service.invalid") as remote:
            assert isinstance(remote._lane, HttpxLane)
            assert (await trouble_of(remote)).kind is Trouble.UNSENT
    assert proxy.heads[0][0].startswith("CONNECT service.invalid:443")


async def test_certificates_are_checked() -> None:
    """The session of looks trusts whom the SDK's own client trusts, and checks it."""
    async with connected("https://x.openai.azure.com") as remote:
        lane: Any = remote._lane
        assert isinstance(lane, AiohttpLane)
        assert lane._tls.verify_mode is ssl.CERT_REQUIRED
        assert lane._tls.check_hostname


@both
@pytest.mark.parametrize(("question", "sent"), [("日本", "日本"), ("\ud800", "\\ud800")])
async def test_a_question_travels_as_it_is(has_aiohttp: bool, question: str, sent: str) -> None:
    """Text goes as UTF-8; a lone surrogate, for which that has no place, is escaped."""
    async with serving() as server, connected(server.url) as remote:
        await remote.create("job-1", JobRequest(question, "low"))
    assert f'"input":"{sent}"' in server.bodies[0]


@both
async def test_requests_travel_at_once(has_aiohttp: bool) -> None:
    """No request waits for the answer of another."""
    async with serving() as server, connected(server.url, look_timeout=20) as remote:
        server.waits_for = 3
        await asyncio.gather(*[remote.look(ID) for _ in range(3)])
        assert server.connections == 3


async def test_a_connection_takes_no_longer_than_it_may() -> None:
    """Where an answer may take as long as it likes, a connection still has to be there within 30 s."""
    timeouts: list[object] = []

    def say(request: httpx2.Request) -> httpx2.Response:
        timeouts.append(request.extensions["timeout"])
        return httpx2.Response(200, content=BODY)

    def http_client() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(say))

    async with connected("http://127.0.0.1:1", http_client=http_client, background=False) as remote:
        await remote.create("job-1", REQUEST)
    assert timeouts == [{"connect": 30.0, "read": None, "write": None, "pool": 30.0}]
