"""Whatever is passed in, it is answered soon, with a sentence, and no other job is harmed."""

from __future__ import annotations

import base64
import json
import math
import re
import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import O3ProClient, O3ProConfig, O3ProError, Pace, Price, SqliteStore
from o3pro_bg.testing import FakeClient, FakeRemote

from .faces import FOREVER, Driver, fake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


Call = Callable[[Driver, str], Any]

PATIENCE = 30  # seconds: far more than anything here takes, and less than for ever
HUGE = "x" * 10_000_000
LONE = "\ud800"
NO_FLOAT = 10**400
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
ASKING = ("start_background_task", "submit")
BY_ID = ("check_status", "get_result", "cancel_job", "remove_job", "wait", "job")


def label(value: object) -> str:
    """Answer a short name of a value, the same in every process."""
    try:
        return ADDRESS.sub("", ascii(value))[:40] if value is not None else "None"
    except (ValueError, RecursionError):
        return "more than Python writes"


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    """The face under test."""
    return str(request.param)


@pytest.fixture
def driver(face: str) -> Iterator[Driver]:
    """A handler of this face, whose jobs go on until somebody ends them."""
    with Driver(face, fake(seconds=FOREVER), {"language": "en", "pace": Pace(floor=0.001, ceiling=0.002)}) as driver:
        yield driver


