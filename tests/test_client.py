"""The client makes one SDK client per loop, and its tokens neither block the loop nor leak nor run out."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import ssl
import sys
import threading
import time
import traceback
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from httpx import Response

from o3pro_bg import _forks
from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event
from o3pro_bg.client import EntraToken, O3ProClient
from o3pro_bg.config import O3ProConfig
from tests.wire import CONFIG, HOST, ID, KEY, REQUEST, URL, body, connected

if TYPE_CHECKING:
    from collections.abc import Callable

    import respx
    from azure.identity import DefaultAzureCredential

SCOPE = "https://ai.azure.com/.default"
DAY = 86400.0


class Credential:
    """Gives tokens `token-1`, `token-2`, … that hold for `seconds`, or fails; notes who asked and how often."""

    def __init__(self, seconds: float = DAY) -> None:
        self.seconds = seconds
        self.failure: Exception | None = None
        self.asked: list[tuple[str, int]] = []

    def get_token(self, *scopes: str) -> Any:
        self.asked.append((" ".join(scopes), threading.get_ident()))
        if self.failure is not None:
            raise self.failure
        return SimpleNamespace(token=f"token-{len(self.asked)}", expires_on=int(time.time() + self.seconds))


class BlockingCredential(Credential):
    """Gives no token before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()
        self.has_waited = False

    def get_token(self, *scopes: str) -> Any:
        self.is_asked.set()
        self.may_answer.wait(30)
        self.has_waited = True
        return super().get_token(*scopes)


@pytest.fixture(autouse=True)
def _no_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers of these tests are mocked for httpx2; what aiohttp does, `test_lanes` tells."""
    monkeypatch.setattr("o3pro_bg.client._has_aiohttp", lambda: False)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give a function that moves the client's clock."""
    moved = 0.0

    def move(seconds: float) -> None:
        nonlocal moved
        moved += seconds

    monkeypatch.setattr("o3pro_bg.client.time", SimpleNamespace(time=lambda: time.time() + moved))
    return move


def entra(credential: Any) -> O3ProConfig:
    """Answer a configuration that asks this credential."""
    return O3ProConfig(endpoint=HOST, credential=credential)


# --- the client ---------------------------------------------------------------------------------------------


def test_client_says_whether_it_is_ready() -> None:
    """A client is ready when its configuration is; making one that is not fails nothing."""
    assert O3ProClient(CONFIG).is_ready()
    assert not O3ProClient(O3ProConfig()).is_ready()


def test_client_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configuration a client takes the environment's."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", HOST)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    client = O3ProClient()
    assert client.is_ready()
    assert (client.config.endpoint, client.config.api_key) == (HOST, KEY)


@pytest.mark.parametrize("auth", ["key", "bearer", "entra"])
def test_client_tells_its_auth(auth: Any) -> None:
    """The way of authentication is the configuration's."""
    assert O3ProClient(O3ProConfig(endpoint=HOST, api_key=KEY, auth=auth)).auth_method == auth


def test_client_repr() -> None:
    """A repr tells deployment, address and auth, and neither a secret nor an address that was refused."""
    assert repr(O3ProClient(CONFIG)) == f"<O3ProClient my-o3 at {HOST}/openai/v1/, auth key>"
    refused = O3ProConfig(endpoint=f"https://user:{KEY}@x.example", api_key=KEY)
    assert repr(O3ProClient(refused)) == "<O3ProClient o3-pro at not ready, auth key>"


async def test_defaults_bound_and_keep_connections() -> None:
    """Without a factory the SDK's defaults apply, and connections outlive the pause between two looks."""
    async with connected(O3ProClient(CONFIG)) as remote:
        assert remote._sdk.max_retries == 0
        transport = remote._sdk._client._transport
        assert isinstance(transport, httpx2.AsyncHTTPTransport)
        pool: Any = transport._pool
        assert (pool._keepalive_expiry, pool._max_connections, pool._max_keepalive_connections) == (75, 1000, 100)
        assert pool._ssl_context.verify_mode is ssl.CERT_REQUIRED


