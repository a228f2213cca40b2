"""What is promised of the page, without a browser: what the server writes, and that all of it works without scripts."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from string import Formatter
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import O3ProClient, O3ProConfig
from o3pro_bg._records import Failure, News
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import Event, JobStatus
from o3pro_bg.cli._words import _WAITS
from o3pro_bg.testing import FakeClient, FakeRemote
from o3pro_bg.web._markup import asset
from o3pro_bg.web._phrases import PHRASES
from tests.test_web_guard import check
from tests.virtual import virtual
from tests.web import TOKEN, Site, site
from tests.wire import CONFIG

if TYPE_CHECKING:
    import httpx2

    from o3pro_bg.emulator import Emulator

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>&amp;\"'\u202e\u2066$heading ${lang}\x00\r\n\ud800"


class Reader(HTMLParser):
    """Reads a page: its text, its elements, and the fields of each form by its name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [have for name, have in self.elements if name == tag and attributes.items() <= have.items()]


async def read(page: Site, address: str = "/", code: int = 200, **headers: str) -> Reader:
    """Answer what is read at an address, which is answered with this code."""
    answer = await page.http.get(address, headers={name.replace("_", "-"): text for name, text in headers.items()})
    assert answer.status_code == code, answer.text
    return Reader(answer.text)


async def post(page: Site, code: int, address: str = "/", **fields: str) -> httpx2.Response:
    """Send a form as a browser does, which is answered with this code."""
    answer = await page.http.post(address, data=fields)
    assert answer.status_code == code, answer.text
    return answer


def questions_of(reader: Reader) -> list[str]:
    """Answer the ids of the jobs that a page lists."""
    return [row["id"] for row in reader.all("tr") if row.get("id", "").startswith("job-")]


# --- the files ----------------------------------------------------------------------------------------------------


def test_the_page_is_small() -> None:
    """Its HTML, its style and its script are under 25,000 bytes together, as they are read."""
    assert sum(len(asset(name)) for name in ("page.html", "page.css", "page.js")) < 25_000


def test_the_script_makes_no_code_and_keeps_nothing() -> None:
    """The script neither runs texts nor writes them as HTML into the page, and stores nothing in the browser."""
    script = asset("page.js").decode()
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|Storage|cookie", script)


def test_style_and_script_are_served_to_everybody() -> None:
    """The login page has its style and its script too."""
    assert check(200, path="/page.css", auth=TOKEN).headers["content-type"].startswith("text/css")
    assert check(200, path="/page.js", auth=TOKEN).headers["content-type"].startswith("text/javascript")


# --- the phrases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", PHRASES["en"])
def test_every_phrase_has_the_same_blanks_in_both_languages(key: str) -> None:
    """What the page says is there in both languages, with the same blanks."""
    blanks = [{part[1] for part in Formatter().parse(PHRASES[language][key]) if part[1]} for language in PHRASES]
    assert blanks[0] == blanks[1]
    assert all(PHRASES[language][key] for language in PHRASES)


def test_every_status_and_every_reason_has_its_phrase() -> None:
    """No status, and no reason to wait, is told by a word of the code."""
    keys = {f"status.{status}" for status in JobStatus} | {f"waiting.{word}" for word in _WAITS}
    assert keys <= PHRASES["en"].keys()


@virtual
async def test_the_language_is_the_readers() -> None:
    """The page speaks the browser's language, or that of its address, which every link and form then names."""
    async with site() as page:
        assert "バックグラウンドジョブ" in (await read(page, accept_language="ja-JP,ja;q=0.9")).text
        assert "Background jobs" in (await read(page, accept_language="de")).text
        await page.start()
        reader = await read(page, "/?lang=ja", accept_language="en")
        assert reader.all("html", lang="ja")
        led = [link["href"] for link in reader.all("a") if link["href"].startswith("./")]
        led += [form["action"] for form in reader.all("form", method="post")]
        assert len(led) >= 5
        assert {"lang=en" in place or "lang=ja" in place for place in led} == {True}
        assert reader.all("input", type="hidden", name="lang", value="ja")


# --- a form -------------------------------------------------------------------------------------------------------