def bounded(call: Callable[[], Any]) -> Any:
    """Answer what this call answers or raises, which has to be soon."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except (O3ProError, TypeError, ValueError, LookupError, TimeoutError) as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert outcome, "it neither answered nor raised anything that is for users"
    return outcome[0]


def sentence_of(outcome: Any) -> str:
    """Answer what a user reads, which is one printable line of moderate length, and no confession of a bug."""
    said = str(outcome) if isinstance(outcome, Exception) else outcome["error"]
    assert isinstance(said, str)
    assert said.isprintable(), said[:500]
    assert 10 < len(said) < 800
    assert "internal" not in said.lower()
    return said


def refuses(driver: Driver, call: Call, words: str) -> None:
    """Check that this call is refused with these words, while a job is under way, which comes to its end."""
    driver.handler.client.remote.seconds = FOREVER
    bystander = driver.start("a job under way")
    driver.until(bystander, lambda status: status["status"] == "running")
    assert words in sentence_of(bounded(lambda: call(driver, bystander)))
    comes_to_its_end(driver, bystander)


def comes_to_its_end(driver: Driver, job_id: str) -> None:
    """Check that this job, and one that is started now, are completed once the service is done."""
    driver.handler.client.remote.seconds = 0.0
    for each in (job_id, driver.start("one more job")):
        assert bounded(partial(driver.do, "wait", each, PATIENCE))["success"]


def _of_another(call: Call, other: Driver, *_: object) -> Any:
    return call(other, "")


def asked(verb: str, *args: Any, **kwargs: Any) -> Call:
    """Answer the call of a verb, or of whatever else a handler has."""
    return lambda driver, _: driver.do(verb, *args, **kwargs)


def nested(depth: int) -> list[Any]:
    """Answer a list in a list in a list."""
    outer: list[Any] = []
    for _ in range(depth):
        outer = [outer]
    return outer


def circle() -> list[Any]:
    """Answer a list that holds itself."""
    circle: list[Any] = []
    circle.append(circle)
    return circle


# --- what is asked --------------------------------------------------------------------------------------------

NO_REASONING: list[Any] = ["high", None, [], {"effort": "high"}]
NO_METADATA: list[Any] = [None, [], {1: "a"}, {"a": 1}, {"k": HUGE}, {HUGE: "v"}]
NO_JSON: list[Any] = [{1}, object(), b"t", math.nan, -math.inf, LONE, [HUGE, LONE]]
NO_JSON += [10**5000, nested(990), nested(100_000), circle(), {(1, 2): 3}, {LONE: 1}]
ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    *[({"question": bad}, "question has to be str") for bad in (None, 5, b"q", ["q"], math.nan)],
    *[({"question": bad}, "is empty") for bad in ("", " \n\t\u3000")],
    *[({"question": bad}, "UTF-8") for bad in (LONE, f"{HUGE}{LONE}")],
    *[({"effort": bad}, "effort has to be str") for bad in (None, 5, True, b"low")],
    *[({"effort": bad}, "low, medium, high") for bad in ("", "HIGH", "a\0b", "a\nb", LONE, HUGE)],
    *[({"timeout": bad}, "timeout takes") for bad in (0, -1, math.nan, math.inf, True, False, "5", NO_FLOAT, [5])],
    *[({"dedupe_key": bad}, "dedupe_key has to be str") for bad in (5, True, b"k")],
    *[({"dedupe_key": bad}, "dedupe_key takes") for bad in ("", "a\nb", "a\0b", "k" * 513, HUGE, LONE)],
    *[({"priority": bad}, "priority has to be int") for bad in (None, True, 1.0, math.nan, "1")],
    *[({"priority": bad}, "priority takes") for bad in (10**7, -(10**7), NO_FLOAT, 10**5000)],
    *[({name: True}, name) for name in ("background", "store", "stream", "stream_options", "input", "model")],
    *[({"reasoning": bad}, "reasoning takes") for bad in NO_REASONING],
    *[({"metadata": bad}, "metadata takes") for bad in NO_METADATA],
    *[({"tools": bad}, "JSON") for bad in NO_JSON],
    ({"a\nb" + LONE: 1}, "JSON"),
]


@pytest.mark.parametrize("verb", ASKING)
@pytest.mark.parametrize(("arguments", "words"), ARGUMENTS, ids=label)
def test_what_cannot_be_asked(driver: Driver, verb: str, arguments: dict[str, Any], words: str) -> None:
    """What no service could take is refused by name."""
    refuses(driver, asked(verb, **{"question": "q", **arguments}), words)


ODD: list[dict[str, Any]] = [
    {"question": "a\0b"},
    {"question": "\x1b[31m\x7f\u2028\ufffe"},
    {"question": HUGE},
    {"question": "深い" * 1_000_000},
    {"instructions": HUGE},
    {"tools": [HUGE]},
    {"a\nb\0": "\0"},
    {"tools": nested(100)},
    *[{"max_output_tokens": odd} for odd in (-1, -(10**9), 0, True, 10**20, NO_FLOAT, "many", 1.5, None, [10])],
]


@pytest.mark.parametrize("store", ["memory", "file"])
@pytest.mark.parametrize("arguments", ODD, ids=label)
def test_odd_things_that_can_be_asked(face: str, store: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    """What is odd, but could be sent, is sent, and holds up no other job."""
    settings = {"language": "en", **({"store": tmp_path / "jobs.db", "on_close": "cancel"} if store == "file" else {})}
    with Driver(face, fake(seconds=FOREVER), settings) as driver:
        bystander, odd = driver.start("a job under way"), driver.start(**arguments)
        comes_to_its_end(driver, bystander)
        result = bounded(lambda: driver.do("wait", odd, PATIENCE))
        assert result["success"]
        assert result["question"] == arguments.get("question", "q")


# --- which job ------------------------------------------------------------------------------------------------

NO_IDS: list[Any] = [
    None,
    5,
    b"id",
    math.nan,
    True,
    "",
    "nope",
    "a\nb",
    "a\0b",
    "\x1b[31m",
    LONE,
    HUGE,
    "質問",
    ("a", HUGE),
]


@pytest.mark.parametrize("verb", BY_ID)
@pytest.mark.parametrize("job_id", NO_IDS, ids=label)
def test_ids_of_no_job(driver: Driver, verb: str, job_id: Any) -> None:
    """Whatever is no job's id is the id of no job, in one line."""
    refuses(driver, asked(verb, job_id), "o such job: ")


@pytest.mark.parametrize("verb", BY_ID)
def test_ids_that_cannot_be_looked_up(driver: Driver, verb: str) -> None:
    """What cannot be looked up at all is a TypeError, as with any mapping."""
    refuses(driver, asked(verb, ["id"]), "unhashable")


