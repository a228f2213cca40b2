"""What is promised of the HTTP API: the specification's dictionaries, its codes, its bounds."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg._sqlite.store import SqliteStore
from o3pro_bg.testing import Event, Failure, FakeClient, FakeRemote, News, RemoteTrouble, Trouble
from o3pro_bg.web import lifespan
from tests.virtual import virtual
from tests.web import TOKEN, Site, site

if TYPE_CHECKING:
    from o3pro_bg import AsyncBackgroundHandler

FOREVER = float("inf")


def handler_of(page: Site) -> AsyncBackgroundHandler:
    """Answer the handler behind the application."""
    return page.desk._handler


@virtual
async def test_a_job_is_started_and_told_where_it_is() -> None:
    """POST answers 202, the dictionary of start_background_task, and in Location where to ask for the job."""
    async with site(FakeRemote(seconds=60)) as page:
        made = await page.http.post("/api/jobs", json={"question": "Why? なぜ", "effort": "high"})
        job_id = made.json()["job_id"]
        assert made.status_code == 202
        assert made.json() == {
            "success": True,
            "job_id": job_id,
            "status": "started",
            "question": "Why? なぜ",
            "effort": "high",
        }
        found = await page.http.get(made.request.url.join(made.headers["location"]))
        assert found.json() == await handler_of(page).check_status(job_id)


@virtual
async def test_every_answer_is_the_specifications_dictionary() -> None:
    """Status, result, cancel and removal answer what the verbs answer, from the start of a job to after its end."""
    async with site(FakeRemote(seconds=60)) as page:
        handler = handler_of(page)
        one, other = await page.start("one"), await page.start("other")
        assert await page.get(f"/api/jobs/{one}") == await handler.check_status(one)
        assert await page.get(f"/api/jobs/{one}/result", 409) == await handler.get_result(one)
        early = await page.http.delete(f"/api/jobs/{one}")
        assert (early.status_code, early.json()) == (409, await handler.remove_job(one))
        cancelled = await page.http.post(f"/api/jobs/{other}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
        assert cancelled.json().keys() == {"success", "job_id", "status", "question", "effort"}
        again = await page.http.post(f"/api/jobs/{other}/cancel")
        assert (again.status_code, again.json()) == (409, await handler.cancel_job(other))
        await handler.wait(one)
        assert await page.get(f"/api/jobs/{one}/result") == await handler.get_result(one)
        assert await page.get(f"/api/jobs/{other}/result") == await handler.get_result(other)
        listed = await page.get("/api/jobs")
        assert listed["jobs"] == [*reversed(await handler.list_active_jobs())]
        assert listed["total"] == 2
        removed = await page.http.delete(f"/api/jobs/{one}")
        assert (removed.status_code, removed.json()) == (200, {"success": True, "job_id": one, "status": "completed"})
        assert await handler.check_status(one) == await page.get(f"/api/jobs/{one}", 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/jobs/no-such-job"),
        ("DELETE", "/api/jobs/no-such-job"),
        ("GET", "/api/jobs/no-such-job/result"),
        ("POST", "/api/jobs/no-such-job/cancel"),
    ],
)
def test_an_unknown_job_is_answered_with_404(method: str, path: str) -> None:
    """Every verb answers 404, and exactly the specification's dictionary, for an id that there is not."""

    @virtual
    async def ask() -> None:
        async with site(settings={"language": "ja"}) as page:
            answer = await page.http.request(method, path)
            assert answer.status_code == 404
            assert answer.json() == {"success": False, "error": "ジョブが見つかりません: no-such-job"}

    ask()


@virtual
async def test_a_failed_job_is_a_result() -> None:
    """A job that failed answers 200, because the question for its result worked, with success false and why."""
    remote = FakeRemote()
    remote.script["create"] = [RemoteTrouble(Trouble.REFUSED, Failure("content_filter", "no"))]
    async with site(remote) as page:
        job_id = await page.start()
        await handler_of(page).wait(job_id)
        reply = await page.get(f"/api/jobs/{job_id}/result")
        assert (reply["success"], reply["status"]) == (False, "failed")
        assert reply["error"].startswith("API Error: ")


