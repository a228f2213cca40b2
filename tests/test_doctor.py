"""`o3pro-bg doctor` names every problem with its fix and tells no secret; `--live` finds out, and leaves nothing."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

import pytest

from o3pro_bg._sqlite.store import SqliteStore
from o3pro_bg.cli import main
from o3pro_bg.cli._doctor import access, facts, machine, report, trial, witness
from o3pro_bg.cli._doctor.checks import Check, Verdict
from o3pro_bg.cli._doctor.facts import FACTS
from o3pro_bg.cli._exits import Exit
from o3pro_bg.emulator import Emulator
from tests.child import SOON
from tests.peers import ENDPOINT, ended, get, record, until
from tests.places import Place, hang, self_signed, unlistened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.places import Visit

SECRET = "planted-secret-0123456789abcdef"
MARK = "[emulator] "


class Told(NamedTuple):
    """What the command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Answer what was printed as JSON."""
        return json.loads(self.out)

    @property
    def checks(self) -> dict[str, dict[str, str]]:
        """Answer the checks by name; the worst of those that share one."""
        checks = self.json if isinstance(self.json, list) else self.json["checks"]
        order = ("ok", "unknown", "warn", "problem")
        return {check["name"]: check for check in sorted(checks, key=lambda check: order.index(check["verdict"]))}

    @property
    def rows(self) -> dict[str, tuple[str, str]]:
        """Answer what was found, and its evidence, by fact."""
        return {row["fact"]: (row["found"], row["evidence"]) for row in self.json["live"]}

    def verdict(self, name: str) -> str:
        """Answer the verdict of a check."""
        return self.checks[name]["verdict"]


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy of the developer's, no file of his, and a trial that does not wait for a real service."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("O3PRO_BG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(trial, "_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(trial, "_SETTLED", 0.0)
    monkeypatch.setattr(witness, "_BETWEEN_DELETES", 0.01)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Give a function that runs the doctor with these arguments, at this endpoint with this key."""

    def run(*arguments: str, endpoint: str = "", key: str = SECRET) -> Told:
        for name, value in (("ENDPOINT", endpoint), ("API_KEY", key)):
            monkeypatch.setenv(f"AZURE_OPENAI_{name}", value)
        code = main(["doctor", *arguments])
        return Told(code, *capsys.readouterr())

    return run


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """An emulator that takes the planted key, and answers soon."""
    with Emulator("seconds=0.1", api_key=SECRET) as emulator:
        yield emulator


class Gateway:
    """A server that stands before the emulator, keeps its mark to itself, and does some things otherwise."""

    def __init__(self, emulator: Emulator) -> None:
        self.headers: list[str] = []
        self.refuse: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _: None
        self.is_idempotent = False
        self.asked: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self._made: dict[str, tuple[int, bytes]] = {}
        self._emulator = emulator
        self._place = Place(self._behave)

    @property
    def url(self) -> str:
        return self._place.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._place.__exit__()

    def _behave(self, visit: Visit) -> None:
        line, *lines = visit.head.decode().split("\r\n")
        method, path, _ = line.split(" ")
        self.requests.append(f"{method} {'cancel' if '/cancel' in path else 'response'}")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if method == "POST" and visit.body:
            body = json.loads(visit.body)
            self.asked.append(body)
            if (refusal := self.refuse(body)) is not None:
                visit.answer(400, {"error": refusal}, *self.headers)
                return
        key = headers.get("idempotency-key", "") if self.is_idempotent else ""
        status, answer = self._made.get(key) or self._forward(method, path, headers, visit.body)
        if key:
            self._made[key] = status, answer
        visit.answer(status, json.loads(answer), *self.headers)

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self._emulator.endpoint).netloc, timeout=SOON)
        try:
            connection.request(method, path, body or None, {"api-key": headers.get("api-key", "")})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture
def gateway(emulator: Emulator) -> Iterator[Gateway]:
    """A gateway before the emulator."""
    with Gateway(emulator) as gateway:
        yield gateway


# --- what is printed ----------------------------------------------------------------------------------------


def test_a_healthy_emulator(run: Callable[..., Told], emulator: Emulator) -> None:
    """Where all works the doctor says so, names the emulator, asks nothing that could cost, and exits with 0."""
    told = run("--json", endpoint=emulator.endpoint)
    assert told.code == Exit.COMPLETED
    assert {check["verdict"] for check in told.json} == {"ok", "unknown"}
    assert "the EMULATOR" in told.checks["service"]["found"]
    assert told.verdict("access") == "ok"
    assert (told.verdict("deployment"), "o3-pro" in told.checks["deployment"]["found"]) == ("unknown", True)
    assert "--live" in told.checks["deployment"]["fix"]
    assert emulator.counters()["creates"] == 0


def test_json_is_an_array_of_checks(run: Callable[..., Told], emulator: Emulator) -> None:
    """`--json` prints one array of objects, each with a name, a verdict, what was found, and the fix."""
    told = run("--json", endpoint=emulator.endpoint)
    assert isinstance(told.json, list)
    for check in told.json:
        assert [*check] == ["name", "verdict", "found", "fix"]
        assert check["verdict"] in [*Verdict]
        assert all(isinstance(value, str) for value in check.values())


