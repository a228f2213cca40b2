"""Nothing that is secret, and no text of a question or an answer, is ever told to anybody who did not ask for it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import traceback
import warnings
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from o3pro_bg import JobFailed, O3ProClient, O3ProConfig, O3ProError, Pace, SqliteStore
from tests.places import Place, Visit, hang, reset, self_signed, unlistened

from .faces import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path
    from types import TracebackType

    from tests.places import Behaviour

    Scene = Callable[["Stage"], object]

KEY = "canary-key-5f0c2a"
TOKEN = "canary-token-81be90"
PROMPT = 'Please tell me: where does the canary-prompt sing,\nand "why" – 何故?'
OPTION = "Answer as the canary-option in the coal mine does, in rhyme."
ANSWER = "The canary-answer is that it sings in the mine."
CANARIES = ("canary-key", "canary-token", "canary-prompt", "canary-option", "canary-answer", "canary-password", "何故")


class Stage(NamedTuple):
    """What a scene plays with."""

    driver: Driver
    place: Place
    told: Told

    def start(self, **options: Any) -> str:
        """Start a job that holds a canary in each of its texts, and keep what is answered about it."""
        asked = {"instructions": OPTION, "dedupe_key": "canary-prompt of a key", **options}
        reply = self.driver.do("start_background_task", PROMPT, "low", **asked)
        self.told.reply(reply)
        return str(reply.get("job_id"))

    def end(self, job_id: str) -> None:
        """Wait for the end of a job, in each way there is, and keep what is told."""
        self.told.reply(self.driver.do("wait", job_id, 20))
        self.tell(job_id)

    def tell(self, job_id: str) -> None:
        """Keep whatever can be read of a job without asking for its texts."""
        driver, told = self.driver, self.told
        for verb in ("check_status", "get_result"):
            told.reply(driver.do(verb, job_id))
        job = driver.handler.job(job_id)
        for verb, args in (("result", (0,)), ("cancel", ()), ("wait", (0,)), ("continuation_token", ())):
            told.raised(partial(driver.do, verb, *args, of=job), keep=verb == "continuation_token")
        handler = driver.handler
        for thing in (job, handler, handler.client, handler.client.config, handler.jobs, handler._store):
            told.add(repr(thing), str(thing), getattr(thing, "_repr_html_", str)())
        record = handler._store.get(job_id)
        told.add(*map(repr, (record, record.request, record.failure, job.usage, job.cost, job.waiting)))


class Told(logging.Handler):
    """Collects all that is emitted while it listens."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.parts: list[str] = []
        self.names: set[str] = set()

    def add(self, *parts: str) -> None:
        """Keep these texts."""
        self.parts += parts

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record of a log, with all that is in it."""
        self.names.add(record.name.partition(".")[0])
        self.add(record.getMessage(), repr(record.args))
        if record.exc_info is not None and record.exc_info[1] is not None:
            self.exception(record.exc_info[1])

    def reply(self, reply: dict[str, Any]) -> None:
        """Keep a reply, without what was asked for: the question that it repeats, and the answer."""
        self.add(repr({name: value for name, value in reply.items() if name not in ("question", "response")}))

    def raised(self, call: Callable[[], Any], *, keep: bool = False) -> None:
        """Keep what this call raises, or, if that is wanted, what it answers."""
        try:
            answer = call()
        except (O3ProError, TimeoutError, TypeError, ValueError) as exc:
            self.exception(exc)
        else:
            if keep:
                self.add(answer, base64.urlsafe_b64decode(answer.partition(":")[2]).decode())

    def exception(self, exc: BaseException) -> None:
        """Keep an exception, its chain, and the locals of all frames but the test's own."""
        links: list[BaseException | None] = [exc]
        while links:
            if (link := links.pop()) is None:
                continue
            self.add(str(link), repr(link), repr(vars(link) if not isinstance(link, JobFailed) else link.detail))
            self.add("".join(traceback.format_exception(link)))
            self._locals(link.__traceback__)
            links += [link.__cause__, link.__context__]

    def _locals(self, trace: TracebackType | None) -> None:
        while trace is not None:
            if "/tests/" not in trace.tb_frame.f_code.co_filename:
                self.add(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next

    def text(self) -> str:
        """Answer all of it."""
        return "\n".join(self.parts)


class QuietDriver(Driver):
    """A driver whose own tasks have no result: asyncio's debug mode shows what tasks come to."""

    def _resolve(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        box: list[Any] = []

        async def quiet() -> None:
            try:
                box.append(await coroutine)
            except (O3ProError, TimeoutError, TypeError, ValueError) as exc:
                box.append(exc)

        super()._resolve(quiet())
        if isinstance(box[0], Exception):
            raise box[0]
        return box[0]


class Credential:
    """A credential of Entra ID."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble = trouble

    def get_token(self, *_: str) -> Any:
        """Answer a token."""
        from azure.core.credentials import AccessToken

        if self.trouble is not None:
            raise self.trouble
        return AccessToken(TOKEN, 4_000_000_000)


def said(visit: Visit) -> str:
    """Answer all that came with a request, as a gateway that is too honest does."""
    return f"rejected {visit.body.decode()} of {visit.head.decode()}"


def echo(status: int, code: str = "") -> Behaviour:
    """Answer a gateway that throws the request back, as it is, as text, and escaped once more."""

    def behave(visit: Visit) -> None:
        texts = json.loads(visit.body or b"{}")
        asked = str(texts.get("input", "")) + str(texts.get("instructions", ""))
        key = TOKEN if TOKEN in visit.head.decode() else KEY
        message = {400: said(visit), 401: f"your key {key}: {asked}", 404: asked[10:]}.get(status, asked)
        visit.answer(status, {"error": {"code": code or key, "message": message, "innererror": {"message": asked}}})

    return behave


def service(*ends: dict[str, Any]) -> Behaviour:
    """Answer a service that takes a create, and answers looks with these, the last one again and again."""
    begun: dict[Place, list[dict[str, Any]]] = {}

    def behave(visit: Visit) -> None:
        left = begun.setdefault(visit.place, list(ends))
        if visit.head.startswith(b"GET"):
            visit.answer(200, {"id": "resp_1", **(left.pop(0) if len(left) > 1 else left[0])})
        elif visit.head.startswith(b"DELETE"):
            visit.answer(200, {"deleted": True})
        elif b"/cancel" in visit.head:
            left[:] = [{"status": "cancelled"}]
            visit.answer(200, {"id": "resp_1", "instructions": OPTION})
        else:
            visit.answer(200, {"id": "resp_1", "status": "queued", "input": PROMPT, "instructions": OPTION})

    return behave


OUTPUT = [{"type": "message", "content": [{"text": ANSWER}]}, {"type": "function_call", "arguments": ANSWER}]
COMPLETED = service({"status": "in_progress"}, {"status": "completed", "output": OUTPUT, "instructions": OPTION})
FAILED = service({"status": "failed", "error": {"code": "server_error", "message": f"no: {PROMPT}"}, "output": OUTPUT})
CUT = service({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": OUTPUT})
RUNNING = service({"status": "in_progress"})
STRANGE = service({"status": "in_progress"}, {"status": "thinking", "output": OUTPUT}, {"status": "cancelled"})


def to_the_end(stage: Stage) -> None:
    """Run a job to its end."""
    stage.end(stage.start())


def by_handle(stage: Stage) -> None:
    """Run a job by its handle, with callbacks that go wrong."""
    driver = stage.driver
    job = driver.do("submit", PROMPT, "low", instructions=OPTION)

    def then(_: object) -> None:
        raise RuntimeError("the callback's own")

    driver.do("add_done_callback", then, of=job)
    driver.do("wait", 20, of=job)
    stage.told.raised(lambda: driver.do("result", 20, of=job))
    stage.tell(job.id)


def cancelled(stage: Stage) -> None:
    """Cancel a job that is running."""
    job_id = stage.start()
    stage.driver.until(job_id, lambda status: status["status"] == "running")
    stage.told.reply(stage.driver.do("cancel_job", job_id))
    stage.tell(job_id)


def overdue(stage: Stage) -> None:
    """Run a job out of its time."""
    stage.end(stage.start(timeout=2))


def closed(stage: Stage) -> None:
    """Close the handler on a job that is running."""
    job_id = stage.start()
    stage.driver.until(job_id, lambda status: status["status"] == "running")
    stage.driver.do("aclose" if stage.driver.face == "async" else "close", 0.2)
    stage.told.reply(stage.driver.do("start_background_task", PROMPT))
    stage.told.raised(lambda: stage.driver.do("submit", PROMPT, instructions=OPTION))
    stage.tell(job_id)


def removed(stage: Stage) -> None:
    """Remove a job here and there, and ask for it afterwards."""
    job_id = stage.start()
    stage.end(job_id)
    stage.told.reply(stage.driver.do("remove_job", job_id, delete_remote=True))
    stage.told.reply(stage.driver.do("get_result", job_id))


def refused(stage: Stage) -> None:
    """Ask for what no service could take."""
    for options in ({"effort": "x"}, {"tools": {PROMPT}}, {"metadata": {PROMPT: 5}}, {"dedupe_key": f"{PROMPT}\0"}):
        asked: dict[str, Any] = {"effort": "low", **options}
        stage.told.reply(stage.driver.do("start_background_task", PROMPT, **asked))
        stage.told.raised(partial(stage.driver.do, "submit", PROMPT, instructions=OPTION, **asked))


SCENES: dict[str, tuple[Behaviour, Scene]] = {
    "completed": (COMPLETED, to_the_end),
    "completed, by its handle": (COMPLETED, by_handle),
    "removed": (COMPLETED, removed),
    "failed": (FAILED, to_the_end),
    "failed, by its handle": (FAILED, by_handle),
    "cut off": (CUT, to_the_end),
    "a strange status": (STRANGE, to_the_end),
    "cancelled": (service({"status": "in_progress"}), cancelled),
    "overdue": (RUNNING, overdue),
    "closed": (RUNNING, closed),
    "refused here": (RUNNING, refused),
    **{f"refused with {status}": (echo(status), to_the_end) for status in (400, 401, 403, 404, 409, 422, 500, 503)},
    "a bare quota": (echo(429, "insufficient_quota"), to_the_end),
    "redirected": (lambda visit: visit.answer(307, said(visit), "location: http://127.0.0.1:1/"), to_the_end),
    "a page": (lambda visit: visit.answer(200, said(visit)), to_the_end),
    "half of JSON": (lambda visit: visit.answer(200, json.dumps({"id": PROMPT})[:-3]), to_the_end),
    "no HTTP": (lambda visit: visit.say(said(visit).encode()), to_the_end),
    "silence": (hang, to_the_end),
    "a broken connection": (reset, to_the_end),
}


@pytest.fixture(params=[("sync", True), ("async", False)], ids=["sync, aiohttp", "async, httpx2"])
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The face, each with another way for requests, in asyncio's debug mode, which tells of every single callback."""
    face, has_aiohttp = request.param
    monkeypatch.setattr("o3pro_bg.client._has_aiohttp", lambda: has_aiohttp)
    monkeypatch.setattr("o3pro_bg._submission._CONNECT_PATIENCE", 0.1)
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    make = asyncio.BaseEventLoop.__init__

    def make_talkative(loop: asyncio.BaseEventLoop) -> None:
        make(loop)
        loop.slow_callback_duration = 0.0

    monkeypatch.setattr(asyncio.BaseEventLoop, "__init__", make_talkative)
    return str(face)


@contextmanager
def listening() -> Iterator[Told]:
    """Keep all that is logged by anybody, warned of, or printed."""
    told, printed, root = Told(), io.StringIO(), logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(told)
    try:
        with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield told
        told.add(printed.getvalue(), *[str(warning.message) for warning in caught])
    finally:
        root.removeHandler(told)
        root.setLevel(before)


def keeps_quiet(face: str, client: O3ProClient, place: Place, scene: Scene, **settings: Any) -> Told:
    """Play a scene, and check that no canary sang."""
    with listening() as told:
        pace = Pace(floor=0.01, ceiling=0.02)
        with QuietDriver(face, client, {"language": "en", "pace": pace, **settings}) as driver:
            scene(Stage(driver, place, told))
    text = told.text()
    for canary in CANARIES:
        assert canary not in text, text[max(text.index(canary) - 300, 0) : text.index(canary) + 100]
    assert len(text) > 500, "nobody listened"
    return told


def client_of(url: str, **changes: Any) -> O3ProClient:
    """Answer a client of whatever stands there."""
    settings = {"endpoint": url, "api_key": KEY, "create_timeout": 2, "look_timeout": 2, **changes}
    return O3ProClient(O3ProConfig(**settings))


AUTHS: dict[str, dict[str, Any]] = {
    "key": {},
    "bearer": {"auth": "bearer"},
    "entra": {"auth": "entra", "api_key": "", "credential": Credential()},
}


@pytest.mark.parametrize("name", SCENES)
def test_no_canary_sings(face: str, name: str) -> None:
    """Whatever becomes of a job, neither key nor text is in what is logged, raised, shown or answered."""
    behave, scene = SCENES[name]
    with Place(behave) as place:
        told = keeps_quiet(face, client_of(place.url), place, scene)
        assert name == "refused here" or PROMPT.partition(",")[0].encode() in place.received
    assert {"asyncio", "o3pro_bg"} <= told.names or name == "refused here"


@pytest.mark.parametrize("auth", AUTHS)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
def test_no_canary_sings_of_any_credential(face: str, auth: str, status: int) -> None:
    """A key, a bearer token and a token of Entra ID are told to the service alone, also where it throws them back."""
    with Place(COMPLETED if status == 200 else echo(status)) as place:
        keeps_quiet(face, client_of(place.url, **AUTHS[auth]), place, to_the_end)
        assert (TOKEN if auth == "entra" else KEY).encode() in place.received


@pytest.mark.parametrize("name", ["completed", "failed", "cut off", "closed", "removed", "refused with 400"])
@pytest.mark.parametrize("store_text", [True, False])
def test_no_canary_sings_of_a_file(face: str, name: str, store_text: bool, tmp_path: Path) -> None:
    """A store on disk tells nothing more."""
    behave, scene = SCENES[name]
    if name in ("failed", "cut off"):
        behave = service({"status": "failed", "error": {"code": "x", "message": PROMPT}, "output": OUTPUT})
    with Place(behave) as place:
        store = SqliteStore(tmp_path / "jobs.db", store_text=store_text)
        keeps_quiet(face, client_of(place.url), place, scene, store=store)


def test_no_canary_sings_where_nothing_can_be_written(face: str, tmp_path: Path) -> None:
    """A store that cannot be opened is told without what was to be written."""

    def start(stage: Stage) -> None:
        stage.told.reply(stage.driver.do("start_background_task", PROMPT, instructions=OPTION))

    with Place(RUNNING) as place, listening() as told:
        try:
            with QuietDriver(face, client_of(place.url), {"store": tmp_path}) as driver:
                start(Stage(driver, place, told))
                told.raised(lambda: driver.do("submit", PROMPT, instructions=OPTION))
        except O3ProError as exc:  # the synchronous face opens it at once
            told.exception(exc)
    assert "the job store" in told.text()
    assert not [canary for canary in CANARIES if canary in told.text()]


def test_no_canary_sings_without_a_way_there(face: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who listens, a certificate without a voucher, and a proxy with a password are told without secrets."""
    with Place(RUNNING, tls=self_signed(tmp_path)) as place:
        keeps_quiet(face, client_of(place.url), place, to_the_end)
        keeps_quiet(face, client_of(f"https://{unlistened()}"), place, to_the_end)
        for proxy in (
            "http://user:canary-password@{}",
            "foo://user:canary-password@{}",
            "http://u:canary-password@h:x",
        ):
            monkeypatch.setenv("HTTPS_PROXY", proxy.format(unlistened()))
            keeps_quiet(face, client_of("https://x.openai.azure.com"), place, to_the_end)


def test_no_canary_sings_where_no_token_is_had(face: str) -> None:
    """A credential that fails is told by its own first line, and its cause by nobody."""
    trouble = ValueError("no such tenant")
    trouble.__cause__ = RuntimeError(TOKEN)
    with Place(RUNNING) as place:
        client = client_of(place.url, auth="entra", api_key="", credential=Credential(trouble))
        told = keeps_quiet(face, client, place, to_the_end)
    assert "no such tenant" in told.text()


@pytest.mark.parametrize(
    "where", ["_life.Life._watch", "_lookout.Lookout.pause", "_submission.tokens_of", "_lanes._encoded"]
)
def test_no_canary_sings_of_our_own_faults(face: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of this library is told by its kind, not by what it held."""

    def explode(*_: object) -> None:
        raise ZeroDivisionError(PROMPT, KEY, ANSWER)

    monkeypatch.setattr(f"o3pro_bg.{where}", explode)
    with Place(RUNNING) as place:
        told = keeps_quiet(face, client_of(place.url), place, to_the_end)
    assert "ZeroDivisionError" in told.text()


def test_canaries_can_be_heard(face: str) -> None:
    """What listens here hears a canary that does sing: in a log, an exception and a frame."""
    songs: list[Scene] = [
        lambda _: logging.getLogger("httpx2").debug("sent %s", KEY),
        lambda stage: stage.told.raised(lambda: json.loads(PROMPT)),
        lambda stage: stage.told.reply({"success": False, "error": ANSWER}),
        lambda _: warnings.warn(TOKEN, stacklevel=1),
    ]
    for sing in songs:
        with Place(RUNNING) as place, pytest.raises(AssertionError, match="canary"):
            keeps_quiet(face, client_of(place.url), place, sing)