async def test_connect_makes_an_sdk_client_each_and_aclose_closes_it() -> None:
    """Each connect makes one SDK client, on one HTTP client of the factory, and closing the remote closes that one."""
    made: list[httpx2.AsyncClient] = []

    def make() -> httpx2.AsyncClient:
        made.append(httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=body()))))
        return made[-1]

    client = O3ProClient(CONFIG, http_client=make)
    assert made == []
    one, two = await client.connect(), await client.connect()
    assert len(made) == 2
    assert one._sdk is not two._sdk
    assert (await one.look(ID)).event is Event.ACCEPTED
    await one.aclose()
    assert [http.is_closed for http in made] == [True, False]
    assert (await two.look(ID)).event is Event.ACCEPTED
    await two.aclose()
    assert [http.is_closed for http in made] == [True, True]


async def test_connect_does_not_block_the_loop() -> None:
    """The SDK is imported and made in a worker thread, while the loop goes on."""
    reached, may_go, threads = threading.Event(), threading.Event(), list[int]()

    def make() -> httpx2.AsyncClient:
        threads.append(threading.get_ident())
        reached.set()
        assert may_go.wait(30)
        return httpx2.AsyncClient()

    connecting = asyncio.ensure_future(O3ProClient(CONFIG, http_client=make).connect())
    assert await asyncio.to_thread(reached.wait, 30)
    assert not connecting.done()
    may_go.set()
    await (await connecting).aclose()
    assert threads != [threading.get_ident()]


def test_two_loops_share_a_client(httpx2_mock: respx.Router) -> None:
    """Two event loops in two threads, at once, use one client: each has its own remote."""
    httpx2_mock.post(URL).mock(Response(200, json=body()))
    httpx2_mock.get(f"{URL}/{ID}").mock(Response(200, json=body("completed")))
    credential = Credential()
    client = O3ProClient(entra(credential))
    both = threading.Barrier(2, timeout=30)
    seen: list[Event | None] = []

    async def use() -> None:
        async with connected(client) as remote:
            await asyncio.to_thread(both.wait)
            seen.extend([(await remote.create("job-1", REQUEST)).event, (await remote.look(ID)).event])
            await asyncio.to_thread(both.wait)

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, seen)) == ["accepted", "accepted", "answered", "answered"]
    assert len(credential.asked) == 2


# --- Entra ID -----------------------------------------------------------------------------------------------


async def test_token_is_sent_as_bearer_and_kept(httpx2_mock: respx.Router) -> None:
    """Requests carry the credential's token as bearer, no key, and one token serves them all."""
    route = httpx2_mock.route().mock(Response(200, json=body()))
    credential = Credential()
    async with connected(O3ProClient(entra(credential))) as remote:
        await remote.create("job-1", REQUEST)
        await remote.look(ID)
        await remote.cancel(ID)
    headers = [call.request.headers for call in route.calls]
    assert [header["authorization"] for header in headers] == ["Bearer token-1"] * 3
    assert not any("api-key" in header for header in headers)
    assert [scope for scope, _ in credential.asked] == [SCOPE]


async def test_scope_is_configurable() -> None:
    """A token is asked for the scope of the configuration."""
    credential = Credential()
    config = O3ProConfig(endpoint=HOST, credential=credential, scope="https://cognitiveservices.azure.com/.default")
    async with connected(O3ProClient(config)) as remote:
        await remote._sdk._get_azure_ad_token()
    assert [scope for scope, _ in credential.asked] == ["https://cognitiveservices.azure.com/.default"]


def token_of(credential: Any) -> EntraToken:
    """Answer what gives the SDK the tokens of this credential."""
    return EntraToken(lambda: credential.get_token(SCOPE))


async def test_credential_is_asked_off_the_loop() -> None:
    """While a credential blocks, the loop goes on: it is asked in a worker thread."""
    credential = BlockingCredential()
    asking = asyncio.ensure_future(token_of(credential)())
    assert await asyncio.to_thread(credential.is_asked.wait, 30)
    assert not asking.done()
    credential.may_answer.set()
    assert await asking == "token-1"
    assert [thread for _, thread in credential.asked] != [threading.get_ident()]


