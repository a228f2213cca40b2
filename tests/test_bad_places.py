"""Whatever stands where the service should be: a job is told soon what is wrong, and no key or question goes astray."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from o3pro_bg import O3ProClient, O3ProConfig, Pace
from tests.places import Place, Visit, bomb, hang, hang_up, reset, self_signed, unlistened
from tests.test_bad_input import PATIENCE, bounded, refuses, sentence_of

from .faces import FOREVER, Driver, fake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.places import Behaviour

KEY = "key-0123456789-canary"
SOON = Pace(floor=0.01, ceiling=0.02)


@pytest.fixture(params=[("sync", True), ("async", False)], ids=["sync, aiohttp", "async, httpx2"])
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The face under test, each with another way for requests."""
    face, has_aiohttp = request.param
    monkeypatch.setattr("o3pro_bg.client._has_aiohttp", lambda: has_aiohttp)
    monkeypatch.setattr("o3pro_bg._submission._CONNECT_PATIENCE", 0.2)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return str(face)


@pytest.fixture
def driver(face: str) -> Iterator[Driver]:
    """A handler beside the one that is in trouble."""
    with Driver(face, fake(seconds=FOREVER), {"language": "en", "pace": SOON}) as driver:
        yield driver


def client_of(url: str, **changes: Any) -> O3ProClient:
    """Answer a client of whatever stands there."""
    settings = {"endpoint": url, "api_key": KEY, "create_timeout": 0.5, "look_timeout": 0.5, **changes}
    return O3ProClient(O3ProConfig(**settings))


def said_by(face: str, client: O3ProClient, question: str = "a secret question", **options: Any) -> str:
    """Answer why a job of this client fails, in the reply and on its handle alike."""
    with Driver(face, client, {"language": "en", "pace": SOON}) as driver:
        result = bounded(lambda: driver.do("wait", driver.start(question, **options), PATIENCE))
    assert result["success"] is False
    assert result["status"] == "failed"
    return sentence_of(result)