@virtual
async def test_a_form_starts_a_job() -> None:
    """Without scripts a form starts a job and leads to it: how it goes, and then its answer, are told there."""
    remote = FakeRemote(seconds=100)
    async with site(remote) as page:
        answer = await post(page, 303, action="start", question="Why?\r\nReally?", effort="high")
        place = answer.headers["location"].removeprefix(".")
        await asyncio.sleep(50)
        reader = await read(page, place)
        assert "Running" in reader.text
        assert "Cancel this job" in reader.text
        await asyncio.sleep(100)
        reader = await read(page, place)
        assert "fake answer of resp_fake_1" in reader.text
        assert "Remove this job" in reader.text
        (asked,) = [request for _, request in remote.asked]
        assert (asked.question, asked.effort) == ("Why?\nReally?", "high")


@virtual
async def test_a_form_that_is_sent_twice_starts_one_job() -> None:
    """A double click, or a reload, pays once; what was changed before it was sent again is another question."""
    remote = FakeRemote()
    async with site(remote) as page:
        (key,) = [field["value"] for field in (await read(page)).all("input", name="key")]
        form = {"action": "start", "question": "Why?", "effort": "low", "key": key}
        first, second = [(await post(page, 303, **form)).headers["location"] for _ in range(2)]
        assert first == second
        assert (await post(page, 303, **{**form, "question": "Why not?"})).headers["location"] != first
        assert (await post(page, 303, **{**form, "effort": "high"})).headers["location"] != first
        await asyncio.sleep(5)
        assert len(remote.asked) == 3
        assert [field["value"] for field in (await read(page)).all("input", name="key")] != [key]


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"question": "  "}, 422, "empty"),
        ({"question": "A question that is kept", "effort": "enormous"}, 422, "not one of"),
        ({"question": "A question that is kept" * 10}, 422, "too long"),
        ({"action": "explode"}, 422, "action"),
    ],
)
@virtual
async def test_a_form_that_is_refused_keeps_what_was_written(fields: dict[str, str], code: int, says: str) -> None:
    """A refusal is told on the page, above the form, in which the question still stands."""
    async with site(max_question=100) as page:
        reader = Reader((await post(page, code, **{"action": "start", "effort": "low", **fields})).text)
        assert reader.all("p", role="alert")
        assert says in reader.text
        assert fields.get("question", "").strip() in reader.text
        assert questions_of(reader) == []


@virtual
async def test_where_no_more_jobs_are_taken_the_page_says_so() -> None:
    """A bound that is reached is told by its status and its sentence, and a closed handler as no fault of who asks."""
    async with site(max_jobs=1) as page:
        await page.start()
        assert "too many jobs" in (await post(page, 429, action="start", question="Why?")).text
        page.desk.leaving.heard.set()
        assert "about to end" in (await post(page, 503, action="start", question="Why?")).text


@virtual
async def test_a_form_has_bounds() -> None:
    """A form of too many bytes, or of too many fields, is refused; one that is as long as a question may be is not."""
    async with site(max_body=10_000, max_question=3_000) as page:
        assert "too large" in Reader((await post(page, 413, action="start", question="x" * 40_000)).text).text
        await post(page, 413, **{f"field{number}": "x" for number in range(30)})
        await post(page, 303, action="start", question="あ" * 3_000)


@virtual
async def test_forms_cancel_and_remove() -> None:
    """Without scripts a job is cancelled, and then removed, by a form; what is no longer there is told as such."""
    async with site() as page:
        job_id = await page.start()
        await asyncio.sleep(5)
        place = f"/?job={job_id}&lang=en"
        assert "has not finished" in (await post(page, 409, place, action="remove", job=job_id)).text
        answer = await post(page, 303, place, action="cancel", job=job_id)
        assert "Cancelled" in (await read(page, answer.headers["location"][1:])).text
        assert "already ended" in (await post(page, 409, place, action="cancel", job=job_id)).text
        answer = await post(page, 303, place, action="remove", job=job_id)
        reader = await read(page, answer.headers["location"][1:])
        assert "was removed" in reader.text
        assert questions_of(reader) == []
        assert "No such job" in (await post(page, 404, place, action="remove", job=job_id)).text
        assert "No such job" in (await read(page, place, 404)).text


