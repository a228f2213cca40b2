"""What is promised of the stream of events: nothing is missed, nothing keeps the server."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from o3pro_bg.testing import FakeRemote
from o3pro_bg.web import _feed
from o3pro_bg.web._leaving import Leaving
from tests.virtual import now, virtual
from tests.web import Events, site

FOREVER = float("inf")


@virtual
async def test_whatever_becomes_of_a_job_is_told() -> None:
    """A listener hears of a job's start, of each change, of its end, and of its removal."""
    async with site(FakeRemote(seconds=60)) as page:
        events = Events(page.app)
        await events.piece()
        job_id = await page.start()
        heard: list[str] = []
        while "completed" not in heard:
            heard += [data["status"] for kind, data in await events.next() if kind == "job"]
        assert [*dict.fromkeys(heard)] == ["started", "running", "completed"]
        await page.http.delete(f"/api/jobs/{job_id}")
        assert await events.next() == [("removed", {"job_id": job_id})]
        await events.leave()


@virtual
async def test_an_event_holds_the_row_of_the_list() -> None:
    """What an event tells of a job is what the list with details tells of it."""
    async with site(FakeRemote(seconds=FOREVER)) as page:
        events = Events(page.app)
        await events.piece()
        await page.start("q" * 1000)
        [(_, row)] = await events.next()
        [listed] = (await page.get("/api/jobs", details="true"))["jobs"]
        for each in (row, listed):
            del each["elapsed_time"], each["details"]["next_look"]
        assert row == listed
        await events.leave()


@virtual
async def test_who_listens_from_a_list_on_misses_nothing() -> None:
    """Between the list and the stream nothing falls: the stream begins at the list's last_event_id."""
    async with site(FakeRemote(seconds=FOREVER)) as page:
        before = await page.start()
        listed = await page.get("/api/jobs")
        between = await page.start()
        events = Events(page.app, f"after={listed['last_event_id']}")
        heard = {data["job_id"] for _, data in await events.next()}
        assert between in heard
        assert [job["job_id"] for job in listed["jobs"]] == [before]
        await events.leave()


@virtual
async def test_who_comes_back_goes_on_where_he_was() -> None:
    """With Last-Event-ID a stream goes on after that event, and it counts for more than the address's `after`."""
    async with site(FakeRemote(seconds=FOREVER)) as page:
        events = Events(page.app)
        await events.piece()
        await page.start()
        await events.next()
        await events.leave()
        missed = await page.start()
        again = Events(page.app, "after=nothing", {"last-event-id": events.last_id})
        assert missed in {data["job_id"] for kind, data in await again.next() if kind == "job"}
        await again.leave()


@pytest.mark.parametrize("event_id", ["0", "", "x-1", "-", "{series}-99", "{series}-x", "{series}-" + "9" * 30, "é-1"])
def test_who_may_have_missed_something_is_told_so(event_id: str) -> None:
    """Where it is not known what a listener has missed, he is told to list the jobs anew, and goes on from there."""

    @virtual
    async def listen() -> None:
        async with site(FakeRemote(seconds=FOREVER)) as page:
            series = (await page.get("/api/jobs"))["last_event_id"].partition("-")[0]
            events = Events(page.app, f"after={event_id.format(series=series)}")
            assert await events.next() == [("reset", {})]
            job_id = await page.start()
            assert [data["job_id"] for _, data in await events.next()] == [job_id]
            await events.leave()

    listen()


