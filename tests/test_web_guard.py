"""What is promised of who may come in: nobody from elsewhere, none for another site, none without the token."""

from __future__ import annotations

import logging
from typing import Any

import httpx2
import pytest

from o3pro_bg.testing import FakeClient
from o3pro_bg.web import app, lifespan
from o3pro_bg.web._guard import COOKIE
from tests.virtual import virtual
from tests.web import NEAR, TOKEN, site

ELSEWHERE = ("192.0.2.7", 40_000)
JOB = {"question": "Why?"}


def check(status: int, method: str = "GET", path: str = "/api/jobs", says: str = "", **arguments: Any) -> Any:
    """Ask an application once, have it answered with this status, and answer the answer."""
    headers, body = arguments.pop("headers", {}), arguments.pop("json", None)
    answers: list[httpx2.Response] = []

    @virtual
    async def ask() -> None:
        async with site(**arguments) as page:
            answers.append(await page.http.request(method, path, headers=headers, json=body))

    ask()
    assert answers[0].status_code == status, answers[0].text
    assert says in answers[0].text
    return answers[0]


# --- without a token ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:80", "[::1]:8765", "LOCALHOST"])
def test_this_machine_is_answered_by_its_own_names(host: str) -> None:
    """Without a token a direct request from this machine is answered, by each name of its own."""
    check(200, headers={"host": host})


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:80", "10.0.0.5", "", ":80"],
)
def test_another_name_is_refused(host: str) -> None:
    """A name that somebody else has had point to this machine is refused: a browser would bring it (DNS rebinding)."""
    check(400, headers={"host": host}, says="allowed_hosts")


@pytest.mark.parametrize("peer", [ELSEWHERE, ("10.0.0.1", 1), ("::ffff:192.0.2.7", 1), ("a-socket", 0)])
def test_another_machine_needs_a_token(peer: tuple[str, int]) -> None:
    """Without a token another machine is refused, with what to set."""
    check(403, peer=peer, says="auth")


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-host"])
def test_who_comes_through_a_proxy_needs_a_token(header: str) -> None:
    """Whatever a proxy on this machine passes on is not from this machine."""
    check(403, headers={header: "127.0.0.1"}, says="auth")


@pytest.mark.parametrize("peer", [("127.0.0.1", 1), ("127.8.9.1", 1), ("::1", 1)])
def test_every_address_of_loopback_is_this_machine(peer: tuple[str, int]) -> None:
    """IPv6 and all of 127/8 are loopback."""
    check(200, peer=peer)


def test_the_host_may_guard_the_mount_itself() -> None:
    """With auth=False whoever reaches the mount is answered, by any name; other sites are still refused."""
    check(200, auth=False, peer=ELSEWHERE, host="jobs.example")
    check(403, "POST", json=JOB, auth=False, headers={"origin": "https://evil.example"})


def test_a_function_may_guard_the_mount() -> None:
    """A function, or a coroutine function, of the scope tells who may come in."""

    async def knows(scope: Any) -> bool:
        return bool(scope["client"] == NEAR)

    check(200, auth=lambda scope: scope["client"] == NEAR)
    check(401, auth=lambda scope: scope["client"] == NEAR, peer=ELSEWHERE)
    check(200, auth=knows)
    check(401, auth=knows, peer=ELSEWHERE)