async def test_concurrent_requests_share_one_renewal() -> None:
    """However many requests need a token at once, the credential is asked once."""
    credential = BlockingCredential()
    provider = token_of(credential)
    asking = [asyncio.ensure_future(provider()) for _ in range(50)]
    assert await asyncio.to_thread(credential.is_asked.wait, 30)
    credential.may_answer.set()
    assert set(await asyncio.gather(*asking)) == {"token-1"}
    assert len(credential.asked) == 1


async def test_caller_that_is_cancelled_harms_no_other() -> None:
    """A request that is cancelled while it renews leaves the renewal to the next one, and does not wait for it."""
    credential = BlockingCredential()
    provider = token_of(credential)
    first = asyncio.ensure_future(provider())
    assert await asyncio.to_thread(credential.is_asked.wait, 30)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not credential.has_waited
    credential.may_answer.set()
    assert (await provider()).startswith("token-")


@pytest.mark.parametrize(("passed", "token"), [(0, "token-1"), (3290, "token-1"), (3310, "token-2"), (DAY, "token-2")])
async def test_token_is_renewed_before_it_expires(later: Callable[[float], None], passed: float, token: str) -> None:
    """A token that holds an hour is renewed five minutes before its end, or whenever it is needed after that."""
    provider = token_of(Credential(seconds=3600))
    assert await provider() == "token-1"
    later(passed)
    assert await provider() == token


async def test_renewed_token_is_used_by_the_next_request(
    httpx2_mock: respx.Router, later: Callable[[float], None]
) -> None:
    """A job whose token expires while it runs goes on with a new one."""
    route = httpx2_mock.route().mock(Response(200, json=body()))
    async with connected(O3ProClient(entra(Credential(seconds=3600)))) as remote:
        await remote.create("job-1", REQUEST)
        later(3600)
        await remote.look(ID)
    assert [call.request.headers["authorization"] for call in route.calls] == ["Bearer token-1", "Bearer token-2"]


async def test_old_token_outlives_a_renewal_that_fails(
    later: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    """While the old token holds, a failing renewal is a warning, without what failed, and is not tried every time."""
    credential = Credential(seconds=3600)
    provider = token_of(credential)
    await provider()
    credential.failure = ValueError(KEY)
    later(3400)
    assert [await provider() for _ in range(5)] == ["token-1"] * 5
    assert len(credential.asked) == 2
    later(31)
    assert await provider() == "token-1"
    assert len(credential.asked) == 3
    warnings = [entry for entry in caplog.records if entry.name == "o3pro_bg"]
    assert [entry.levelno for entry in warnings] == [logging.WARNING] * 2
    assert "ValueError" in warnings[0].message
    assert not any(KEY in f"{entry.message} {entry.exc_text}" for entry in warnings)


async def test_expired_token_is_not_sent_once_renewal_fails(later: Callable[[float], None]) -> None:
    """A token that has expired is of no use: the failure of its renewal is trouble, and the next request asks again."""
    credential = Credential(seconds=3600)
    provider = token_of(credential)
    await provider()
    credential.failure = ValueError("no")
    later(3599)
    assert await provider() == "token-1"
    later(2)
    with pytest.raises(RemoteTrouble):
        await provider()
    credential.failure = None
    assert await provider() == "token-4"


async def test_short_lived_token_is_not_asked_for_at_each_request(later: Callable[[float], None]) -> None:
    """A token that holds less than five minutes is renewed every half minute, and in time."""
    credential = Credential(seconds=100)
    provider = token_of(credential)
    assert [await provider() for _ in range(3)] == ["token-1"] * 3
    later(31)
    assert [await provider() for _ in range(3)] == ["token-2"] * 3


class TalkativeError(Exception):
    """A failure whose first line helps, and whose rest tells too much."""

    def __str__(self) -> str:
        return f"no login found\nrequest: {KEY}"


@pytest.mark.parametrize("call", ["create", "look", "cancel"])
@pytest.mark.parametrize(
    ("failure", "detail"),
    [
        (TalkativeError(), "TalkativeError: no login found"),
        (ValueError("!" * 1000), f"ValueError: {'!' * 288}"),
        (OSError(), "OSError: "),
    ],
)
async def test_credential_that_fails_is_trouble_before_anything_is_sent(
    call: str, failure: Exception, detail: str
) -> None:
    """Without a token nothing is sent; the trouble tells the first line of the credential's exception, and no more."""
    sent: list[httpx2.Request] = []
    credential = Credential()
    credential.failure = failure

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, json=body())

    client = O3ProClient(
        entra(credential), http_client=lambda: httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    )
    calls: dict[str, Callable[[], Any]] = {
        "create": lambda: remote.create("job-1", REQUEST),
        "look": lambda: remote.look(ID),
        "cancel": lambda: remote.cancel(ID),
    }
    async with connected(client) as remote:
        with pytest.raises(RemoteTrouble) as caught:
            await calls[call]()
        credential.failure = None
        assert (await remote.look(ID)).event is Event.ACCEPTED
    trouble = caught.value
    assert (trouble.kind, trouble.failure) == (Trouble.DENIED, Failure("credential", detail))
    assert (trouble.__cause__, trouble.__context__) == (None, None)
    assert KEY not in "".join([str(trouble), repr(trouble), *traceback.format_exception(trouble)])
    assert len(sent) == 1


