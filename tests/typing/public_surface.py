"""The types that users see. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, assert_type

from o3pro_bg import AsyncBackgroundHandler, AsyncJob, BackgroundHandler, Job, O3ProClient, O3ProConfig, Pace, Usage
from o3pro_bg._replies import CancelReply, ListedJob, ResultReply, StartReply, StatusReply
from o3pro_bg.testing import FakeClient, FakeRemote


def sync_face(client: O3ProClient) -> None:
    handler = BackgroundHandler(client, language="en", timeout=3600, retain=timedelta(hours=1), pace=Pace(floor=1))
    BackgroundHandler(FakeClient(FakeRemote()), on_done=lambda job: print(job.id))
    assert_type(handler.start_background_task("q", effort="high", instructions="short"), StartReply)
    assert_type(handler.check_status("id"), StatusReply)
    assert_type(handler.get_result("id"), ResultReply)
    assert_type(handler.list_active_jobs(), list[ListedJob])
    assert_type(handler.cancel_job("id"), CancelReply)
    assert_type(handler.get_result("id")["response"], str)
    assert_type(handler.check_status("id")["elapsed_time"], float)
    assert_type(handler.wait("id", timeout=1.5), ResultReply)
    assert_type(handler.wait_all(["id"]), dict[str, ResultReply])
    assert_type(handler.as_completed(), Iterator[tuple[str, ResultReply]])
    assert_type(handler.clear_finished(), int)
    assert_type(handler.jobs["id"], ListedJob)
    job = handler.submit("q", "high", timeout=60.0, metadata={"a": "b"})
    assert_type(job, Job)
    assert_type(job.result(timeout=1), str)
    assert_type(job.cancel(), bool)
    assert_type(job.done(), bool)
    assert_type(job.status(), str)
    assert_type(job.usage, Usage | None)
    assert_type(job.continuation_token(), str)
    assert_type(handler.attach("resp_1"), Job)
    with handler as same:
        assert_type(same, BackgroundHandler)


async def async_face(client: O3ProClient) -> None:
    async with AsyncBackgroundHandler(client, on_done=lambda job: print(job.id), max_concurrency=8) as handler:
        assert_type(handler, AsyncBackgroundHandler)
        assert_type(await handler.start_background_task("q"), StartReply)
        assert_type(await handler.check_status("id"), StatusReply)
        assert_type(await handler.get_result("id"), ResultReply)
        assert_type(await handler.list_active_jobs(), list[ListedJob])
        assert_type(await handler.cancel_job("id"), CancelReply)
        assert_type(await handler.wait_all(), dict[str, ResultReply])
        assert_type(handler.as_completed(), AsyncIterator[tuple[str, ResultReply]])
        job = await handler.submit("q")
        assert_type(job, AsyncJob)
        assert_type(await job, str)
        assert_type(await job.result(), str)


def mistakes(handler: BackgroundHandler, client: O3ProClient) -> Any:
    handler.start_background_task(3)  # type: ignore[arg-type]
    handler.check_status()  # type: ignore[call-arg]
    handler.check_status("id")["respons"]  # type: ignore[typeddict-item]
    BackgroundHandler(client, langauge="en")  # type: ignore[call-arg]
    BackgroundHandler(client, language="fr")  # type: ignore[arg-type]
    O3ProConfig(auth="magic")  # type: ignore[arg-type]
    return None