@pytest.mark.parametrize("verb", BY_ID)
def test_ids_and_handles_of_another_handler(driver: Driver, face: str, verb: str) -> None:
    """A job of another handler is none of this one's, and goes on there."""
    with Driver(face, fake(seconds=FOREVER), {"language": "en"}) as other:
        theirs = other.start("theirs")
        refuses(driver, asked(verb, theirs), "o such job: ")
        refuses(driver, asked(verb, other.handler.job(theirs)), "o such job: ")
        comes_to_its_end(other, theirs)


@pytest.mark.parametrize("job_id", NO_IDS[:-1], ids=label)
def test_ids_of_no_job_in_the_mapping(driver: Driver, job_id: Any) -> None:
    """The mapping has no such key, and says so as any mapping does."""
    bystander = driver.start("a job under way")
    for access in ("__getitem__", "__delitem__"):
        assert isinstance(bounded(partial(getattr(driver.handler.jobs, access), job_id)), KeyError)
    comes_to_its_end(driver, bystander)


@pytest.mark.parametrize(
    ("job_ids", "words"),
    [("id", "not one id"), (b"id", "not one id"), (5, "iterable"), ([["id"]], "unhashable"), (math.nan, "iterable")],
)
@pytest.mark.parametrize("verb", ["wait_all", "completed"])
def test_what_is_no_collection_of_ids(driver: Driver, verb: str, job_ids: Any, words: str) -> None:
    """What is no collection of ids is a TypeError."""
    call = (lambda driver, _: driver.completed(job_ids)) if verb == "completed" else asked(verb, job_ids)
    refuses(driver, call, words)


# --- how long -------------------------------------------------------------------------------------------------

WAITING: dict[str, Callable[[Driver, str, Any], Any]] = {
    "wait": lambda driver, job_id, timeout: driver.do("wait", job_id, timeout),
    "wait_all": lambda driver, _, timeout: driver.do("wait_all", timeout=timeout),
    "as_completed": lambda driver, _, timeout: driver.completed(timeout=timeout),
    "Job.wait": lambda driver, job_id, timeout: driver.do("wait", timeout, of=driver.handler.job(job_id)),
    "Job.result": lambda driver, job_id, timeout: driver.do("result", timeout, of=driver.handler.job(job_id)),
}


@pytest.mark.parametrize("verb", WAITING)
@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, -math.inf, NO_FLOAT, "5", True, [5], b"5"], ids=label)
def test_times_that_nobody_can_wait(driver: Driver, verb: str, timeout: Any) -> None:
    """What is no time, 0 or more, is refused before anybody waits."""
    refuses(driver, lambda driver, job_id: WAITING[verb](driver, job_id, timeout), "timeout takes a number of seconds")


@pytest.mark.parametrize("verb", WAITING)
@pytest.mark.parametrize("timeout", [0, 1e-300, 0.01])
def test_times_that_are_soon_over(driver: Driver, verb: str, timeout: Any) -> None:
    """A time that is over at once ends in a TimeoutError that says that the job goes on."""
    refuses(driver, lambda driver, job_id: WAITING[verb](driver, job_id, timeout), "not ended")


@pytest.mark.parametrize("verb", WAITING)
@pytest.mark.parametrize("timeout", [1e300, math.inf, 10**300])
def test_times_without_an_end(driver: Driver, verb: str, timeout: Any) -> None:
    """A time longer than any job is no trouble."""
    job_id = driver.start()
    driver.handler.client.remote.seconds = 0.0
    assert not isinstance(bounded(lambda: WAITING[verb](driver, job_id, timeout)), Exception)


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, None, "5", True, NO_FLOAT, [5]], ids=label)
def test_times_in_which_nothing_can_be_closed(driver: Driver, timeout: Any) -> None:
    """What is no finite time closes nothing."""
    verb = "aclose" if driver.face == "async" else "close"
    refuses(driver, asked(verb, timeout), "timeout has to be a finite number of seconds")