# --- changes on behalf of others ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://localhost"},
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:81"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "null"},
        {"origin": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/jobs"), ("DELETE", "/api/jobs/x"), ("POST", "/login")])
def test_a_change_for_another_site_is_refused(headers: dict[str, str], method: str, path: str) -> None:
    """What a browser asks for on behalf of another site, or another port, changes nothing, token or not."""
    check(403, method, path, json=JOB, headers=headers, says="other sites")
    bearer = {"authorization": f"Bearer {TOKEN}"}
    check(403, method, path, json=JOB, headers={**headers, **bearer}, auth=TOKEN, says="other sites")


@pytest.mark.parametrize(
    "headers",
    [{}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": "http://localhost"}],
    ids=str,
)
def test_a_change_of_ones_own_is_taken(headers: dict[str, str]) -> None:
    """The page itself, and programs that are no browsers, may change things."""
    check(202, "POST", json=JOB, headers=headers)


def test_another_sites_page_may_not_frame_read_or_sniff() -> None:
    """Every answer, refusals too, says that it is nobody else's, holds no script in line, and is what it says it is."""
    answers = [check(200), check(404, path="/nothing"), check(403, peer=ELSEWHERE), check(401, auth=TOKEN)]
    for answer in [*answers, check(400, headers={"host": "evil.example"}), check(405, "PUT")]:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


# --- the token ----------------------------------------------------------------------------------------------------


def test_the_token_opens_from_anywhere() -> None:
    """With a token any machine is answered, by any name, through any proxy."""
    headers = {"authorization": f"Bearer {TOKEN}", "x-forwarded-for": "203.0.113.9"}
    check(200, auth=TOKEN, peer=ELSEWHERE, host="jobs.example", headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": f"{COOKIE}="},
        {"cookie": "x" * 5000},
        {"authorization": "Bearer é"},
    ],
    ids=str,
)
def test_without_the_token_nothing_is_told(headers: dict[str, str]) -> None:
    """With a token set, whoever lacks it is answered 401, wherever he comes from, and the cookie is not the token."""
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    answer = check(401, auth=TOKEN, headers=raw, says="token")
    assert answer.headers["www-authenticate"] == "Bearer"
    check(401, "POST", auth=TOKEN, headers=raw, json=JOB)
    check(401, path="/api/events", auth=TOKEN, headers=raw)
    check(401, path="/metrics", auth=TOKEN, headers=raw)


@virtual
async def test_the_cookie_is_set_once_and_opens() -> None:
    """Who enters the token gets a cookie that no script reads and no other site sends, and that opens from then on."""
    async with site(auth=TOKEN) as page:
        refused = await page.http.post("/login", data={"token": "another token...."})
        assert refused.status_code == 401
        assert "set-cookie" not in refused.headers
        let_in = await page.http.post("/login", data={"token": f" {TOKEN}\n"})
        assert (let_in.status_code, let_in.headers["location"]) == (303, "./")
        cookie = let_in.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert TOKEN not in cookie
        assert "secure" not in cookie
        assert (await page.http.get("/api/jobs")).status_code == 200
        assert "set-cookie" not in (await page.http.get("/api/jobs")).headers


def test_over_https_the_cookie_stays_there() -> None:
    """A cookie that was set over https is sent over https alone."""

    @virtual
    async def enter() -> None:
        async with site(auth=TOKEN) as page:
            answer = await page.http.post("https://localhost/login", data={"token": TOKEN})
            assert "secure" in answer.headers["set-cookie"].lower()

    enter()


@virtual
async def test_the_token_reaches_no_log_and_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the token nor the cookie is in a log record or in the repr of anything that holds them."""
    caplog.set_level(logging.DEBUG)
    async with site(auth=TOKEN) as page:
        await page.http.post("/login", data={"token": TOKEN})
        await page.http.get("/api/jobs", headers={"authorization": f"Bearer {TOKEN}"})
        assert TOKEN not in repr(page.app)
    assert TOKEN not in caplog.text


# --- settings -----------------------------------------------------------------------------------------------------


def test_a_short_token_is_refused() -> None:
    """A token that could be guessed is refused where it is set, with how to make one."""
    with pytest.raises(ValueError, match="token_hex"):
        app(auth="secret")


@pytest.mark.parametrize("auth", [True, 3, b"a token of sixteen bytes"])
def test_what_is_no_auth_is_refused(auth: Any) -> None:
    """auth=True, say, means nothing, and is not taken for a guard."""
    with pytest.raises(TypeError, match="auth"):
        app(auth=auth)


def test_one_name_is_no_collection_of_names() -> None:
    """allowed_hosts as one text is refused: its letters would be the names."""
    with pytest.raises(TypeError, match="allowed_hosts"):
        app(allowed_hosts="jobs.example")


def test_names_that_are_allowed_are_all() -> None:
    """With allowed_hosts set, these names are answered, and no others."""
    check(200, allowed_hosts=["jobs.example"], host="jobs.example:8080")
    check(400, allowed_hosts=["jobs.example"], host="localhost")
    check(400, auth=TOKEN, allowed_hosts=["jobs.example"], host="other.example")


@virtual
async def test_a_missing_lifespan_says_what_mends_it() -> None:
    """Where the host runs no lifespan of this name, every request is answered 503, with the line that is missing."""
    async with lifespan(FakeClient(), name="another")(None):
        transport = httpx2.ASGITransport(app(), client=NEAR)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            for path in ("/", "/api/jobs", "/healthz"):
                answer = await http.get(path)
                assert answer.status_code == 503
                assert "lifespan=o3pro_bg.web.lifespan(client, ...)" in answer.json()["error"]


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("ja", "ja"),
        ("ja-JP,ja;q=0.9,en;q=0.8", "ja"),
        ("en-US,en;q=0.9,ja;q=0.8", "en"),
        ("de,ja;q=0.1", "ja"),
        ("de", "en"),
        ("", "en"),
        ("ja;q=x,en;q=0.1", "en"),
        (",;q=,;" * 1000, "en"),
    ],
)
def test_refusals_speak_the_visitors_language(accepted: str, language: str) -> None:
    """What is refused before it reaches the handler is refused in Japanese or English, as the visitor prefers."""
    answer = check(403, peer=ELSEWHERE, headers={"accept-language": accepted})
    assert answer.json()["error"].startswith("認証" if language == "ja" else "without a token")


@pytest.mark.parametrize("auth", [None, TOKEN])
@virtual
async def test_a_mount_without_its_slash_leads_to_the_page(auth: str | None) -> None:
    """Who asks for a mount without its slash is led to the page: links would lead elsewhere else."""
    async with lifespan(FakeClient())(None):
        transport = httpx2.ASGITransport(app(auth=auth), root_path="/tools/jobs")
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            led = await http.get("/tools/jobs?lang=ja", follow_redirects=True)
            assert str(led.url) == "http://localhost/tools/jobs/?lang=ja"
            assert led.status_code == (200 if auth is None else 401)
