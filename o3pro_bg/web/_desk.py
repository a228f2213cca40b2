"""What the web parts ask of a handler: the one place that knows its insides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict, cast

from o3pro_bg import _replies
from o3pro_bg._admission import Refused
from o3pro_bg._engine import CancelVerdict
from o3pro_bg._replies import ListedJob
from o3pro_bg.errors import JobNotFound
from o3pro_bg.web._feed import SHORT_LIFE, Feed
from o3pro_bg.web._mark import Mark

if TYPE_CHECKING:
    from collections.abc import Collection

    from o3pro_bg._records import JobRecord, Usage
    from o3pro_bg._replies import CancelReply, ResultReply, StartReply, StatusReply
    from o3pro_bg._sentences import Language
    from o3pro_bg.aio import AsyncBackgroundHandler
    from o3pro_bg.web._leaving import Leaving

_SHOWN: Final = 300  # characters of a question that lists and events show
_OURS: Final = ("closed", "not_ready", "store")  # refusals that are not the fault of whoever asked


class Tokens(TypedDict):
    """The tokens that the service billed."""

    input: int
    output: int
    reasoning: int
    cached: int


class Details(TypedDict):
    """What is known of a job beside the specification's dictionaries; times are seconds, costs US dollars."""

    created_at: float
    waiting: str
    cancel_requested: bool
    response_id: str | None
    request_id: str | None
    next_look: float | None
    tokens: Tokens | None
    cost: float | None


class Row(ListedJob):
    """One of the jobs that lists and events show; its question may be cut."""

    details: NotRequired[Details]


class Desk:
    """
    A handler, as the web parts see it.

    Attributes:
        feed: What has changed of its jobs.
        mark: Whether the emulator answers for the service.
        leaving: Whether the server is about to end.
    """

    def __init__(self, handler: AsyncBackgroundHandler, leaving: Leaving) -> None:
        self.leaving = leaving
        self.feed = Feed(self, leaving)
        self.mark = Mark(handler.client.config.endpoint)
        self._handler = handler

    @property
    def handler(self) -> AsyncBackgroundHandler:
        """The handler itself."""
        return self._handler

    @property
    def language(self) -> Language:
        """The language of the handler's sentences."""
        return self._handler._language

    @property
    def efforts(self) -> Collection[str]:
        """The efforts that the deployment takes."""
        return self._handler.client.config.efforts

    # --- reading ----------------------------------------------------------------------------------------------

    def records(self) -> list[JobRecord]:
        """Answer the records of all jobs, the oldest first; a record that has changed is another object."""
        return self._handler._store.snapshot()

    def record(self, job_id: str) -> JobRecord | None:
        """Answer the record of a job, if it is known here."""
        return self._handler._store.get(job_id)

    def under_way(self) -> int:
        """Answer how many jobs have not ended."""
        return sum(not record.status.is_terminal for record in self.records())

    def row(self, record: JobRecord, *, has_details: bool = True) -> Row:
        """Answer a job as lists and events show it."""
        row = cast("Row", _replies.listed(record, self._handler._ledger.clock()))
        if len(row["question"]) > _SHOWN:
            row["question"] = row["question"][:_SHOWN] + "…"
        if has_details:
            row["details"] = self.details(record)
        return row

    def details(self, record: JobRecord) -> Details:
        """Answer what the specification's dictionaries do not hold."""
        try:
            job = self._handler.job(record.job_id)
            waiting, next_look, cost = job.waiting, job.next_look, job.cost
        except JobNotFound:  # another process has removed it just now
            waiting, next_look, cost = record.waiting, None, None
        return {
            "created_at": record.created_at,
            "waiting": waiting,
            "cancel_requested": record.cancel_requested_at is not None,
            "response_id": record.response_id,
            "request_id": record.request_id,
            "next_look": next_look,
            "tokens": None if record.usage is None else _tokens(record.usage),
            "cost": cost,
        }

    async def status(self, job_id: str) -> StatusReply:
        """Answer as `check_status` does."""
        return await self._handler.check_status(job_id)

    async def result(self, job_id: str) -> ResultReply:
        """Answer as `get_result` does."""
        return await self._handler.get_result(job_id)

    def is_well(self) -> bool:
        """Tell whether jobs are taken on: the handler is open, and its store was."""
        return not self._handler._is_closed and self._handler.client.is_ready()

    # --- changing ---------------------------------------------------------------------------------------------

    async def start(self, arguments: dict[str, Any]) -> tuple[bool, StartReply]:
        """
        Start a job; answer whether it is our fault if there is none, and as `start_background_task` does.

        Args:
            arguments: Those of `start_background_task`, of the right types, its options as `options`.
        """
        handler, question, effort = self._handler, arguments["question"], arguments.get("effort", "low")
        options: dict[str, Any] = arguments.get("options") or {}
        handler._ledger.claim_loop()
        timeout, key, priority = (arguments.get(name) for name in ("timeout", "dedupe_key", "priority"))
        try:
            record = handler._admit(question, effort, options, timeout, key, int(priority or 0))
            return False, _replies.started(await handler._enter(record))
        except Refused as refused:
            return refused.key in _OURS, handler._refused(refused, question, effort)

    async def cancel(self, job_id: str) -> CancelReply:
        """
        Answer as `cancel_job` does, without waiting for the service where the server is about to end.

        Where that could not be heard of, it waits for a moment only: the server might wait for this.
        """
        self.leaving.serve()
        cancel = asyncio.ensure_future(self._handler.cancel_job(job_id))
        leaving = asyncio.ensure_future(self.leaving.heard.wait())
        try:
            patience = None if self.leaving.is_certain else SHORT_LIFE
            await asyncio.wait([cancel, leaving], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if cancel.done():
                return cancel.result()
            return self._handler._cancel_reply(job_id, CancelVerdict.UNCONFIRMED)
        finally:
            cancel.cancel()
            leaving.cancel()

    async def remove(self, job_id: str) -> CancelReply:
        """Answer as `remove_job` does."""
        return await self._handler.remove_job(job_id)


def _tokens(usage: Usage) -> Tokens:
    return {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.reasoning_tokens,
        "cached": usage.cached_tokens,
    }