@pytest.mark.parametrize("timeout", [0, 1e-300, 1e10, 1e300])
def test_times_in_which_everything_can_be_closed(driver: Driver, timeout: float) -> None:
    """Any finite time closes the handler, however long it is, once there is nothing to wait for."""
    job_id = driver.start()
    assert bounded(lambda: driver.do("aclose" if driver.face == "async" else "close", timeout)) is None
    assert driver.do("check_status", job_id)["status"] in ("cancelled", "failed")


# --- responses and tokens ---------------------------------------------------------------------------------------

FACTS = {"job_id": "job-1", "response_id": "resp_1", "effort": "high", "deployment": "o3-pro", "created_at": 1.7e9}


def token(**facts: Any) -> str:
    """Answer a token with some facts changed."""
    return "o3pro-bg-1:" + base64.urlsafe_b64encode(json.dumps({**FACTS, **facts}).encode()).decode()


DAMAGED = [
    "o3pro-bg-1:",
    "o3pro-bg-1:%%%",
    "o3pro-bg-1:" + HUGE,
    token()[:-3],
    token() + "\n",
    token(extra=1),
    *[token(response_id=bad) for bad in ("", "..", ".", "../../deployments", "a b", "a\nb", "x" * 600, 5, None, LONE)],
    *[token(job_id=bad) for bad in ("", "a\nb", "a\0b", "x" * 600, 5, LONE)],
    *[token(effort=bad) for bad in ("a\nb", "x" * 600, 5)],
    *[token(deployment=bad) for bad in ("a\nb", "x" * 600, None)],
    *[token(created_at=bad) for bad in (-1, math.nan, math.inf, "now", NO_FLOAT, True, None)],
    "o3pro-bg-1:" + base64.urlsafe_b64encode(b"[" * 100_000).decode(),
]


@pytest.mark.parametrize(
    ("response", "words"),
    [
        *[(bad, "have to be texts") for bad in (None, 5, b"resp_1", True, math.nan)],
        *[(bad, "attach takes") for bad in ("", " ", "a b", ".", "..", "../x", "a\nb", "a\0b", LONE, HUGE, "x" * 513)],
        *[(f"o3pro-bg-{version}:abc", "another version") for version in ("0", "2", "", HUGE)],
        (token(deployment="theirs"), "'theirs'"),
        *[(bad, "damaged") for bad in DAMAGED],
    ],
    ids=label,
)
def test_what_cannot_be_attached_to(driver: Driver, response: Any, words: str) -> None:
    """What is neither a response's id nor a token of this version and deployment is refused, and nothing is asked."""
    refuses(driver, asked("attach", response), words)


@pytest.mark.parametrize("arguments", [{"question": None}, {"question": b"q"}, {"effort": 5}, {"effort": None}])
def test_what_an_attached_job_cannot_be_called(driver: Driver, arguments: dict[str, Any]) -> None:
    """What is shown as question and effort of an attached job has to be text."""
    refuses(driver, asked("attach", "resp_1", **arguments), "have to be texts")


# --- callbacks --------------------------------------------------------------------------------------------------


async def _no_callback(_: object) -> None: ...


@pytest.mark.parametrize("callback", [5, "f", [len], math.nan])
def test_what_cannot_be_called_back(driver: Driver, face: str, callback: Any) -> None:
    """What cannot be called is refused at once, and not when the job has ended."""
    words = "a callback has to be a function of one job"
    refuses(driver, lambda driver, job_id: driver.handler.job(job_id).add_done_callback(callback), words)
    refuses(driver, lambda *_: Driver(face, fake(), {"on_done": callback}), words)


def test_a_coroutine_function_as_on_done(driver: Driver) -> None:
    """The synchronous face, which could not await it, takes no coroutine function."""
    refuses(driver, lambda *_: Driver("sync", fake(), {"on_done": _no_callback}), "use AsyncBackgroundHandler")


# --- settings -----------------------------------------------------------------------------------------------------

