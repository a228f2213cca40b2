"""The synchronous face: plain verbs that any thread may call."""

from __future__ import annotations

import uuid
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from o3pro_bg import _replies
from o3pro_bg._admission import Refused
from o3pro_bg._engine import CancelVerdict
from o3pro_bg._face import REFRESH_PATIENCE, Face
from o3pro_bg._futures import result_of
from o3pro_bg._portal import LoopThread
from o3pro_bg._records import JobRecord
from o3pro_bg._remote import RemoteTrouble
from o3pro_bg._settings import Settings, grace_of, patience_with
from o3pro_bg.errors import HandlerClosed, JobNotFound, StoreError
from o3pro_bg.job import Job, check_callback, in_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from typing import Unpack

    from o3pro_bg._ends import Ends
    from o3pro_bg._engine import Engine
    from o3pro_bg._remote import Client
    from o3pro_bg._replies import CancelReply, ListedJob, ResultReply, StartReply, StatusReply
    from o3pro_bg._stores import Store

    ThenOf = Callable[[str], Callable[[], object] | None]


class BackgroundHandler(Face):
    """
    Runs questions to a reasoning model in the background; any number of threads may call it.

    The five verbs of the specification, `start_background_task`, `check_status`, `get_result`,
    `list_active_jobs` and `cancel_job`, answer with dictionaries and raise nothing for what a service, a
    network or a job id does. Reads come from snapshots: they cause no request and wait for nothing. The jobs
    run on an event loop on a thread of its own, which starts with the first job.

    It is a context manager. Closing it, or the end of the interpreter, cancels the jobs that are under way,
    within bounded time; `on_close="detach"` leaves them running at the service. With a `store` they are left running
    anyway, and the next handler of that store takes them up.

    Args:
        client: An `O3ProClient`; one that is not ready is reported by the verb that needs it.
        on_done: Called with the `Job` of every job that ends in this handler's hands, in a worker thread.
        **settings: See `Settings`.

    Raises:
        StoreError: The store cannot be opened. After a fork the first verb opens it again, and raises this.
    """

    _LEFT = Face._LEFT | {"_portal", "_then_of"}
    _portal: LoopThread
    _then_of: ThenOf

    def __init__(
        self, client: Client, *, on_done: Callable[[Job], object] | None = None, **settings: Unpack[Settings]
    ) -> None:
        check_callback(on_done, is_sync=True)
        self._on_done = on_done
        super().__init__(client, settings)

    def _inside(self, store: Store) -> dict[str, Any]:
        inside = super()._inside(store)
        engine = inside["_engine"]
        portal = LoopThread(engine.close)
        then_of = _then_of(self._on_done, engine, portal)
        if store.durable and not self._is_closed:
            try:
                result_of(portal.submit(engine.open, self._endpoint, then_of))
            except BaseException:
                portal.stop(0)
                raise
        return {**inside, "_portal": portal, "_then_of": then_of}

    # --- the five verbs -------------------------------------------------------------------------------------

    def start_background_task(
        self,
        question: str,
        effort: str = "low",
        *,
        timeout: float | None = None,
        dedupe_key: str | None = None,
        priority: int = 0,
        **options: Any,
    ) -> StartReply:
        """
        Start a job and answer its id at once, before any network traffic; with a store, once it is written there.

        Args:
            question: The prompt.
            effort: One of the efforts of the configuration.
            timeout: Seconds after which the job is cancelled and fails; default the handler's.
            dedupe_key: A text of yours. Where a job has it already, however that job ended, no new one is started, and
                the reply is that job's.
            priority: Of the jobs that wait to be sent, because of `max_concurrency` or of the service's rates, the one
                with the highest goes first, and among equals the oldest.
            **options: More arguments of the Responses API, such as `instructions` or `max_output_tokens`.

        Returns:
            `success=True, job_id, status="started", question, effort`, or
            `success=False, error, question, effort`.

        Raises:
            TypeError: `question`, `effort` or `dedupe_key` is no text, or `priority` no whole number.
        """
        try:
            return _replies.started(self._enter(self._admit(question, effort, options, timeout, dedupe_key, priority)))
        except Refused as refused:
            return self._refused(refused, question, effort)

    def check_status(self, job_id: str) -> StatusReply:
        """
        Answer how far the job is, from a snapshot.

        Returns:
            `success=True, status, elapsed_time, question, effort`, and `error` where it failed or was
            cancelled; `elapsed_time` is in seconds. For an unknown id `success=False, error`.
        """
        self._refresh([job_id])
        return self._status(job_id)

    def get_result(self, job_id: str) -> ResultReply:
        """
        Answer what came of the job, from a snapshot.

        Only where its store keeps no text, and another process had the answer, is the service asked for it.

        Returns:
            `success=True, response, status, total_time, question, effort` once it is completed; `total_time`
            is in seconds. Otherwise `success=False, error` and what else is known.
        """
        self._refresh([job_id])
        return self._reply(job_id, self._store.get(job_id))

    def list_active_jobs(self) -> list[ListedJob]:
        """Answer every job that the handler still holds, ended ones included, the oldest first."""
        return self._list()

    def cancel_job(self, job_id: str) -> CancelReply:
        """
        Cancel the job for real: the service is asked to, and what it then says is believed.

        It waits for the service, up to 15 seconds.

        Returns:
            `success=True, job_id, status="cancelled", question, effort`; or
            `success=False, error, job_id, status` where the job had ended, the service refuses, or the
            cancel is not confirmed yet.

        Raises:
            WrongThread: Called on the handler's own loop.
        """
        self._refresh([job_id])
        verdict: CancelVerdict | StoreError = CancelVerdict.TOO_LATE
        record = self._store.get(job_id)
        if record is not None and not record.status.is_terminal:
            try:
                verdict = self._portal.call(self._engine.cancel, job_id)
            except (HandlerClosed, JobNotFound):
                pass
            except StoreError as trouble:
                verdict = trouble
        return self._cancel_reply(job_id, verdict)

    # --- what stands beside them ----------------------------------------------------------------------------

    def submit(
        self,
        question: str,
        effort: str = "low",
        *,
        timeout: float | None = None,
        dedupe_key: str | None = None,
        priority: int = 0,
        **options: Any,
    ) -> Job:
        """
        Start a job as `start_background_task` does, and answer its handle.

        Raises:
            InvalidRequest: The service could not take this request.
            ConfigError: The client is not ready.
            HandlerClosed: The handler is closed.
            StoreError: The job could not be written to its store; nothing was sent.
            TypeError: `question`, `effort` or `dedupe_key` is no text, or `priority` no whole number.
        """
        try:
            return self._job(self._enter(self._admit(question, effort, options, timeout, dedupe_key, priority)))
        except Refused as refused:
            error = refused.as_error()
        del question, options, dedupe_key  # trackers of errors show the locals of a traceback
        raise error

    def attach(self, response: str, question: str = "", effort: str = "low") -> Job:
        """
        Take up a response that exists already, and answer the handle of its job; nothing is sent twice.

        A response that a job of this handler has is that job's, unless the job failed.

        Args:
            response: The service's response id, or a `continuation_token()`.
            question: What the replies show as the question; a token does not carry it.
            effort: What they show as the effort; a token carries it.

        The handler's `timeout` does not hold for such a job.

        Raises:
            InvalidRequest: The token is damaged, or belongs to another deployment.
            ConfigError: The client is not ready.
            HandlerClosed: The handler is closed.
            StoreError: The job could not be written to its store.
        """
        self._refresh([response])  # which is no job's id: others may have told of it by now
        try:
            record = self._adopt(response, question, effort)
            if self._is_known(record):
                return self._job(record)
            if (kept := self._enter(record)).failure is not None:
                kept = self._enter(replace(record, job_id=uuid.uuid4().hex))
            return self._job(kept)
        except Refused as refused:
            raise refused.as_error() from None

    def job(self, job_id: str) -> Job:
        """Answer the handle of a job; raises `JobNotFound` for an unknown id."""
        self._refresh([job_id])
        return self._job(self._ledger.record(job_id))

    def wait(self, job_id: str, timeout: float | None = None) -> ResultReply:
        """
        Wait until the job has ended, and answer as `get_result` does.

        Raises:
            TimeoutError: It has not ended within so many seconds; it goes on.
            WrongThread: Called on the handler's own loop.
        """
        self._refresh([job_id])
        record = self._store.get(job_id)
        if record is not None and not record.status.is_terminal:
            try:
                record = self._portal.call(self._ledger.wait, job_id, timeout)
            except (HandlerClosed, JobNotFound):  # it may have been removed by another process
                record = self._store.get(job_id)
        return self._reply(job_id, record)

    def as_completed(
        self, job_ids: Iterable[str] | None = None, timeout: float | None = None
    ) -> Iterator[tuple[str, ResultReply]]:
        """
        Answer `(job_id, reply)` of these jobs, or of all, in the order in which they end.

        Raises:
            TimeoutError: Not all have ended within so many seconds; they go on.
            WrongThread: Called on the handler's own loop.
        """
        asked = self._asked(job_ids)
        self._refresh(asked)
        ended, pending = self._split(asked)
        ends: Ends | None = None
        with suppress(HandlerClosed):
            ends = self._portal.call(self._ledger.ends_of, pending, timeout) if pending else None
        for job_id, record in ended:
            yield job_id, self._reply(job_id, record)
        left = dict.fromkeys(pending)
        try:
            while ends is not None and left:
                job_id, record = self._portal.call(ends.__anext__)
                del left[job_id]
                yield job_id, self._reply(job_id, record)
        except HandlerClosed:
            ends = None
        finally:
            if ends is not None:
                with suppress(HandlerClosed):
                    self._portal.submit(ends.aclose)
        for job_id in left:
            yield job_id, self._reply(job_id, self._store.get(job_id))

    def wait_all(self, job_ids: Iterable[str] | None = None, timeout: float | None = None) -> dict[str, ResultReply]:
        """Wait until these jobs, or all, have ended, and answer their replies by id; raises as `as_completed`."""
        return dict(self.as_completed(job_ids, timeout))

    def remove_job(self, job_id: str, *, delete_remote: bool | None = None) -> CancelReply:
        """
        Forget a job that has ended.

        Args:
            job_id: The job.
            delete_remote: Whether its response is deleted at the service first; default the handler's setting.

        Returns:
            `success=True, job_id, status`, also where its store cannot be written now: then it is removed there as
            soon as it can; or `success=False, error, job_id, status` for one that has not ended, or whose response the
            service did not delete.
        """
        self._refresh([job_id])
        record = self._removable(job_id)
        if not isinstance(record, JobRecord):
            return record
        try:
            self._check_open()
            if self._deletes(delete_remote=delete_remote):
                self._portal.call(self._engine.delete, record)
        except (RemoteTrouble, HandlerClosed) as trouble:
            return self._kept(record, trouble)
        with suppress(StoreError):
            result_of(self._store.remove(job_id))
        return _replies.removed(record)

    def clear_finished(self, *, delete_remote: bool | None = None) -> int:
        """
        Forget all jobs that have ended, and tell how many they were.

        Args:
            delete_remote: Whether their responses are deleted at the service first; a job whose response the service
                does not delete is kept. Default the handler's setting.
        """
        try:
            self._check_open()
            ended = self._ended()
            if ended and self._deletes(delete_remote=delete_remote):
                ended = self._portal.call(self._engine.delete_all, ended)
        except HandlerClosed:
            return 0
        for removal in [self._store.remove(record.job_id) for record in ended]:
            with suppress(StoreError):  # the disk may be full: they are removed there as soon as it can be written
                result_of(removal)
        return len(ended)

    def close(self, timeout: float = 5.0) -> None:
        """
        End the handler within about so many seconds; what it knows stays readable.

        Jobs under way are cancelled at the service, or left running there (with a `store`, or by
        `on_close="detach"`). With a `store`, what was not sent yet is sent before, in half of the time, as far as
        nothing holds it up, and what was taken up is looked at once; the rest is left to the next handler.
        """
        grace = grace_of(timeout)
        self._is_closed = True
        if (portal := vars(self).get("_portal")) is not None:  # else it was not used since a fork
            portal.stop(grace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(patience_with(kind))

    def _refresh(self, job_ids: Iterable[str]) -> None:
        """Where a job is not known here, see what other processes have written by now."""
        if self._lacks(job_ids):
            trouble: Exception | None = None
            try:
                result_of(self._store.refresh(), REFRESH_PATIENCE)
            except (StoreError, TimeoutError) as exc:
                trouble = exc
            self._note_refresh(trouble)

    def _reply(self, job_id: str, record: JobRecord | None) -> ResultReply:
        if record is not None and record.lacks_answer:
            with suppress(HandlerClosed):
                record = self._portal.call(self._engine.whole, record)
        return self._result(job_id, record)

    def _enter(self, record: JobRecord) -> JobRecord:
        """Keep the record of a new job, and run it; answer the record that is kept, which may be another job's."""
        if not self._portal.is_open:  # a store may take a moment longer to notice that the loop has died
            raise Refused("closed")
        then = self._then_of(record.job_id)

        def make_good() -> None:
            self._portal.submit(self._make_good, record, then)

        inserted: Future[JobRecord] | None = None
        try:
            inserted = self._insert(record)
            kept = result_of(inserted)
        except BaseException as exc:  # Ctrl-C, say
            self._withdraw(record, inserted, make_good)
            if isinstance(exc, StoreError):
                raise Refused("store", detail=exc) from None
            raise
        if kept is record:
            try:
                self._portal.submit(self._engine.run, record.job_id, then)
            except HandlerClosed:
                if not self._store.durable:  # else the next process runs it
                    self._store.remove(record.job_id)
                    raise Refused("closed") from None
            except BaseException:  # Ctrl-C, say: whether it runs or not
                with suppress(HandlerClosed):
                    make_good()
                raise
        return kept

    def _job(self, record: JobRecord) -> Job:
        return Job(record.job_id, self._engine, self._portal)


def _then_of(on_done: Callable[[Job], object] | None, engine: Engine, portal: LoopThread) -> ThenOf:
    """Answer what tells what to call when a job ends; it does not itself keep the portal alive."""
    portals = weakref.ref(portal)

    def then_of(job_id: str) -> Callable[[], object] | None:
        held = portals()
        return None if on_done is None or held is None else in_worker(on_done, Job(job_id, engine, held))

    return then_of