async def test_failing_credential_is_asked_once_for_all_who_wait() -> None:
    """Requests that wait for the same renewal fail with it, instead of asking one after another."""
    credential = BlockingCredential()
    credential.failure = OSError("no login")
    provider = token_of(credential)
    waiters = [asyncio.ensure_future(provider()) for _ in range(20)]
    assert await asyncio.to_thread(credential.is_asked.wait, 30)
    credential.may_answer.set()
    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {RemoteTrouble}
    assert len(credential.asked) == 1


async def test_a_credential_that_hangs_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential that does not answer in time is not waited for any longer: nothing was sent."""
    monkeypatch.setattr(EntraToken, "_PATIENCE", 0.05)
    credential = BlockingCredential()
    with pytest.raises(RemoteTrouble) as caught:
        await token_of(credential)()
    assert not credential.may_answer.is_set()
    credential.may_answer.set()
    assert (caught.value.kind, caught.value.failure.code) == (Trouble.UNSENT, "credential")


async def test_entra_id_out_of_reach_is_worth_another_try() -> None:
    """Where Entra ID itself cannot be reached, nothing was sent, and it may be tried again."""
    from azure.core.exceptions import ServiceRequestError

    credential = Credential()
    credential.failure = ServiceRequestError("no route")
    with pytest.raises(RemoteTrouble) as caught:
        await token_of(credential)()
    assert (caught.value.kind, caught.value.failure.code) == (Trouble.UNSENT, "credential")


async def test_http_client_that_cannot_be_made_is_the_configurations_fault() -> None:
    """A factory that raises is trouble with what it said, and nothing is sent."""

    def broken() -> httpx2.AsyncClient:
        raise ValueError("bad proxy")

    with pytest.raises(RemoteTrouble) as caught:
        await O3ProClient(O3ProConfig(endpoint="https://x", api_key="k"), http_client=broken).connect()
    assert (caught.value.kind, caught.value.failure) == (Trouble.REFUSED, Failure("client", "ValueError: bad proxy"))


@pytest.mark.parametrize("made", [None, 5, httpx2.AsyncClient])
async def test_what_is_no_http_client_carries_nothing(made: Any) -> None:
    """A factory that makes something else is trouble that names it, and nothing is sent."""
    with pytest.raises(RemoteTrouble) as caught:
        await O3ProClient(CONFIG, http_client=lambda: made).connect()
    assert caught.value.kind is Trouble.REFUSED
    assert "http_client has to make an httpx2.AsyncClient" in caught.value.failure.detail


@pytest.mark.parametrize(
    "bad", [{"endpoint": "http://x.example"}, {"endpoint": ""}, {"api_key": "a b"}, {"reasoning": {"effort": "low"}}]
)
async def test_client_that_is_not_ready_connects_nowhere(httpx2_mock: respx.Router, bad: dict[str, Any]) -> None:
    """Whoever asks it to connect is told why it does not; so neither key nor question leaves in plain text."""
    client = O3ProClient(O3ProConfig(**{"endpoint": HOST, "api_key": KEY, "auth": "key", **bad}))
    with pytest.raises(RemoteTrouble) as caught:
        await client.connect()
    assert caught.value.failure == Failure("client", "; ".join(client.config.validate()))
    assert not httpx2_mock.calls


async def test_password_of_a_proxy_is_not_told() -> None:
    """What a factory raises may quote a proxy's address; the password in it is left out."""

    def broken() -> httpx2.AsyncClient:
        raise ValueError("no such proxy: 'foo://user:p@ss@host'")

    with pytest.raises(RemoteTrouble) as caught:
        await O3ProClient(CONFIG, http_client=broken).connect()
    assert caught.value.failure.detail == "ValueError: no such proxy: 'foo://...@host'"