SETTINGS: list[tuple[str, list[Any]]] = [
    ("language", [None, "de", "EN", 5, [], b"en"]),
    ("timeout", [0, -1, math.nan, math.inf, True, "5", NO_FLOAT, timedelta(1)]),
    ("max_concurrency", [0, -1, 1.0, math.nan, True, "2", NO_FLOAT, [2]]),
    ("max_in_flight", [0, -1, 64.0, math.inf, None, True, "2", NO_FLOAT]),
    ("pace", [None, 5, 2.5, "slow", {}, Pace]),
    ("store", [5, b"jobs.db", [], SqliteStore, "", ":memory:", "sqlite:///x", "a\0b", LONE, "~nobody-of-this-name/x"]),
    ("retain", [0, -1, 2.5, math.nan, True, "100", timedelta(0), timedelta(-1), NO_FLOAT]),
    ("delete_remote", [None, "no", 0, 1, []]),
    ("on_close", [None, "kill", 5, [], True]),
    ("resubmit_uncertain", [None, "no", 0, 1, []]),
    ("lost_after", [None, 0, -1, math.nan, math.inf, True, "30"]),
    ("prices", [None, [], "o3-pro", {"a": 1}, {1: Price(1, 2)}, {"a": (20, 80)}]),
    ("retian", [5]),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in SETTINGS for value in values],
    ids=label,
)
def test_settings_that_are_none(driver: Driver, face: str, name: str, value: Any) -> None:
    """A setting that makes no sense is refused by its name when the handler is made."""
    refuses(driver, lambda *_: Driver(face, fake(), {name: value}), name)


PARTS: list[tuple[Callable[..., object], str, list[Any], str]] = [
    (Pace, "floor", [-1, 0, math.nan, math.inf, "2", None, True, 99], "Pace takes"),
    (Pace, "factor", [-1, NO_FLOAT, "2", None], "Pace takes"),
    (Pace, "jitter", [-1, 1, math.nan, []], "Pace takes"),
    (Pace, "learns", [None, "no", 1], "Pace takes"),
    (partial(Price, output=1), "input", [-1, math.nan, math.inf, "2", None, True], "Price takes"),
    (partial(Price, 1, 1), "cached_input", [-1, math.nan, NO_FLOAT, "2", False], "Price takes"),
    (partial(SqliteStore, "x"), "lease", [0, -1, 0.01, math.nan, "3", None, True], "lease="),
    (partial(SqliteStore, "x"), "store_text", [None, "no", 0], "store_text="),
    (SqliteStore, "path", [None, 5, []], "PathLike"),
    (SqliteStore, "path", ["", LONE, "a\0b", "~nobody-of-this-name"], "path"),
    (O3ProClient, "config", [5, {}, "https://x", O3ProConfig], "O3ProConfig"),
    (O3ProClient, "http_client", [5, "x", []], "http_client"),
]


@pytest.mark.parametrize(
    ("make", "name", "value", "words"),
    [(make, name, value, words) for make, name, values, words in PARTS for value in values],
    ids=label,
)
def test_parts_that_cannot_be_made(
    driver: Driver, make: Callable[..., object], name: str, value: Any, words: str
) -> None:
    """A part that makes no sense is refused when it is made."""
    refuses(driver, lambda *_: make(**{name: value}), words)


@pytest.mark.parametrize("client", [None, 5, O3ProConfig(), O3ProClient, FakeClient, FakeRemote(), sqlite3], ids=label)
def test_what_is_no_client(driver: Driver, face: str, client: Any) -> None:
    """What is no client is refused, and what is one is named."""
    refuses(driver, lambda *_: Driver(face, client, {}), "client has to be an O3ProClient")


@pytest.mark.parametrize("where", ["/", "/proc/nowhere/jobs.db", "/dev/null", "x" * 256, "\udcff\x1b\n"])
def test_stores_where_no_file_can_be(driver: Driver, face: str, where: str, tmp_path: Path) -> None:
    """A place where no file can be is told by the first who needs the store, with what to do."""

    def start(*_: object) -> Any:
        with Driver(face, fake(), {"store": str(tmp_path / where), "language": "en"}) as other:
            return other.do("submit", "q")

    if where.startswith("\udcff"):  # an odd name, but one
        assert not isinstance(bounded(start), Exception)
    else:
        refuses(driver, start, "the job store")