PAGE = "<html><body>Sign in to the network</body></html>"
ANSWERS: dict[str, tuple[Behaviour, str]] = {
    "a page": (lambda visit: visit.answer(200, PAGE), "not known whether"),
    "nothing": (lambda visit: visit.answer(200), "not known whether"),
    "204": (lambda visit: visit.answer(204), "not known whether"),
    "half of JSON": (lambda visit: visit.answer(200, b'{"id": "resp_1", "sta'), "not known whether"),
    "deep JSON": (lambda visit: visit.answer(200, b"[" * 100_000), "not known whether"),
    "no UTF-8": (lambda visit: visit.answer(200, b'{"id": "\xff\xfe"}'), "not known whether"),
    "an id of dots": (lambda visit: visit.answer(200, {"id": "..", "status": "queued"}), "not known whether"),
    "another service": (lambda visit: visit.answer(404, PAGE), "check the endpoint"),
    "no such path": (lambda visit: visit.answer(404, {"error": {"message": "Resource not found"}}), "check the endpo"),
    "a method that is not allowed": (lambda visit: visit.answer(405, PAGE), "http_405"),
    "too large": (lambda visit: visit.answer(413, PAGE), "http_413"),
    "a sign-in": (lambda visit: visit.answer(401, PAGE, "www-authenticate: Basic"), "The key or the endpoint is wrong"),
    "a firewall": (lambda visit: visit.answer(403, PAGE), "network rules"),
    "a gateway": (lambda visit: visit.answer(502, PAGE), "not known whether"),
    "no HTTP": (lambda visit: visit.say(b"SSH-2.0-OpenSSH_9.6\r\n"), "not known whether"),
    "no status": (lambda visit: visit.say(b"HTTP/1.1 abc\r\n\r\n"), "not known whether"),
    "a huge header": (lambda visit: visit.say(b"HTTP/1.1 200 OK\r\na: " + b"x" * 1_000_000), "not known whether"),
    "headers without end": (lambda visit: visit.drip(b"HTTP/1.1 100 Continue\r\n\r\n"), "not known whether"),
    "a body without end": (bomb, "not known whether"),
    "a body too short": (
        lambda visit: visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"),
        "not known whether",
    ),
    "silence": (hang, "not known whether"),
    "a closed connection": (hang_up, "not known whether"),
    "a broken connection": (reset, "not known whether"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_wrong_answers_to_a_create(face: str, name: str) -> None:
    """A create that is answered without sense is told so in time, is sent once, and harms no job beside it."""
    behave, words = ANSWERS[name]
    with (
        Place(behave) as place,
        Driver(face, client_of(place.url), {"language": "en", "pace": SOON}) as driver,
    ):
        bystander = driver.start("a job under way")
        driver.until(bystander, lambda status: status["status"] == "running")
        result = bounded(lambda: driver.do("wait", driver.start("a secret question"), PATIENCE))
        assert words in sentence_of(result)
        assert place.received.count(b"a secret question") == 1
        place.done = True
        assert bounded(lambda: driver.do("wait", bystander, PATIENCE))["success"]


@pytest.mark.parametrize("name", ["a page", "half of JSON", "no such path", "a gateway", "no HTTP", "silence"])
def test_wrong_answers_to_a_look(face: str, name: str) -> None:
    """A look that is answered without sense is made again, until the job's own time is over; others go on."""

    def behave(visit: Visit) -> None:
        if visit.head.startswith(b"POST") and b"cancel" not in visit.head.partition(b"\r\n")[0]:
            visit.answer(200, {"id": "resp_bad", "status": "queued"})
        else:
            ANSWERS[name][0](visit)

    with (
        Place(behave) as place,
        Driver(face, client_of(place.url), {"language": "en", "pace": SOON}) as driver,
    ):
        bystander = driver.start("a job under way")
        result = bounded(lambda: driver.do("wait", driver.start("a secret question", timeout=0.5), PATIENCE))
        assert "timeout passed" in sentence_of(result)
        assert place.received.count(b"a secret question") <= 1
        place.done = True
        assert bounded(lambda: driver.do("wait", bystander, PATIENCE))["success"]
        assert bounded(lambda: driver.do("aclose" if face == "async" else "close", 0)) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("auth", ["key", "bearer"])
def test_redirects_lead_nowhere(face: str, status: int, auth: str) -> None:
    """Nobody comes to where an endpoint redirects to: no key, no question, not even a connection."""
    with Place(hang) as elsewhere:
        target = f"location: {elsewhere.url}/openai/v1/responses"
        with Place(lambda visit: visit.answer(status, b"", target)) as place:
            said = said_by(face, client_of(place.url, auth=auth))
    assert "redirects are not followed" in said
    assert (elsewhere.connections, place.received.count(KEY.encode())) == (0, 1)


def test_redirects_lead_nowhere_for_a_client_that_follows_them(face: str) -> None:
    """Even the HTTP client of a user who has it follow redirects carries nothing elsewhere."""
    with Place(hang) as elsewhere:
        target = f"location: {elsewhere.url}/openai/v1/responses"
        with Place(lambda visit: visit.answer(307, b"", target)) as place:
            client = O3ProClient(
                client_of(place.url).config, http_client=lambda: httpx2.AsyncClient(follow_redirects=True)
            )
            assert "redirects are not followed" in said_by(face, client)
    assert elsewhere.connections == 0


@pytest.mark.parametrize("days", [1, -1], ids=["unknown", "expired"])
def test_bad_certificates(driver: Driver, face: str, tmp_path: Path, days: int) -> None:
    """A server whose certificate nobody vouches for gets neither key nor question, and the job says why."""
    with Place(hang, tls=self_signed(tmp_path, days=days)) as place:
        refuses(driver, lambda *_: {"error": said_by(face, client_of(place.url))}, "CERTIFICATE_VERIFY_FAILED")
        assert place.received == b""


# Where a handshake breaks, the HTTP library leaves its socket to the collector of garbage.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("behave", [hang, hang_up, reset, lambda visit: visit.say(b"HTTP/1.1 400 Bad\r\n\r\n")])
def test_no_tls_where_there_should_be(driver: Driver, face: str, behave: Behaviour) -> None:
    """A port that does not speak TLS gets neither key nor question in plain text."""
    with Place(behave, speaks_first=True) as place:
        client = client_of(place.url.replace("http", "https"))
        refuses(driver, lambda *_: {"error": said_by(face, client)}, "not")
        assert KEY.encode() not in place.received
    gc.collect()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_listens(driver: Driver, face: str, scheme: str) -> None:
    """A port on which nobody listens is unreachable; nothing was sent, and the job says so."""
    client = client_of(f"{scheme}://{unlistened()}")
    refuses(driver, lambda *_: {"error": said_by(face, client)}, "the question was not sent")


PROXIES: dict[str, tuple[Behaviour, str]] = {
    "hangs": (hang, "not known whether"),
    "hangs up": (hang_up, "not"),
    "refuses": (lambda visit: visit.answer(403, PAGE), "the question was not sent"),
    "wants a password": (
        lambda visit: visit.answer(407, PAGE, "proxy-authenticate: Basic"),
        "the question was not sent",
    ),
    "is no proxy": (lambda visit: visit.say(b"SSH-2.0\r\n"), "not"),
    "leads to no TLS": (lambda visit: visit.say(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 Bad\r\n\r\n"), "not"),
}


@pytest.mark.parametrize("name", PROXIES)
def test_proxies(driver: Driver, face: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that does not do its work sees neither key nor question, and nobody its password."""
    behave, words = PROXIES[name]
    with Place(behave) as place:
        monkeypatch.setenv("HTTPS_PROXY", place.url.replace("://", "://user:pass-canary@"))
        said = said_by(face, client_of("https://x.openai.azure.com"))
        refuses(driver, lambda *_: {"error": said}, words)
    assert place.received.startswith(b"CONNECT x.openai.azure.com:443")
    assert "canary" not in said
    assert not {KEY.encode(), b"secret question"} & {*place.received.split()}


@pytest.mark.parametrize(
    "proxy", ["http://user:pass-canary@{}", "foo://user:pass-canary@{}", "http://u:pass-canary@h:x"]
)
def test_proxies_that_are_none(driver: Driver, face: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that cannot be used is told without its password."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.format(unlistened()))
    said = said_by(face, client_of("https://x.openai.azure.com"))
    assert "canary" not in said
    refuses(driver, lambda *_: {"error": said}, "could not be")


def test_plain_http_stays_on_this_machine(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the environment gets what is sent in plain text to this machine."""
    with Place(lambda visit: visit.answer(403, PAGE)) as place, Place(hang) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert "network rules" in said_by(face, client_of(place.url))
    assert proxy.connections == 0


@pytest.mark.parametrize("made", [None, 5, httpx2.Client, httpx2.AsyncClient])
def test_http_clients_that_are_none(driver: Driver, face: str, made: Any) -> None:
    """What is made in place of an HTTP client is named, and nothing is sent."""
    client = O3ProClient(client_of("https://x.openai.azure.com").config, http_client=lambda: made)
    refuses(driver, lambda *_: {"error": said_by(face, client)}, "http_client has to make an httpx2.AsyncClient")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_refusals_that_repeat_the_request(face: str, status: int) -> None:
    """A gateway that throws a request back at us has neither key nor question told to whoever reads errors."""

    def echo(visit: Visit) -> None:
        said = f"rejected: {visit.head.decode()} {visit.body.decode()}"
        quota = {"code": "insufficient_quota"} if status == 429 else {"code": KEY}
        visit.answer(status, {"error": {**quota, "message": said[-400:] if status != 404 else said}})

    with Place(echo) as place:
        said = said_by(
            face,
            client_of(place.url),
            "深い question, which is a secret",
            instructions="a longer text with a secret in it",
        )
    assert KEY not in said
    assert "secret" not in json.loads(json.dumps(said))


@pytest.mark.parametrize("depth", [100, 700, 780, 960, 980, 1000])
def test_options_as_deep_as_can_be(face: str, depth: int) -> None:
    """Options at the edge of what can be written are refused at once, or sent: nothing is left uncertain."""
    with Place(lambda visit: visit.answer(403, PAGE)) as place:
        deep: list[Any] = []
        for _ in range(depth):
            deep = [deep]
        with Driver(face, client_of(place.url), {"language": "en"}) as driver:
            reply = driver.do("start_background_task", "q", tools=deep)
            if reply["success"]:
                reply = bounded(lambda: driver.do("wait", reply["job_id"], PATIENCE))
    assert "not known whether" not in sentence_of(reply)