def test_parts_of_another_kind_are_refused() -> None:
    """What is no configuration, or no function that makes an HTTP client, is a TypeError that says so."""
    wrong: Any
    for wrong in ({}, O3ProConfig, "https://x"):
        with pytest.raises(TypeError, match="config has to be an O3ProConfig"):
            O3ProClient(wrong)
    for wrong in (5, object()):
        with pytest.raises(TypeError, match="http_client has to be a function"):
            O3ProClient(CONFIG, http_client=wrong)


@pytest.mark.parametrize("token", [None, SimpleNamespace(), SimpleNamespace(token="t", expires_on="soon")])
async def test_token_that_is_none_is_the_credentials_failure(token: object) -> None:
    """A credential that answers no token has failed: nothing was sent, so nothing is uncertain."""
    credential = SimpleNamespace(get_token=lambda scope: token)
    with pytest.raises(RemoteTrouble) as caught:
        await token_of(credential)()
    assert (caught.value.kind, caught.value.failure.code) == (Trouble.DENIED, "credential")


async def test_default_credential_is_the_synchronous_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a credential Azure's default one is made, once, off the loop; aiohttp is not needed."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    asked: list[DefaultAzureCredential] = []

    def get_token(self: DefaultAzureCredential, *scopes: str) -> Any:
        asked.append(self)
        return SimpleNamespace(token=f"token-{len(asked)}", expires_on=0)

    monkeypatch.setattr("azure.identity.DefaultAzureCredential.get_token", get_token)
    provider = EntraToken(O3ProClient(O3ProConfig(endpoint=HOST, auth="entra"))._get_token)
    assert [await provider(), await provider()] == ["token-1", "token-2"]
    assert asked[0] is asked[1]


async def test_a_forked_process_signs_in_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a forked process the default credential is another one: the connections of the first are shared."""
    asked: list[DefaultAzureCredential] = []

    def get_token(self: DefaultAzureCredential, *scopes: str) -> Any:
        asked.append(self)
        return SimpleNamespace(token="token", expires_on=0)

    monkeypatch.setattr("azure.identity.DefaultAzureCredential.get_token", get_token)
    client = O3ProClient(O3ProConfig(endpoint=HOST, auth="entra"))
    client._get_token()
    client._pid -= 1  # as if that had been the parent
    client._get_token()
    client._get_token()
    assert asked[0] is not asked[1]
    assert asked[1] is asked[2]
    assert _forks.KEPT.pop() is asked[0]
    asked[0].close()


def test_a_default_credential_goes_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default credential is closed with its client, and not by a forked process, where it is the parent's."""
    gc.collect()  # what other tests have left is closed now, and not counted here
    closed: list[object] = []
    monkeypatch.setattr("azure.identity.DefaultAzureCredential.get_token", lambda *_: None)
    monkeypatch.setattr("azure.identity.DefaultAzureCredential.close", lambda self: closed.append(self))
    for pid in (os.getpid(), 0):
        client = O3ProClient(O3ProConfig(endpoint=HOST, auth="entra"))
        client._get_token()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda pid=pid: pid)
            del client
            gc.collect()
    assert len(closed) == 1


async def test_a_credential_of_yours_is_yours_after_a_fork() -> None:
    """A credential that was given is asked in a forked process, too."""

    class Given:
        def get_token(self, *_: str) -> Any:
            return SimpleNamespace(token="given", expires_on=0)

    client = O3ProClient(O3ProConfig(endpoint=HOST, auth="entra", credential=Given()))
    client._pid -= 1
    assert client._get_token().token == "given"