# --- configurations -----------------------------------------------------------------------------------------------

URLS = [
    *(5, b"https://x", True, "x.openai.azure.com", "ftp://x", "http://x.openai.azure.com", "http://127.0.0.1.evil.com"),
    *("https://", "https://user:pw@x", "https://x:port", "https://x:99999", "https://x?key=1", "https://x#a"),
    *("https://x\r\nHost: evil", "https://x\0", "https://[x", f"https://{LONE}", "http://localhost@evil.com"),
    *("http://localhost\\@evil.com", "http://0x7f.1", "http://2130706433", "http://0.0.0.0", "file:///etc/passwd"),
]
CONFIGS: list[tuple[str, list[Any], str]] = [
    ("endpoint", URLS, "endpoint"),
    ("base_url", URLS, "endpoint"),
    ("api_key", [5, b"key", True, "a b", "a\nb", "a\0b", "ключ", LONE], "key"),
    ("deployment", [5, b"o3", True, "a\nb", "a\0b", LONE], "deployment"),
    ("api_version", [5, b"v1", True, "a\nb", LONE], "api_version"),
    ("scope", [None, 5, b"s", "", "a\nb", LONE], "scope"),
    ("auth", [None, 5, [], "KEY", "basic"], "auth"),
    ("efforts", [None, 5, [], "", b"low", ("low", 5), [""], ["a\nb"]], "efforts"),
    ("reasoning", [None, 5, [], "pro", {"effort": "low"}], "reasoning"),
    ("create_timeout", [None, 0, -1, math.nan, math.inf, NO_FLOAT, "60", True], "create_timeout"),
    ("look_timeout", [None, 0, -1, math.nan, math.inf, NO_FLOAT, "30", True], "look_timeout"),
    ("background", [None, "no", 0, 1], "background"),
    ("tag_jobs", [None, "no", 0, 1], "tag_jobs"),
    ("credential", [5, "token", object(), []], "credential"),
]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [(name, value, words) for name, values, words in CONFIGS for value in values],
    ids=label,
)
def test_configurations_that_are_not_ready(driver: Driver, face: str, name: str, value: Any, words: str) -> None:
    """A configuration that makes no sense makes a client that is not ready, and every verb that needs it says why."""
    good = {"endpoint": "https://x.openai.azure.com", "api_key": "a-key"}
    if name == "base_url":
        good.pop("endpoint")
    client = O3ProClient(O3ProConfig(**{**good, name: value}))
    assert not client.is_ready()
    with Driver(face, client, {"language": "en"}) as other:
        for call in (asked("start_background_task", "q"), asked("submit", "q"), asked("attach", "resp_1")):
            refuses(driver, partial(_of_another, call, other), words)
        assert other.do("list_active_jobs") == []


# --- closed handlers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [asked("start_background_task", "q"), asked("submit", "q"), asked("attach", "resp_1"), asked("attach", token())],
)
def test_closed_handlers_take_nothing_on(driver: Driver, face: str, call: Call) -> None:
    """A closed handler says that it is closed, and what to do."""
    other = Driver(face, fake(), {"language": "en"})
    other.tear_down() if face == "sync" else other.close()
    refuses(driver, lambda *_: call(other, ""), "make a new one")
    if face == "async":
        other.tear_down()


@pytest.mark.parametrize("verb", [*BY_ID, "list_active_jobs", "clear_finished", "wait_all"])
def test_closed_handlers_answer(driver: Driver, face: str, verb: str) -> None:
    """A closed handler answers what it knows, at once, from every verb."""
    bystander = driver.start("a job under way")
    with Driver(face, fake(seconds=FOREVER), {"language": "en"}) as other:
        job_id = other.start("q")
        other.close()
        answer = bounded(lambda: other.do(verb, *[job_id] * (verb in BY_ID)))
        assert not isinstance(answer, Exception)
    comes_to_its_end(driver, bystander)