@virtual
async def test_details_are_told_where_they_are_asked_for() -> None:
    """With details=true a job and the list tell of times, ids, tokens and costs; the other keys stay the same."""
    async with site(FakeRemote(seconds=10)) as page:
        job_id = await page.start()
        await asyncio.sleep(2)
        early = (await page.get(f"/api/jobs/{job_id}", details="true"))["details"]
        assert early["response_id"] == "resp_fake_1"
        assert 0 < early["next_look"] < 30
        assert (early["tokens"], early["cost"]) == (None, None)
        await handler_of(page).wait(job_id)
        reply = await page.get(f"/api/jobs/{job_id}", details="true")
        details = reply.pop("details")
        assert reply == await handler_of(page).check_status(job_id)
        assert details["tokens"] == {"input": 10, "output": 100, "reasoning": 80, "cached": 0}
        assert details["cost"] == handler_of(page).job(job_id).cost
        assert details["cost"] > 0
        assert details["waiting"] == ""
        assert not details["cancel_requested"]
        assert (await page.get("/api/jobs", details="true"))["jobs"][0]["details"] == details


@virtual
async def test_options_timeout_key_and_priority_reach_the_service() -> None:
    """What is given beside the question is what start_background_task is given."""
    remote = FakeRemote(seconds=FOREVER)
    async with site(remote) as page:
        fields: Any = {"timeout": 5, "dedupe_key": "k", "priority": 3, "options": {"instructions": "Be brief."}}
        job_id = await page.start(**fields)
        assert await page.start("another", dedupe_key="k") == job_id
        await asyncio.sleep(1)
        [(_, request)] = remote.asked
        assert (request.timeout, request.dedupe_key, request.priority) == (5, "k", 3)
        assert request.options == {"instructions": "Be brief."}
        assert (await handler_of(page).wait(job_id))["status"] == "failed"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"\xff", 400, "JSON"),
        (b'{"question": NaN}', 400, "JSON"),
        (b"[" * 100_000, 400, "JSON"),
        (b"[]", 422, "object"),
        (b"{}", 422, "question has to be a text"),
        (b'{"question": 3}', 422, "question has to be a text"),
        (b'{"question": " "}', 422, "question is empty"),
        (b'{"question": "\\ud800"}', 422, "UTF-8"),
        (b'{"question": "q", "effort": "much"}', 422, "much"),
        (b'{"question": "q", "effort": null}', 422, "effort has to be a text"),
        (b'{"question": "q", "timeout": 0}', 422, "timeout"),
        (b'{"question": "q", "timeout": true}', 422, "timeout has to be a number"),
        (b'{"question": "q", "timeout": 1e999}', 422, "timeout has to be a number"),
        (b'{"question": "q", "priority": 1.5}', 422, "priority has to be a whole number"),
        (b'{"question": "q", "priority": true}', 422, "priority has to be a whole number"),
        (b'{"question": "q", "priority": 9999999}', 422, "priority"),
        (b'{"question": "q", "priority": 1' + b"0" * 400 + b"}", 422, "priority"),
        (b'{"question": "q", "priority": 1' + b"0" * 5000 + b"}", 400, "JSON"),
        (b'{"question": "q", "timeout": 1' + b"0" * 400 + b"}", 422, "timeout"),
        (b'{"question": "q", "dedupe_key": ""}', 422, "dedupe_key"),
        ('{"question": "q", "dedupe_key": "é"}'.encode(), 422, "ASCII"),
        (b'{"question": "q", "options": []}', 422, "options has to be an object"),
        (b'{"question": "q", "options": {"background": false}}', 422, "background"),
        (b'{"question": "q", "colour": "red"}', 422, "colour"),
        (b'{"question": "' + b"q" * 200_001 + b'"}', 422, "200000 characters"),
        (b'{"question": "' + b"q" * 4_000_001 + b'"}', 413, "4000000 bytes"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bad_input_is_refused_with_a_sentence(body: bytes, status: int, says: str) -> None:
    """What makes no sense is refused by its name, and no job exists afterwards."""

    @virtual
    async def ask() -> None:
        async with site() as page:
            answer = await page.http.post("/api/jobs", content=body, headers={"content-type": "application/json"})
            assert answer.status_code == status
            assert answer.json()["success"] is False
            assert says in answer.json()["error"]
            assert (await page.get("/api/jobs"))["total"] == 0

    ask()


@virtual
async def test_only_json_is_taken() -> None:
    """A body of another type is refused with 415: a form of another site can send no JSON."""
    async with site() as page:
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            answer = await page.http.post("/api/jobs", content=b'{"question": "q"}', headers={"content-type": kind})
            assert answer.status_code == 415


@virtual
async def test_a_body_is_not_read_further_than_the_bound() -> None:
    """A body without an end is refused as soon as it is too large."""
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 1000
            yield b" " * 1000

    async with site(max_body=10_000) as page:
        answer = await page.http.post("/api/jobs", content=endless(), headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert sent < 20_000


@virtual
async def test_jobs_under_way_are_bounded() -> None:
    """One job more than max_jobs is answered with 429; once one has ended, there is room again."""
    async with site(FakeRemote(seconds=60), max_jobs=2) as page:
        first = await page.start()
        await page.start()
        refused = await page.http.post("/api/jobs", json={"question": "Why?"})
        assert refused.status_code == 429
        assert "2 at the most" in refused.json()["error"]
        await page.http.post(f"/api/jobs/{first}/cancel")
        await page.start()


@virtual
async def test_lists_are_cut_filtered_and_searched() -> None:
    """The list is the newest first, in pages, by status, by text of the question, and by the beginning of an id."""
    async with site(FakeRemote(seconds=60)) as page:
        ids = [await page.start(f"Question {number} Ärger") for number in range(5)]
        await page.http.post(f"/api/jobs/{ids[0]}/cancel")

        async def found(**parameters: Any) -> list[int]:
            return [ids.index(job["job_id"]) for job in (await page.get("/api/jobs", **parameters))["jobs"]]

        assert await found() == [4, 3, 2, 1, 0]
        assert await found(limit=2, offset=1) == [3, 2]
        assert await found(status="cancelled") == [0]
        assert await found(q="3 äRG") == [3]
        assert await found(q=ids[2][:10]) == [2]
        assert (await page.get("/api/jobs", limit=2))["total"] == 5
        for pair in ("status=gone", "limit=0", "limit=1001", "offset=-1", "limit=x", "details=1", "q=1&q=2"):
            assert pair.partition("=")[0] in (await page.get(f"/api/jobs?{pair}", 422))["error"]


@virtual
async def test_a_list_shows_the_beginning_of_long_questions() -> None:
    """A list of long questions stays short: it shows their beginning; the job itself has all of it."""
    async with site() as page:
        job_id = await page.start("q" * 10_000)
        [row] = (await page.get("/api/jobs"))["jobs"]
        assert row["question"] == "q" * 300 + "…"
        assert (await page.get(f"/api/jobs/{job_id}"))["question"] == "q" * 10_000


@virtual
async def test_an_answer_that_no_encoding_has_is_told() -> None:
    """A lone surrogate in an answer is escaped: the rest of it is read as it is."""
    remote = FakeRemote()
    remote.script["look"] = [News(Event.ANSWERED, response_id="resp_fake_1", answer="so \ud800 なぜ")]
    async with site(remote) as page:
        job_id = await page.start()
        await handler_of(page).wait(job_id)
        answer = await page.http.get(f"/api/jobs/{job_id}/result")
        assert "なぜ".encode() in answer.content
        assert json.loads(answer.content)["response"] == "so \ud800 なぜ"


@virtual
async def test_a_client_that_is_not_ready_is_our_fault() -> None:
    """Where no job can be taken on the answer is 503, with what to mend; health says so too."""
    from o3pro_bg import O3ProConfig

    async with site(client=FakeClient(config=O3ProConfig())) as page:
        answer = await page.http.post("/api/jobs", json={"question": "Why?"})
        assert answer.status_code == 503
        assert "AZURE_OPENAI_ENDPOINT" in answer.json()["error"]
        assert (await page.http.get("/healthz")).status_code == 503


@virtual
async def test_while_the_server_ends_no_job_is_taken_on() -> None:
    """Once the server is told to end, a new job is answered with 503, and health says so; jobs can still be read."""
    async with site() as page:
        job_id = await page.start()
        page.desk.leaving.heard.set()
        assert (await page.http.post("/api/jobs", json={"question": "Why?"})).status_code == 503
        assert (await page.http.get("/healthz")).status_code == 503
        assert (await page.get(f"/api/jobs/{job_id}"))["success"]


@virtual
async def test_a_cancel_that_waits_is_answered_as_the_server_ends() -> None:
    """A cancel that the service does not confirm is answered at once when the server is told to end, and goes on."""
    remote = FakeRemote(seconds=FOREVER, latency=5)
    async with site(remote) as page:
        job_id = await page.start()
        await asyncio.sleep(10)
        cancel = asyncio.ensure_future(page.http.post(f"/api/jobs/{job_id}/cancel"))
        await asyncio.sleep(1)
        page.desk.leaving.heard.set()
        answer = await cancel
        assert answer.status_code == 409
        assert "not confirmed" in answer.json()["error"]
        assert (await handler_of(page).wait(job_id))["status"] == "cancelled"


@virtual
async def test_health_is_told_without_a_token_and_by_any_name() -> None:
    """Whoever balances load needs no token, and asks by whatever name."""
    async with site(auth=TOKEN, allowed_hosts=["jobs.example"], host="10.0.0.1", peer=("10.0.0.2", 1)) as page:
        assert await page.get("/healthz") == {"success": True}


@virtual
async def test_what_is_not_there_is_told_as_json() -> None:
    """Unknown addresses and methods are answered as everything is, with the methods that there are."""
    async with site() as page:
        assert (await page.get("/api/nothing", 404))["success"] is False
        answer = await page.http.put("/api/jobs", json={})
        assert (answer.status_code, answer.json()["success"]) == (405, False)
        assert "POST" in answer.headers["allow"]


@virtual
async def test_metrics_count_the_jobs() -> None:
    """Prometheus reads how many jobs there are by status, the tokens that they cost, and how many listen."""
    async with site(FakeRemote(seconds=10)) as page:
        done = await page.start()
        await handler_of(page).wait(done)
        await page.start()
        answer = await page.http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        lines = answer.text.splitlines()
        for line in (
            'o3pro_bg_jobs{status="completed"} 1.0',
            'o3pro_bg_jobs{status="started"} 1.0',
            'o3pro_bg_jobs{status="failed"} 0.0',
            'o3pro_bg_tokens{kind="output"} 100.0',
            "o3pro_bg_event_streams 0.0",
        ):
            assert line in lines


@virtual
async def test_without_prometheus_there_are_no_metrics() -> None:
    """Where prometheus-client is not installed, /metrics says how to have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "prometheus_client", None)
        async with site() as page:
            assert "pip install prometheus-client" in (await page.get("/metrics", 404))["error"]


@virtual
async def test_a_loop_has_one_lifespan_of_a_name() -> None:
    """A second lifespan of the same name is refused as it starts; one of another name is another handler."""
    async with site() as page:
        with pytest.raises(RuntimeError, match="another name"):
            async with lifespan(FakeClient())(None):
                pass
        async with site(settings={"name": "more"}, name="more") as more:
            await more.start()
            assert (await page.get("/api/jobs"))["total"] == 0
            assert (await more.get("/api/jobs"))["total"] == 1


async def test_the_next_server_goes_on_with_the_jobs(tmp_path: Any) -> None:
    """With a store, a job outlives its server: the next one lists it, and tells its answer, which was paid once."""
    client = FakeClient(FakeRemote(seconds=FOREVER, queued=0))
    path = tmp_path / "jobs.db"
    async with site(client=client, settings={"store": path}) as page:
        job_id = await page.start()
        while (await page.get(f"/api/jobs/{job_id}"))["status"] != "running":
            await asyncio.sleep(0.01)
    client.remote.seconds = 0
    async with site(client=client, settings={"store": SqliteStore(path)}) as page:
        assert (await handler_of(page).wait(job_id))["success"]
        assert (await page.get(f"/api/jobs/{job_id}/result"))["response"] == "fake answer of resp_fake_1"
    assert client.remote.counts["create"] == 1