@virtual
async def test_events_that_are_not_kept_are_told_of_as_missed() -> None:
    """When more has changed than is kept, at once or little by little, a listener lists the jobs anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_feed, "_KEPT", 5)
        async with site(FakeRemote(seconds=FOREVER)) as page:
            after = (await page.get("/api/jobs"))["last_event_id"]
            for _ in range(6):
                await page.start()
            events = Events(page.app, f"after={after}")
            assert await events.next() == [("reset", {})]
            await events.leave()
            after = (await page.get("/api/jobs"))["last_event_id"]
            for _ in range(6):
                await page.start()
                page.desk.feed.position()
            events = Events(page.app, f"after={after}")
            assert await events.next() == [("reset", {})]
            await events.leave()


@virtual
async def test_silence_is_broken_every_quarter_of_a_minute() -> None:
    """Where nothing happens a line is sent every 15 seconds that says nothing, so that no proxy hangs up."""
    async with site() as page:
        events = Events(page.app)
        await events.piece()
        begun = now()
        assert await events.piece() == ":\n\n"
        assert now() - begun == pytest.approx(15, abs=0.5)
        await events.leave()


@pytest.mark.parametrize(("is_certain", "seconds"), [(True, 300), (False, 1.5)])
def test_a_stream_ends_by_itself(is_certain: bool, seconds: float) -> None:
    """A stream lives five minutes, and very shortly where nobody could tell it that the server ends."""

    @virtual
    async def listen() -> None:
        async with site() as page:
            page.desk.leaving.is_certain = is_certain
            begun = now()
            events = Events(page.app)
            while await events.piece() is not None:
                pass
            assert now() - begun == pytest.approx(seconds, abs=0.5)

    listen()


@virtual
async def test_a_stream_ends_as_the_server_does() -> None:
    """The moment that the server is told to end, every stream does, and new ones do not begin."""
    async with site() as page:
        streams = [Events(page.app) for _ in range(3)]
        for events in streams:
            await events.piece()
        begun = now()
        page.desk.leaving.heard.set()
        streams.append(Events(page.app))
        for events in streams:
            while await events.piece() is not None:
                pass
        assert now() - begun < 0.1


@virtual
async def test_nothing_is_looked_at_where_nobody_listens() -> None:
    """The records are looked through while somebody listens, once a tick however many do, and not after that."""
    async with site() as page:
        looks = 0
        records = page.desk.records

        def counted() -> Any:
            nonlocal looks
            looks += 1
            return records()

        page.desk.records = counted  # type: ignore[method-assign]
        streams = [Events(page.app) for _ in range(10)]
        for events in streams:
            await events.piece()
        looks = 0
        await asyncio.sleep(10)
        assert looks == pytest.approx(40, abs=2)
        for events in streams:
            await events.leave()
        await asyncio.sleep(1)
        looks = 0
        await asyncio.sleep(100)
        assert (looks, page.desk.feed.streams) == (0, 0)


@virtual
async def test_head_opens_no_stream() -> None:
    """HEAD is answered at once, as every other, and nobody listens then."""
    async with site() as page:
        answer = await page.http.head("/api/events")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert page.desk.feed.streams == 0


@virtual
async def test_streams_are_bounded() -> None:
    """One stream more than max_streams is answered with 503; when one has ended, there is room again."""
    async with site(max_streams=2) as page:
        streams = [Events(page.app) for _ in range(2)]
        for events in streams:
            await events.piece()
        assert "2 at the most" in (await page.get("/api/events", 503))["error"]
        await streams[0].leave()
        third = Events(page.app)
        assert "retry" in str(await third.piece())
        for events in (streams[1], third):
            await events.leave()


async def test_jobs_of_another_process_are_told(tmp_path: Any) -> None:
    """With a store, what another handler of its file does is heard here."""
    from o3pro_bg import AsyncBackgroundHandler
    from o3pro_bg.testing import FakeClient

    async with site(settings={"store": tmp_path / "jobs.db"}) as page:
        events = Events(page.app)
        await events.piece()
        async with AsyncBackgroundHandler(FakeClient(), store=tmp_path / "jobs.db") as other:
            job_id = (await other.start_background_task("Why?"))["job_id"]
            async with asyncio.timeout(30):
                assert [data["job_id"] for _, data in await events.next()] == [job_id]
        await events.leave()


async def test_a_signal_is_heard_before_the_server_handles_it() -> None:
    """A signal that the server handles sets `heard` first, and reaches the server's handler as it did before."""
    reached: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: reached.append(number))
    try:
        theirs = signal.getsignal(signal.SIGTERM)
        leaving = Leaving()
        leaving.listen()
        assert leaving.is_certain
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(leaving.heard.wait(), 30)
        assert reached == [signal.SIGTERM]
        leaving.stop()
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_signals_that_nobody_handles_are_left_alone() -> None:
    """Where the server does not handle a signal, it ends the process as it did before, and nothing is certain."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        leaving = Leaving()
        leaving.listen()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert not leaving.is_certain
        leaving.stop()
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_handler_that_came_later_stays() -> None:
    """What was set for a signal after us is not undone by us."""
    first = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        leaving = Leaving()
        leaving.listen()
        signal.signal(signal.SIGTERM, later := lambda *_: None)
        leaving.stop()
        assert signal.getsignal(signal.SIGTERM) is later
    finally:
        signal.signal(signal.SIGTERM, first)


async def test_on_another_thread_no_signals_are_heard() -> None:
    """A server that does not run on the main thread gets no signals: nothing is replaced, nothing is certain."""

    def listen() -> bool:
        async def main() -> bool:
            leaving = Leaving()
            leaving.listen()
            return leaving.is_certain

        return asyncio.run(main())

    before = signal.getsignal(signal.SIGINT)
    assert await asyncio.to_thread(listen) is False
    assert signal.getsignal(signal.SIGINT) is before