@pytest.mark.parametrize("spoken", ["ja", "en"])
@virtual
async def test_a_refusal_is_in_the_readers_language(spoken: str) -> None:
    """Why something did not work is told in the reader's language where it can be, and is marked with its own else."""
    async with site(settings={"language": spoken}) as page:
        assert "No such job: nope" in (await read(page, "/?job=nope&lang=en", 404)).text
        assert "ジョブが見つかりません: nope" in (await read(page, "/?job=nope&lang=ja", 404)).text
        assert "質問が空です" in (await post(page, 422, "/?lang=ja", action="start", question=" ")).text
        answer = await post(page, 422, "/?lang=en", action="start", question="Why?", effort="enormous")
        (message,) = Reader(answer.text).all("p", id="message")
        assert message["lang"] == spoken


def test_another_sites_form_is_refused() -> None:
    """A form of another site starts nothing."""
    check(403, "POST", "/", headers={"sec-fetch-site": "cross-site"})
    check(403, "POST", "/", headers={"origin": "https://evil.example"})


# --- a job --------------------------------------------------------------------------------------------------------


@virtual
async def test_a_job_tells_all_that_is_known_of_it() -> None:
    """A job's page tells its times, tokens and ids, and an estimate of its cost."""
    async with site() as page:
        job_id = await page.start("Why?", effort="medium")
        await asyncio.sleep(100)
        text = " ".join((await read(page, f"/?job={job_id}")).text.split())
        for known in ("Why?", "medium", "10 in, 100 out (80 to reason, 0 cached)", job_id, "resp_fake_1", "about $"):
            assert known in text


@pytest.mark.parametrize(("lang", "says"), [("en", "limits a minute"), ("ja", "上限")])
@virtual
async def test_a_job_that_waits_says_why(lang: str, says: str) -> None:
    """Why a job makes no progress is told in words of the reader's language."""
    remote = FakeRemote()
    remote.script["create"] = [RemoteTrouble(Trouble.THROTTLED, Failure("rate"), retry_after=500)]
    async with site(remote) as page:
        job_id = await page.start()
        await asyncio.sleep(5)
        assert says in (await read(page, f"/?job={job_id}&lang={lang}")).text


@pytest.mark.parametrize(("lang", "says"), [("en", "content filter stopped"), ("ja", "コンテンツフィルターが")])
@virtual
async def test_a_job_that_failed_says_why(lang: str, says: str) -> None:
    """Why a job failed is told in the reader's language, whatever that of the handler is."""
    remote = FakeRemote()
    remote.script["create"] = [News(Event.ERRORED, response_id="r", failure=Failure("content_filter"))]
    async with site(remote) as page:
        job_id = await page.start()
        await asyncio.sleep(5)
        reader = await read(page, f"/?job={job_id}&lang={lang}")
        assert says in reader.text
        assert not reader.all("button", id="copy")


@virtual
async def test_questions_and_answers_are_text() -> None:
    """Neither a question nor an answer becomes HTML, whatever it holds; what no encoding has is replaced."""
    remote = FakeRemote()
    remote.script["create"] = [News(Event.ANSWERED, response_id="r", answer=HOSTILE)]
    async with site(remote) as page:
        job_id = await page.start(HOSTILE[:-1])
        await asyncio.sleep(5)
        for address in ("/", f"/?job={job_id}", f"/?q={HOSTILE[:20]}", "/?job=%3Cscript%3E&lang=%22%3E&status=%3C"):
            answer = await page.http.get(address)
            reader = Reader(answer.content.decode("utf-8"))
            assert [script["src"] for script in reader.all("script")] == ["page.js"]
            assert not reader.all("img")
        assert HOSTILE[:50] in Reader((await page.http.get(f"/?job={job_id}")).text).text


def test_nothing_needs_the_policy_to_be_loosened() -> None:
    """The page has no inline script, no inline style, no handler in an attribute, and nothing from elsewhere."""
    answer = check(200, path="/")
    assert "'unsafe" not in answer.headers["content-security-policy"]
    for tag, attributes in Reader(answer.text).elements:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        assert not [name for name in ("src", "href", "action") if "//" in attributes.get(name, "")[:8]]


# --- the list -----------------------------------------------------------------------------------------------------