def test_a_line_for_each_check(run: Callable[..., Told], emulator: Emulator) -> None:
    """For people each check is a line with a sign, its word, its name and what was found; a fix follows, indented."""
    told = run(endpoint=emulator.endpoint, key="a-wrong-key-for-this")
    lines = told.out.splitlines()
    assert any(re.fullmatch(r"✓ ok       service +the EMULATOR at http://127\.0\.0\.1:.*", line) for line in lines)
    at = next(number for number, line in enumerate(lines) if line.startswith("✗ problem  access "))
    assert lines[at + 1].startswith("      ")
    assert "AZURE_OPENAI_API_KEY" in lines[at + 1]
    assert all(re.match(r"[✓!✗?] (ok|warn|problem|unknown) ", line) or line.startswith("      ") for line in lines)
    assert told.err.startswith("1 problem, 0 warnings, ")


def test_plain_signs(run: Callable[..., Told], emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal whose encoding lacks the signs gets plain ones beside the same words."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    run(endpoint=emulator.endpoint, key="a-wrong-key-for-this")
    out.seek(0)
    printed = out.read()
    assert "\n+ ok       service" in printed
    assert "\nx problem  access" in printed


def test_every_problem_at_once(run: Callable[..., Told], tmp_path: Path) -> None:
    """Problems of the configuration and of the store are all named in one run, each with a fix."""
    (tmp_path / "file").write_text("no directory")
    told = run("--json", "--store", str(tmp_path / "file" / "jobs.db"), endpoint="http://x.example", key="a key")
    problems = [check for check in told.json if check["verdict"] == "problem"]
    assert {check["name"] for check in problems} == {"configuration", "store's directory"}
    assert len(problems) == 3
    assert all(check["fix"] for check in problems)
    for name in ("service", "reachable", "clock", "access"):
        assert "not asked: the configuration has problems" in told.checks[name]["found"]
    assert told.code == Exit.CONFIGURATION


def test_no_endpoint(run: Callable[..., Told]) -> None:
    """Without an endpoint the doctor says which variable to set, and still looks at all else."""
    told = run("--json")
    check = told.checks["configuration"]
    assert (check["verdict"], check["found"]) == ("problem", "no endpoint")
    assert "AZURE_OPENAI_ENDPOINT" in check["fix"]
    assert [told.verdict(name) for name in ("openai", "credential", "store")] == ["ok"] * 3
    assert told.code == Exit.CONFIGURATION


# --- secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--live",), ("--live", "--json")])
def test_a_key_is_never_printed(run: Callable[..., Told], emulator: Emulator, arguments: tuple[str, ...]) -> None:
    """Neither a key that works nor a wrong one is printed, on either stream."""
    wrong = "wrong-secret-0123456789abcdef"
    for key in (SECRET, wrong):
        told = run(*arguments, endpoint=emulator.endpoint, key=key)
        assert key not in told.out + told.err


@pytest.mark.parametrize("arguments", [("--json",), ("--live", "--json")])
def test_a_key_that_is_repeated_is_not_printed(run: Callable[..., Told], arguments: tuple[str, ...]) -> None:
    """Where a service repeats the key in what it says, be it in a header of an answer, it is left out."""

    def behave(visit: Visit) -> None:
        said = {"error": {"code": "odd", "message": f"the key {SECRET} is odd"}, "deleted": True}
        is_look = visit.head.startswith(b"GET")
        answer = said if is_look else {**said, "id": "resp_1", "status": "queued"}
        visit.answer(401 if is_look else 200, answer, f"x-ratelimit-limit-requests: {SECRET}")

    with Place(behave) as place:
        told = run(*arguments, endpoint=place.url)
    assert "the key [the key] is odd" in told.checks["access"]["found"]
    assert SECRET not in told.out + told.err


def test_a_password_in_the_endpoint_is_not_printed(run: Callable[..., Told]) -> None:
    """A password that was put into the endpoint's address is not printed."""
    told = run("--json", endpoint=f"https://user:{SECRET}@x.example", key="key-0123456789")
    assert told.verdict("configuration") == "problem"
    assert SECRET not in told.out + told.err


def test_a_question_that_is_repeated_is_not_printed(run: Callable[..., Told], gateway: Gateway) -> None:
    """Where a service repeats the question in a refusal, it is left out."""
    gateway.refuse = lambda body: {"code": "odd", "message": f"cannot answer: {body['input']}"}
    told = run("--live", "--json", endpoint=gateway.url)
    assert gateway.asked
    assert "cannot answer: [the question]" in told.out
    assert gateway.asked[0]["input"] not in told.out + told.err


# --- the service --------------------------------------------------------------------------------------------


def test_a_wrong_key(run: Callable[..., Told], emulator: Emulator) -> None:
    """A wrong key is a problem with its fix, while the endpoint is known to be reachable."""
    told = run("--json", endpoint=emulator.endpoint, key="a-wrong-key-for-this")
    assert (told.verdict("reachable"), told.verdict("access")) == ("ok", "problem")
    assert told.checks["access"]["found"].startswith("invalid_key: Access denied")
    assert "AZURE_OPENAI_API_KEY" in told.checks["access"]["fix"]
    assert told.code == Exit.CONFIGURATION


@pytest.mark.parametrize(
    ("fault", "verdict", "words"),
    [
        ("403", "problem", "network rules"),
        ("404-resource", "problem", "api-version"),
        ("redirect", "problem", "redirects"),
        ("html", "problem", "check the endpoint"),
        ("reset", "unknown", "ask again"),
        ("500", "unknown", "ask again"),
        ("429", "unknown", "ask again"),
    ],
)
def test_what_stands_against_a_look(
    run: Callable[..., Told], emulator: Emulator, fault: str, verdict: str, words: str
) -> None:
    """A refusal is a problem with the fix that jobs name; what tells nothing of the configuration is unknown."""
    emulator.set_knobs(f"fault={fault} on=look times=0")
    told = run("--json", endpoint=emulator.endpoint)
    assert told.verdict("access") == verdict
    assert words in told.checks["access"]["fix"]
    assert told.code == (Exit.CONFIGURATION if verdict == "problem" else Exit.COMPLETED)


def test_another_server(run: Callable[..., Told], gateway: Gateway) -> None:
    """A server that is neither Azure nor the emulator is told as such."""
    told = run("--json", endpoint=gateway.url)
    assert "another server than Azure" in told.checks["service"]["found"]
    assert told.verdict("access") == "ok"


def test_nobody_listens(run: Callable[..., Told]) -> None:
    """A refused connection is a problem of the endpoint, and nothing is asked of it then."""
    where = unlistened()
    told = run("--json", endpoint=f"http://{where}")
    assert told.checks["reachable"] == {
        "name": "reachable",
        "verdict": "problem",
        "found": f"nothing listens at {where}",
        "fix": "check host and port, and that the server runs",
    }
    assert told.verdict("service") == "unknown"
    assert told.checks["access"]["found"] == "not asked: the service cannot be reached"
    assert told.code == Exit.CONFIGURATION


def test_a_name_that_is_not_known(run: Callable[..., Told], monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot be resolved is a problem of its name; what it would be, its name tells."""

    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    told = run("--json", endpoint="https://no-such.openai.azure.com")
    assert "the name of no-such.openai.azure.com is not known" in told.checks["reachable"]["found"]
    assert "Azure OpenAI (*.openai.azure.com)" in told.checks["service"]["found"]
    assert told.verdict("clock") == "unknown"


def test_a_certificate_that_nobody_vouches_for(run: Callable[..., Told], tmp_path: Path) -> None:
    """A certificate that is not trusted is a problem, and says how to have it trusted."""
    with Place(hang, tls=self_signed(tmp_path)) as place:
        told = run("--json", endpoint=f"https://localhost:{place.port}")
    assert "certificate of" in told.checks["reachable"]["found"]
    assert "SSL_CERT_FILE" in told.checks["reachable"]["fix"]


@pytest.mark.parametrize(
    ("scheme", "said", "words"),
    [
        ("http", b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        ("https", b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak TLS"),
        ("http", b"", "did not answer within"),
    ],
)
def test_what_is_no_service(
    run: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, scheme: str, said: bytes, words: str
) -> None:
    """What speaks something else, or nothing at all, is a problem in its own words."""
    monkeypatch.setattr("o3pro_bg.cli._doctor.reach._PATIENCE", 0.3 if not said else SOON)
    with Place(lambda visit: visit.say(said) if said else hang(visit), speaks_first=True) as place:
        told = run("--json", endpoint=f"{scheme}://localhost:{place.port}")
    assert words in told.checks["reachable"]["found"]
    assert told.checks["reachable"]["fix"]


def test_a_proxy_is_named(run: Callable[..., Told], monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes through a proxy of the environment says so when that refuses."""
    with Place(lambda visit: visit.answer(403)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        told = run("--json", endpoint="https://x.openai.azure.com")
    assert proxy.received.startswith(b"CONNECT x.openai.azure.com:443")
    assert "proxy that the environment names" in told.checks["reachable"]["found"]
    assert SECRET.encode() not in proxy.received


def test_plain_http_takes_no_proxy(
    run: Callable[..., Told], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain http to this machine goes through no proxy of the environment."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{unlistened()}")
    told = run("--json", endpoint=emulator.endpoint)
    assert (told.verdict("reachable"), told.verdict("access")) == ("ok", "ok")


def test_a_redirect_is_not_followed(run: Callable[..., Told]) -> None:
    """A server that redirects is reached, and where it directs to is not asked."""
    with Place(hang) as elsewhere, Place(lambda visit: visit.answer(307, b"", f"location: {elsewhere.url}")) as place:
        told = run("--json", endpoint=place.url)
    assert told.checks["reachable"]["found"].startswith("it answered 307")
    assert "redirects" in told.checks["access"]["fix"]
    assert elsewhere.connections == 0


@pytest.mark.parametrize(("offset", "words"), [(330, "5 min"), (-330, "5 min"), (0, "")])
def test_a_clock_that_is_off(run: Callable[..., Told], gateway: Gateway, offset: int, words: str) -> None:
    """A clock more than a minute from the service's is a problem, and the direction is told; else it is none."""
    gateway.headers = [f"date: {formatdate(time.time() + offset, usegmt=True)}"]
    told = run("--json", endpoint=gateway.url)
    check = told.checks["clock"]
    assert check["verdict"] == ("problem" if offset else "ok")
    assert words in check["found"]
    assert ("behind" in check["found"]) == (offset > 0)
    assert ("ahead of" in check["found"]) == (offset < 0)
    assert ("NTP" in check["fix"]) == bool(offset)


# --- the credential -----------------------------------------------------------------------------------------


class Credential:
    """A credential in the place of `DefaultAzureCredential`."""

    asked = 0
    give: Callable[[], Any]

    def get_token(self, *_: str) -> Any:
        Credential.asked += 1
        return Credential.give()

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def entra(monkeypatch: pytest.MonkeyPatch) -> type[Credential]:
    """A credential that gives the planted secret as its token."""
    Credential.asked = 0
    Credential.give = lambda: SimpleNamespace(token=SECRET, expires_on=int(time.time() + 3600))
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Credential)
    return Credential


@pytest.mark.parametrize("arguments", [("--json",), ("--live", "--json")])
def test_a_token(
    run: Callable[..., Told], emulator: Emulator, entra: type[Credential], arguments: tuple[str, ...]
) -> None:
    """Without a key a token of Entra ID is asked for once; until when it holds is told, and not the token."""
    told = run(*arguments, endpoint=emulator.endpoint, key="")
    assert re.search(r"holds until \d\d:\d\d:\d\d, for (59 min|1 h)", told.checks["credential"]["found"])
    assert told.verdict("access") == "ok"
    assert entra.asked == 1
    assert SECRET not in told.out + told.err


def test_no_token(run: Callable[..., Told], emulator: Emulator, entra: type[Credential]) -> None:
    """A credential that gives no token is a problem with its fix, and the service is not asked without one."""

    def give() -> Any:
        raise RuntimeError("nobody is signed in")

    entra.give = give
    told = run("--json", endpoint=emulator.endpoint, key="")
    check = told.checks["credential"]
    assert (check["verdict"], "nobody is signed in" in check["found"]) == ("problem", True)
    assert "az login" in check["fix"]
    assert "AZURE_OPENAI_API_KEY" in check["fix"]
    assert told.checks["access"]["found"] == "not asked: there is no credential"
    assert emulator.counters()["looks"] == 0


def test_a_token_that_does_not_come(
    run: Callable[..., Told], emulator: Emulator, entra: type[Credential], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A credential that never answers is given up on."""
    is_over = threading.Event()
    entra.give = lambda: is_over.wait(SOON)
    monkeypatch.setattr(access, "_PATIENCE", 0.1)
    try:
        told = run("--json", endpoint=emulator.endpoint, key="")
    finally:
        is_over.set()
    assert told.verdict("credential") == "problem"
    assert "no token within" in told.checks["credential"]["found"]


# --- this machine -------------------------------------------------------------------------------------------


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Have other versions be installed than there are; None is none at all."""

    def version(name: str) -> str:
        if (found := versions.get(name.replace("-", "_"), "")) is None:
            raise metadata.PackageNotFoundError(name)
        return found or metadata.version(name)

    def of(name: str) -> Any:
        if versions.get(name.replace("-", "_"), "") is None:
            raise metadata.PackageNotFoundError(name)
        return metadata.metadata(name)

    fake = SimpleNamespace(
        version=version, metadata=of, requires=metadata.requires, PackageNotFoundError=metadata.PackageNotFoundError
    )
    monkeypatch.setattr(machine, "metadata", fake)


def verdicts(checks: Iterator[Check]) -> dict[str, Verdict]:
    """Answer the verdict of each check."""
    return {check.name: check.verdict for check in checks}


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("3.50", Verdict.OK),
        ("3.50.0", Verdict.OK),
        ("3.100.1", Verdict.OK),
        ("4.0", Verdict.OK),
        ("3.50.0rc1", Verdict.OK),
        ("3.9", Verdict.PROBLEM),
        ("3.49.99", Verdict.PROBLEM),
        ("2", Verdict.PROBLEM),
        ("odd", Verdict.UNKNOWN),
        (None, Verdict.PROBLEM),
    ],
)
def test_versions(monkeypatch: pytest.MonkeyPatch, version: str | None, verdict: Verdict) -> None:
    """Releases are compared as numbers with the minimum of our own metadata; what is missing is a problem."""
    assert "openai>=3.50" in (metadata.requires("o3pro-bg") or ())
    installed(monkeypatch, openai=version)
    found = {check.name: check for check in machine.versions()}
    assert found["openai"].verdict is verdict
    assert bool(found["openai"].fix) == (verdict is Verdict.PROBLEM)
    assert found["anyio"].verdict is found["python"].verdict is Verdict.OK


def test_zeros_at_the_end_of_a_release() -> None:
    """A release is the same with or without zeros at its end, as pip has it."""
    assert not machine._is_older("3.50", "3.50.0")
    assert machine._is_older("3.50", "3.50.1")


def test_versions_of_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where we are not installed as a package, nothing is pretended: what is needed is unknown."""
    installed(monkeypatch, o3pro_bg=None)
    assert {*verdicts(machine.versions()).values()} == {Verdict.UNKNOWN}


def test_another_installation_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of another version than the one that is installed is warned of."""
    installed(monkeypatch, o3pro_bg="0.0.1")
    assert verdicts(machine.versions())["o3pro-bg"] is Verdict.WARN


@pytest.mark.parametrize("arguments", [(), ("--live",)])
def test_what_cannot_be_imported(emulator: Emulator, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Where the SDK or anyio cannot be imported the doctor does not die of it: it looks at all else."""
    code = (
        "import sys; sys.modules['anyio'] = sys.modules['openai'] = sys.modules['httpx2'] = None\n"
        "from o3pro_bg.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    account = {"AZURE_OPENAI_ENDPOINT": emulator.endpoint, "AZURE_OPENAI_API_KEY": SECRET}
    done = subprocess.run(  # noqa: S603 - the script is ours
        [sys.executable, "-c", code, "doctor", "--json", "--store", str(tmp_path / "jobs.db"), *arguments],
        env={**os.environ, **account},
        capture_output=True,
        text=True,
        check=False,
    )
    told = Told(done.returncode, done.stdout, done.stderr)
    assert [told.verdict(name) for name in ("reachable", "store", "access")] == ["ok", "ok", "unknown"]
    assert told.checks["access"]["found"] == "not asked: anyio and openai cannot be imported"
    if arguments:
        assert {*told.rows.values()} == {("unknown", "not asked: anyio and openai cannot be imported")}


@pytest.mark.parametrize(
    ("package", "extra"), [("aiohttp", "extra aio"), ("rich", "extra cli"), ("shtab", "extra cli")]
)
def test_extras(monkeypatch: pytest.MonkeyPatch, package: str, extra: str) -> None:
    """An extra that is not installed is a warning at most, and says what is missing without it."""
    installed(monkeypatch, **{package: None})
    found = {check.name: check for check in machine.extras()}
    assert found.pop(extra).verdict is Verdict.WARN
    assert {check.verdict for check in found.values()} == {Verdict.OK}


# --- the store ----------------------------------------------------------------------------------------------


def store_with(path: Path, *records: Any) -> SqliteStore:
    """Answer a store, open, that holds these records."""
    store = SqliteStore(path)
    store.open(ENDPOINT, lambda _: None).result(SOON)
    for one in records:
        store.insert(one).result(SOON)
    return store


def test_a_store_that_is_not_there_yet(run: Callable[..., Told], tmp_path: Path) -> None:
    """A file that does not exist is no problem, and is not made by looking."""
    told = run("--json")
    assert told.verdict("store") == "ok"
    assert str(tmp_path / "home" / "jobs.db") in told.checks["store"]["found"]
    assert not (tmp_path / "home").exists()


def test_a_store_with_unwatched_jobs(run: Callable[..., Told], tmp_path: Path) -> None:
    """Jobs under way that nobody watches are counted, and warned of; they keep nobody from working."""
    path = tmp_path / "jobs.db"
    store = store_with(path, record("a"), record("b"), record("c"))
    store.replace(ended(get(store, "c"))).result(SOON)
    store.close().result(SOON)
    told = run("--json", "--store", str(path))
    check = told.checks["store"]
    assert check["verdict"] == "warn"
    assert check["found"].endswith("jobs.db holds 3 jobs, 2 under way, of which nobody watches 2")
    assert "o3pro-bg watch" in check["fix"]


def test_a_store_with_watched_jobs(run: Callable[..., Told], tmp_path: Path) -> None:
    """Jobs that a living process watches are no reason for a warning, and stay its own."""
    path = tmp_path / "jobs.db"
    store = store_with(path, record("a"))
    try:
        told = run("--json", "--store", str(path))
        assert store.holds("a")
    finally:
        store.close().result(SOON)
    assert told.verdict("store") == "ok"
    assert "1 job, 1 under way" in told.checks["store"]["found"]


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_store_that_others_may_read(run: Callable[..., Told], tmp_path: Path) -> None:
    """A file that others may read is warned of, with the command that mends it; one of its owner's alone is not."""
    path = tmp_path / "jobs.db"
    store_with(path, record("a")).close().result(SOON)
    assert run("--json", "--store", str(path)).verdict("store's mode") == "ok"
    path.chmod(0o644)
    told = run("--json", "--store", str(path))
    assert told.verdict("store's mode") == "warn"
    assert told.checks["store's mode"]["fix"] == f"chmod 600 '{path}'"


@pytest.mark.parametrize("damage", ["no database", "torn"])
def test_a_damaged_store(run: Callable[..., Told], emulator: Emulator, tmp_path: Path, damage: str) -> None:
    """A file that cannot be read is a problem that says why; the service is looked at all the same."""
    path = tmp_path / "jobs.db"
    store_with(path, *(record(str(number)) for number in range(50))).close().result(SOON)
    whole = path.read_bytes()
    path.write_bytes(b"no database at all" * 1000 if damage == "no database" else whole[:4096] + b"\xff" * 20000)
    told = run("--json", "--store", str(path), endpoint=emulator.endpoint)
    check = told.checks["store"]
    assert (check["verdict"], str(path) in check["found"]) == ("problem", True)
    assert "--store" in check["fix"]
    assert told.verdict("access") == "ok"
    assert told.code == Exit.CONFIGURATION


def test_a_path_that_is_none(run: Callable[..., Told]) -> None:
    """A path that can be none of a file is a problem of the store."""
    told = run("--json", "--store", ":memory:")
    assert told.verdict("store") == "problem"
    assert told.code == Exit.CONFIGURATION


# --- live ---------------------------------------------------------------------------------------------------


def test_live_finds_out(run: Callable[..., Told], emulator: Emulator) -> None:
    """Against the emulator each fact is found out and marked as the emulator's, and nothing is left there."""
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert told.code == Exit.COMPLETED
    assert told.verdict("deployment") == "ok"
    assert {fact: found for fact, (found, _) in told.rows.items()} == {
        facts.BACKGROUND: "yes",
        facts.CREATED_AT: "a number",
        facts.RATES_CREATE: "no",
        facts.RATES_LOOK: "no",
        facts.RETENTION: "no",
        facts.REQUEST_ID: "yes",
        facts.POLLING: "no",
        facts.IDEMPOTENCY: "no",
        facts.CANCEL: "yes",
        facts.WINDOW: "accepted",
        facts.ANSWER: "yes",
        facts.DELETE: "yes",
    }
    assert all(evidence.startswith(MARK) for _, evidence in told.rows.values())
    assert told.err.startswith("this is the EMULATOR: nothing is paid")
    counters = emulator.counters()
    assert (counters["accepted"], counters["responses"]) == (trial.QUESTIONS, 0)
    assert [*counters["duplicates"].values()] == [2]  # the create that was repeated to find out


def test_live_prints_a_table(run: Callable[..., Told], emulator: Emulator) -> None:
    """For people the facts are a table in Markdown, under a line that says what was asked; the deployment follows."""
    told = run("--live", "--deployment", "my-o3", endpoint=emulator.endpoint)
    table = [line for line in told.out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
    assert cells[0] == ["fact", "found", "evidence"]
    assert {*"".join(cells[1])} == {"-"}
    assert [row[0] for row in cells[2:]] == [*FACTS]
    assert {len(row) for row in cells} == {3}
    assert len({len(line) for line in table}) == 1
    assert "the EMULATOR; api-version v1, deployment my-o3, effort none" in told.out
    assert "✓ ok       deployment         my-o3 takes questions" in told.out


def test_live_json(run: Callable[..., Told], emulator: Emulator) -> None:
    """`--live --json` prints one object: what was asked, the checks, and a row for each fact."""
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert [*told.json] == ["about", "checks", "live"]
    assert [row["fact"] for row in told.json["live"]] == [*FACTS]
    assert {tuple(row) for row in told.json["live"]} == {("fact", "found", "evidence")}


def test_live_says_first_what_it_costs(run: Callable[..., Told], gateway: Gateway) -> None:
    """Where it is not the emulator, the cost is told first, on standard error; a price that is not known is none."""
    told = run("--live", "--json", "--deployment", "o3-pro", endpoint=gateway.url)
    assert re.match(r"--live costs a little: it asks o3-pro up to 4 tiny questions.* \$0\.\d\d by", told.err)
    told = run("--live", "--json", "--deployment", "mine", endpoint=gateway.url)
    assert "is not known here" in told.err
    assert "$" not in told.err
    assert {body["max_output_tokens"] for body in gateway.asked} == {trial.MOST_TOKENS}


def test_live_tells_rate_headers(run: Callable[..., Told], emulator: Emulator) -> None:
    """The rate headers that come with creates and with looks are named, with their values."""
    emulator.set_knobs("seconds=0.1 rpm=100 tpm=1000000")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    for fact in (facts.RATES_CREATE, facts.RATES_LOOK):
        found, evidence = told.rows[fact]
        assert found == "yes"
        assert "x-ratelimit-limit-requests: 100" in evidence
        assert "x-ratelimit-limit-tokens: 1000000" in evidence


def test_live_tells_polling_hints_and_retention(run: Callable[..., Told], gateway: Gateway) -> None:
    """Headers that hint when to look again, or how long a response is kept, are named; odd values are not shown."""
    gateway.headers = ["openai-poll-after-ms: 1500", "x-ms-retention-days: 30", f"x-ms-expiry-note: <{'x' * 50}>"]
    told = run("--live", "--json", endpoint=gateway.url)
    assert told.rows[facts.POLLING] == ("yes", "openai-poll-after-ms: 1500")
    assert told.rows[facts.RETENTION] == ("yes", "x-ms-retention-days: 30; x-ms-expiry-note")
    assert MARK not in told.out


def test_live_under_a_rate_limit(run: Callable[..., Told], emulator: Emulator) -> None:
    """What a rate limit keeps from being asked is unknown, with the reason; all else is found out."""
    emulator.set_knobs("seconds=0.1 rpm=1")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert (told.rows[facts.BACKGROUND][0], told.rows[facts.ANSWER][0]) == ("yes", "yes")
    for fact in (facts.IDEMPOTENCY, facts.CANCEL, facts.WINDOW):
        assert told.rows[fact][0] == "unknown"
        assert "429" in told.rows[fact][1]
    assert emulator.counters()["responses"] == 0


def test_live_waits_for_a_short_429(run: Callable[..., Told], emulator: Emulator) -> None:
    """A 429 that asks for a short pause is waited for, and nothing is made by it."""
    emulator.set_knobs("seconds=0.1 fault=429 on=create times=1 retry_after_ms=10")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert "unknown" not in {found for found, _ in told.rows.values()}
    assert emulator.counters()["accepted"] == trial.QUESTIONS


@pytest.mark.parametrize(
    ("knobs", "found", "words"),
    [
        ("nulls=1 seconds=0.2 queued=0.1", "null", "output: null"),
        ("seconds=0.2 queued=0.1", "a number", "output: an empty list"),
        ("seconds=0.2 queued=0", "unknown", "no answer said queued"),
    ],
)
def test_live_created_at(run: Callable[..., Told], emulator: Emulator, knobs: str, found: str, words: str) -> None:
    """What `created_at` and `output` are while queued is told; of what was never seen queued, nothing."""
    emulator.set_knobs(knobs)
    row = run("--live", "--json", endpoint=emulator.endpoint).rows[facts.CREATED_AT]
    assert (row[0], words in row[1]) == (found, True)


@pytest.mark.parametrize(
    ("knobs", "found", "words"),
    [
        ("late_completion=0", "no", "looked at once: 200 completed"),
        ("cancel_status=409", "refused", "409 conflict"),
        ("fault=500 on=cancel times=0", "unknown", "500"),
        ("fault=500 on=cancel times=0 performed=1", "yes", "200 cancelled"),
    ],
)
def test_live_cancel(run: Callable[..., Told], emulator: Emulator, knobs: str, found: str, words: str) -> None:
    """Whether a cancel is final is what the looks after it say; whatever it is, nothing is left."""
    emulator.set_knobs(f"seconds=0.5 {knobs}")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    row = told.rows[facts.CANCEL]
    assert (row[0], words in row[1]) == (found, True), row
    assert emulator.counters()["responses"] == 0


def test_live_a_job_that_ended_before_its_cancel(run: Callable[..., Told], emulator: Emulator) -> None:
    """A job that had ended before its cancel came tells nothing about cancels."""
    emulator.set_knobs("seconds=0")
    found, evidence = run("--live", "--json", endpoint=emulator.endpoint).rows[facts.CANCEL]
    assert (found, "it had ended before" in evidence) == ("unknown", True)


@pytest.mark.parametrize(
    ("code", "message", "found"),
    [
        ("unknown_parameter", "Unknown parameter: 'completion_window'.", "no"),
        ("invalid_value", "Invalid value: '24h'. Supported values are: '1h'.", "not this value"),
        (None, "Unrecognized request argument supplied: completion_window", "no"),
    ],
)
def test_live_completion_window(
    run: Callable[..., Told], gateway: Gateway, code: str | None, message: str, found: str
) -> None:
    """A refused `completion_window` is told from a refused value of it."""
    refusal = {"code": code, "message": message, "param": "completion_window"}
    gateway.refuse = lambda body: refusal if "completion_window" in body else None
    told = run("--live", "--json", endpoint=gateway.url)
    assert told.rows[facts.WINDOW][0] == found
    assert "400" in told.rows[facts.WINDOW][1]


def test_live_another_refusal_says_nothing_of_the_window(run: Callable[..., Told], gateway: Gateway) -> None:
    """A create that is refused for something else does not tell whether `completion_window` is known."""
    refusal = {"code": "odd", "message": "not today"}
    gateway.refuse = lambda body: refusal if "completion_window" in body else None
    assert run("--live", "--json", endpoint=gateway.url).rows[facts.WINDOW][0] == "unknown"


def test_live_idempotency(run: Callable[..., Told], gateway: Gateway, emulator: Emulator) -> None:
    """A service that honours the key answers the same create with the same response, which is told."""
    gateway.is_idempotent = True
    told = run("--live", "--json", endpoint=gateway.url)
    assert told.rows[facts.IDEMPOTENCY][0] == "yes"
    counters = emulator.counters()
    assert (counters["duplicates"], counters["responses"]) == ({}, 0)
    assert gateway.asked[0] == gateway.asked[1]


def test_live_stops_what_it_does_not_need(run: Callable[..., Told], gateway: Gateway) -> None:
    """A second response of the same create is stopped before anything else is asked."""
    run("--live", "--json", endpoint=gateway.url)
    posts = [request for request in gateway.requests if request.startswith("POST")]
    assert posts[:4] == ["POST response", "POST response", "POST cancel", "POST response"]


def test_live_goes_up_to_an_effort_that_is_taken(run: Callable[..., Told], gateway: Gateway) -> None:
    """The lowest effort that the deployment takes is found, and told."""
    refusal = {"code": "unsupported_value", "message": "no such effort", "param": "reasoning.effort"}
    gateway.refuse = lambda body: refusal if body["reasoning"]["effort"] in ("none", "minimal") else None
    told = run("--live", "--json", endpoint=gateway.url)
    assert "effort low" in told.json["about"]
    assert told.rows[facts.BACKGROUND][0] == "yes"
    assert [body["reasoning"]["effort"] for body in gateway.asked[:4]] == ["none", "minimal", "low", "low"]


@pytest.mark.parametrize(
    ("fault", "fix"), [("404-deployment", "the deployment's name, not the model's"), ("401", "AZURE_OPENAI_API_KEY")]
)
def test_live_without_a_deployment(run: Callable[..., Told], emulator: Emulator, fault: str, fix: str) -> None:
    """A deployment that refuses is a problem with its fix, and each row says why nothing was found out."""
    emulator.set_knobs(f"fault={fault} on=create times=0")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert (told.verdict("deployment"), fix in told.checks["deployment"]["fix"]) == ("problem", True)
    assert told.code == Exit.CONFIGURATION
    assert {found for found, _ in told.rows.values()} == {"unknown"}
    assert told.rows[facts.CANCEL][1].startswith(f"{MARK}no response was made: {fault[:3]}")
    assert emulator.counters()["creates"] == 1


def test_live_background_that_is_refused(run: Callable[..., Told], gateway: Gateway) -> None:
    """A create that is refused for `background` answers that question with no."""
    gateway.refuse = lambda _: {"code": "unsupported_parameter", "message": "no such thing", "param": "background"}
    told = run("--live", "--json", endpoint=gateway.url)
    assert told.rows[facts.BACKGROUND][0] == "no"
    assert told.verdict("deployment") == "problem"


def test_live_of_a_service_that_cannot_be_reached(run: Callable[..., Told]) -> None:
    """What cannot be reached is not asked, and each row says so."""
    told = run("--live", "--json", endpoint=f"http://{unlistened()}")
    assert {*told.rows.values()} == {("unknown", "not asked: the service cannot be reached")}
    assert told.err == ""
    assert told.code == Exit.CONFIGURATION


def test_live_of_an_answer_that_does_not_come(
    run: Callable[..., Told], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that does not come in time is unknown; what runs is cancelled and deleted."""
    monkeypatch.setattr(trial, "_TO_END", 0.1)
    emulator.set_knobs("outcome=never queued=0")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    found, evidence = told.rows[facts.ANSWER]
    assert (found, "in_progress" in evidence) == ("unknown", True)
    assert told.rows[facts.CANCEL][0] == "yes"
    assert emulator.counters()["responses"] == 0


@pytest.mark.parametrize(
    ("knobs", "found", "words"),
    [
        ("seconds=0.1 missing_first=3", "yes", "200 completed"),
        ("seconds=0.1 lost_after=1", "unknown", "look: 404 lost"),
        ("outcome=never fault=401 on=look times=0", "unknown", "look: 401 invalid_key"),
    ],
)
def test_live_of_a_response_that_is_not_found(
    run: Callable[..., Told],
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    knobs: str,
    found: str,
    words: str,
) -> None:
    """A response that is not found at first is waited for; one that stays lost, or is refused, is given up on."""
    monkeypatch.setattr(trial, "_GRACE", 0.5)
    monkeypatch.setattr(trial, "_TO_END", 3.0)
    emulator.set_knobs(knobs)
    row = run("--live", "--json", endpoint=emulator.endpoint).rows[facts.ANSWER]
    assert (row[0], words in row[1]) == (found, True), row
    assert emulator.counters()["looks"] < 50


def test_live_is_bounded(run: Callable[..., Told], emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time, whatever was not found out says so, and what was made is deleted."""
    monkeypatch.setattr(trial, "_WHOLE", 2.0)
    emulator.set_knobs("outcome=never queued=0")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert told.rows[facts.BACKGROUND][0] == "yes"
    assert told.rows[facts.ANSWER] == ("unknown", f"{MARK}not found out within 2 s")
    assert emulator.counters()["responses"] == 0


def test_live_of_a_service_that_hangs(
    run: Callable[..., Told], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request has a time-out, and one that was not answered is unknown."""
    monkeypatch.setattr(witness, "_TO_LOOK", 0.2)
    emulator.set_knobs("seconds=0.1 fault=hang on=cancel times=0")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert "cancel: no answer (connection_lost" in told.rows[facts.CANCEL][1]
    assert emulator.counters()["responses"] == 0


def test_live_says_what_may_be_left(run: Callable[..., Told], emulator: Emulator) -> None:
    """A create that got no answer may have made a response that nobody can reach, and this is told."""
    emulator.set_knobs("seconds=0.1 fault=reset-after on=create times=1")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert "1 create without an answer" in told.err
    assert told.verdict("deployment") == "unknown"


def test_live_deletes_until_it_is_done(run: Callable[..., Told], emulator: Emulator) -> None:
    """A delete that is refused at first is asked for again."""
    emulator.set_knobs("seconds=0.1 fault=409 on=delete times=6")
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert told.rows[facts.DELETE][0] == "unknown"
    assert emulator.counters()["responses"] == 0
    assert "could not be deleted" not in told.err


def test_live_names_what_it_could_not_delete(
    run: Callable[..., Told], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the service does not delete is named in the end, and stopped all the same."""
    monkeypatch.setattr(witness, "_TO_TIDY", 2.0)
    emulator.set_knobs("outcome=never queued=0 fault=409 on=delete times=0")
    monkeypatch.setattr(trial, "_TO_END", 0.1)
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert len(re.findall(r"resp_emulator_\w+ could not be deleted", told.err)) == trial.QUESTIONS
    assert emulator.counters()["cancels"] >= trial.QUESTIONS


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("knobs", ["outcome=never queued=0", "outcome=never fault=slow on=create times=0 slow=1"])
def test_live_interrupted(emulator: Emulator, tmp_path: Path, knobs: str) -> None:
    """Ctrl-C in the middle, even of a create, leaves nothing at the service, and exits with 130."""
    emulator.set_knobs(knobs)
    account = {"AZURE_OPENAI_ENDPOINT": emulator.endpoint, "AZURE_OPENAI_API_KEY": SECRET}
    command = [sys.executable, "-m", "o3pro_bg", "doctor", "--live", "--store", str(tmp_path / "jobs.db")]
    with subprocess.Popen(  # noqa: S603 - the command is ours
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **account}
    ) as process:
        until(lambda: emulator.counters()["accepted"])
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED
    assert "stopped: nothing was left at the service" in err
    counters = emulator.counters()
    assert (counters["responses"], counters["deletes"]) == (0, counters["accepted"])
    assert SECRET not in out + err


def test_live_says_where_no_client_could_be_made(
    run: Callable[..., Told], emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no client can be made, each row says why."""

    def fail(_: object) -> None:
        raise RuntimeError("no sockets today")

    monkeypatch.setattr(witness.Witness, "_make_http", fail)
    told = run("--live", "--json", endpoint=emulator.endpoint)
    assert {found for found, _ in told.rows.values()} == {"unknown"}
    assert "no sockets today" in told.rows[facts.CANCEL][1]
    assert told.verdict("deployment") == "unknown"


def test_a_cell_of_the_table_cannot_break_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A bar in what a service says is no end of a cell."""
    check = Check("deployment", Verdict.OK, "")
    report.put_report(report.Report("about", [facts.Row("a", "b", "c | d")], check))
    assert "c \\| d" in capsys.readouterr().out