@virtual
async def test_the_list_is_filtered_searched_and_prolonged() -> None:
    """Jobs are found by status and by text; of many the newest are shown, and a link shows more of them."""
    async with site(FakeRemote(seconds=30)) as page:
        jobs = [await page.start(f"Question {number}") for number in range(60)]
        await asyncio.sleep(200)
        late = await page.start("A late one")
        assert questions_of(await read(page, "/?status=started")) == [f"job-{late}"]
        assert questions_of(await read(page, "/?q=question+59")) == [f"job-{jobs[59]}"]
        assert questions_of(await read(page, f"/?q={jobs[3]}")) == [f"job-{jobs[3]}"]
        assert "No job matches" in (await read(page, "/?q=nothing")).text
        reader = await read(page)
        assert len(questions_of(reader)) == 50
        assert questions_of(reader)[:2] == [f"job-{late}", f"job-{jobs[59]}"]
        (more,) = reader.all("a", id="more")
        assert len(questions_of(await read(page, more["href"][1:]))) == 61
        assert len(questions_of(await read(page, "/?status=nonsense&limit=-5"))) == 50


@virtual
async def test_of_very_many_jobs_the_page_shows_a_thousand() -> None:
    """However many are asked for, a thousand jobs are shown, and how the others are found is told."""
    async with site(max_jobs=2_000) as page:
        for _ in range(1_001):
            await page.start()
        reader = await read(page, "/?limit=99999")
        assert len(questions_of(reader)) == 1_000
        assert "1,000 of 1,001 Search to find older ones" in reader.text
        assert not reader.all("a", id="more")


@virtual
async def test_the_chart_says_in_words_what_it_shows() -> None:
    """The chart has a dot for each job, and tells who does not see it how many of each status took how long."""
    async with site(FakeRemote(seconds=30)) as page:
        assert "No job was started" in (await read(page)).text
        for _ in range(3):
            await page.start()
        await asyncio.sleep(60)
        job_id = await page.start()
        await page.http.post(f"/api/jobs/{job_id}/cancel")
        reader = await read(page)
        words = " ".join(reader.text.split())
        assert re.search(r"Completed 3 median 3\d\.\d s, longest 3\d\.\d s", words)
        assert re.search(r"Cancelled 1 \d\.\d s", words)
        assert len([dot for dot in reader.all("use") if "x" in dot]) == 4


# --- where it is, and who sees it ---------------------------------------------------------------------------------


@virtual
async def test_the_token_is_asked_for() -> None:
    """Who has no token gets a form for it, and a wrong one is told as such; the right one leads to the page."""
    async with site(auth=TOKEN) as page:
        await page.http.post("/api/jobs", headers={"authorization": f"Bearer {TOKEN}"}, json={"question": "A secret"})
        for address in ("/?lang=ja", "/login?lang=ja"):
            reader = await read(page, address, 401)
            assert reader.all("form", action="login?lang=ja", method="post")
            assert "サインイン" in reader.text
            assert "A secret" not in reader.text
        refused = Reader((await post(page, 401, "/login", token="a wrong token")).text)
        assert refused.all("p", role="alert")
        assert "not the token" in refused.text
        let_in = await post(page, 303, "/login?lang=ja", token=TOKEN)
        assert let_in.headers["location"] == "./?lang=ja"
        assert "A secret" in (await read(page)).text


async def test_the_emulators_mark_is_on_every_page(service: Emulator) -> None:
    """Where the emulator answers, every page says so, the one that asks for the token as well; elsewhere none does."""
    client = O3ProClient(O3ProConfig(endpoint=service.endpoint, api_key=service.api_key))
    arguments: Any = {"client": client, "settings": {"on_close": "detach"}}
    async with site(**arguments) as page:
        assert "EMULATOR" in (await read(page)).text
        assert "エミュレーター" in (await read(page, "/?job=nope&lang=ja", 404)).text
        assert "EMULATOR" in (await post(page, 422, action="start", question="")).text
    async with site(**arguments, auth=TOKEN) as page:
        assert "EMULATOR" in (await read(page, code=401)).text
    async with site(client=FakeClient(config=CONFIG)) as page:
        assert "EMULATOR" not in (await read(page)).text
