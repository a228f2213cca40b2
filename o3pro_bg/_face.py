"""What the two faces share: taking on, and everything that is read from snapshots."""

from __future__ import annotations

import html
import secrets
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg import _replies
from o3pro_bg._admission import Refused, admit
from o3pro_bg._engine import CancelVerdict, Engine
from o3pro_bg._forks import Reborn, inherits
from o3pro_bg._futures import when_done
from o3pro_bg._ledger import Ledger
from o3pro_bg._link import Link
from o3pro_bg._records import JobRecord, JobRequest
from o3pro_bg._remote import RemoteTrouble
from o3pro_bg._sentences import explain, say, shown
from o3pro_bg._settings import PASSED_ON, Settings, check, makes_doors, store_from
from o3pro_bg._shared import Shared
from o3pro_bg._tokens import from_token, is_id, is_token
from o3pro_bg._view import JobsView
from o3pro_bg.errors import HandlerClosed, InvalidRequest, JobNotFound, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future

    from o3pro_bg._remote import Client
    from o3pro_bg._replies import CancelReply, ListedJob, ResultReply, StartReply, StatusReply
    from o3pro_bg._sentences import Language
    from o3pro_bg._stores import Store


REFRESH_PATIENCE: Final = 2.0  # seconds that a look for a job that other processes may know can take


class Face(Reborn):
    """The common part of `BackgroundHandler` and `AsyncBackgroundHandler`."""

    _LEFT = frozenset({"_store", "_ledger", "_engine"})
    _store: Store
    _ledger: Ledger
    _engine: Engine

    def __init__(self, client: Client, settings: Settings) -> None:
        if isinstance(client, type) or not (hasattr(client, "connect") and hasattr(client, "is_ready")):
            raise TypeError(f"client has to be an O3ProClient, such as O3ProClient(O3ProConfig()), not {type(client)}")
        check(settings)
        self.client = client
        self._settings = settings
        self._language: Language = settings.get("language", "ja")
        self._timeout = settings.get("timeout")
        self._store_trouble: Exception | None = None
        self._delete_remote = settings.get("delete_remote", False)
        self._is_closed = False
        vars(self).update(self._inside(store_from(settings)))
        inherits(self)

    def _inside(self, store: Store) -> dict[str, Any]:
        """Answer what lives the jobs of this store, by the names in `_LEFT`."""
        settings = self._settings
        on_close = settings.get("on_close", "detach" if store.durable else "cancel")
        ledger = Ledger(store, retain=settings.get("retain"))
        passed_on: Any = {name: settings[name] for name in PASSED_ON if name in settings}
        shared = Shared(
            Link(self.client.connect),
            ledger,
            make_door=makes_doors(self.client, store),
            cancel_on_close=on_close == "cancel",
            is_durable=store.durable,
            **passed_on,
        )
        return {"_store": store, "_ledger": ledger, "_engine": Engine(shared)}

    def _anew(self, left: dict[str, Any]) -> dict[str, Any]:
        return self._inside(left["_store"].again())

    @property
    def jobs(self) -> JobsView:
        """A live mapping of job id to a plain dictionary; `del` removes an ended job. See `JobsView`."""
        return JobsView(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._telling()}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(job['job_id'])}</td><td>{html.escape(job['status'])}</td>"
            f"<td>{html.escape(job['effort'])}</td><td>{job['elapsed_time']:.1f} s</td></tr>"
            for job in self._list()
        )
        head = "<tr><th>job</th><th>status</th><th>effort</th><th>elapsed</th></tr>"
        return f"<p>{html.escape(repr(self))}</p><table>{head}{rows}</table>"

    def _telling(self) -> str:
        if (store := getattr(self, "_store", None)) is None:  # a traceback's, say, of why it could not be made
            return f"{self.client!r}: not opened"
        statuses = [record.status.value for record in store.snapshot()]
        counts = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)]
        return f"{self.client!r}: {', '.join(counts) or 'no jobs'}{', closed' * self._is_closed}"

    @property
    def _endpoint(self) -> str:
        """The service whose jobs this handler can live; none where its client is not ready."""
        return self.client.config.resource if self.client.is_ready() else ""

    # --- taking on ------------------------------------------------------------------------------------------

    def _admit(
        self,
        question: str,
        effort: str,
        options: Mapping[str, Any],
        timeout: float | None,
        dedupe_key: str | None,
        priority: int,
    ) -> JobRecord:
        """Answer the record of a new job; raises `Refused`."""
        self._check_ready()
        timeout = self._timeout if timeout is None else timeout
        request = admit(
            self.client.config, question, effort, timeout, options, dedupe_key=dedupe_key, priority=priority
        )
        return self._new(request, secrets.token_hex(16))

    def _check_ready(self) -> None:
        """Raise `Refused` where no job can be taken on."""
        if self._is_closed:
            raise Refused("closed")
        if not self.client.is_ready():
            raise Refused("not_ready", problems=lambda language: "; ".join(self.client.config.validate(language)))

    def _adopt(self, response: str, question: str, effort: str) -> JobRecord:
        """
        Answer the record of a job whose response exists already: that of the job which has it, or a new one.

        Raises `Refused` as well as what `attach` raises.
        """
        self._check_ready()
        if not all(isinstance(text, str) for text in (response, question, effort)):
            raise TypeError("response, question and effort have to be texts")
        if not is_token(response) and not is_id(response):
            raise InvalidRequest("attach takes a response id, or a continuation token")
        config = self.client.config
        facts: dict[str, Any] = {
            "job_id": uuid.uuid5(uuid.NAMESPACE_URL, response).hex,  # whoever attaches, in whatever process
            "response_id": response,
            "effort": effort,
        }
        if is_token(response):
            facts = from_token(response)
            if (asked := facts["deployment"]) != config.deployment:
                raise InvalidRequest(f"this job belongs to deployment {asked!r}, the handler to {config.deployment!r}")
        for known in self._store.snapshot():
            if known.response_id == facts["response_id"] and known.failure is None:
                return known
        request = JobRequest(question, facts["effort"], config.deployment, endpoint=config.resource)
        return self._new(request, facts["job_id"], facts["response_id"], facts.get("created_at"))

    def _is_known(self, record: JobRecord) -> bool:
        return self._store.get(record.job_id) is record

    def _new(
        self, request: JobRequest, job_id: str, response_id: str | None = None, created_at: float | None = None
    ) -> JobRecord:
        """Answer the record of a job that begins now, or began then; the clock may have been set back since."""
        now = time.time()
        started = self._ledger.clock() - max(now - (created_at or now), 0.0)
        return JobRecord(job_id, request, created_at or now, started, response_id=response_id)

    def _insert(self, record: JobRecord) -> Future[JobRecord]:
        self._engine.expected.add(record.job_id)
        inserted = self._store.insert(record)

        def settle(inserted: Future[JobRecord]) -> None:
            if inserted.cancelled() or inserted.exception() or inserted.result() is not record:
                self._engine.expected.discard(record.job_id)

        when_done(inserted, settle)
        return inserted

    def _withdraw(self, record: JobRecord, inserted: Future[JobRecord] | None, make_good: Callable[[], object]) -> None:
        """
        See to it that a job of which nobody learned is never run: by now it may be on its way into the store.

        One that has a key may be known to who gave the same key: that is run.
        """
        was_told = inserted is not None

        def settle(inserted: Future[JobRecord]) -> None:
            kept = None if inserted.cancelled() or inserted.exception() else inserted.result()
            is_it = kept is record or (kept is not None and not was_told and kept.started == record.started)
            if record.request.dedupe_key is not None or (is_it and not self._store.holds(record.job_id)):
                with suppress(HandlerClosed):  # then it is left to the next process, or gone with this one
                    make_good()
                return
            if is_it:  # and not the job that has this id already
                self._store.remove(record.job_id)
            self._engine.expected.discard(record.job_id)

        if inserted is None:  # a Ctrl-C came before it was known: what comes of another one tells
            inserted = self._insert(record)
        elif record.request.dedupe_key is None:
            inserted.cancel()
        when_done(inserted, settle)

    async def _make_good(self, record: JobRecord, then: Callable[[], object] | None) -> None:
        """Cancel a new job of which nobody learned; run one that may be known, by its key or its response, once."""
        if record.request.dedupe_key is None and record.response_id is None:
            with suppress(JobNotFound, StoreError):
                await self._engine.cancel(record.job_id)
        if record.job_id in self._engine.expected:
            await self._engine.run(record.job_id, then)

    def _refused(self, refused: Refused, question: str, effort: str) -> StartReply:
        error = refused.sentence(self._language)
        return {"success": False, "error": error, "question": question, "effort": effort}

    # --- reading --------------------------------------------------------------------------------------------

    def _status(self, job_id: str) -> StatusReply:
        if (record := self._store.get(job_id)) is None:
            return {"success": False, "error": self._not_found(job_id)}
        return _replies.status(record, self._ledger.clock(), self._language)

    def _result(self, job_id: str, record: JobRecord | None) -> ResultReply:
        if record is None:
            return {"success": False, "error": self._not_found(job_id)}
        return _replies.result(record, self._ledger.clock(), self._language)

    def _note_refresh(self, trouble: Exception | None) -> None:
        """Remember whether unknown jobs are unknown only because the store could not be read."""
        if isinstance(trouble, TimeoutError):
            trouble = StoreError("its file could not be read in time: another program may have locked it")
        self._store_trouble = None if self._is_closed else trouble

    def _lacks(self, job_ids: Iterable[str]) -> bool:
        """Tell whether one of these jobs is not known here, but may be to another process."""
        return self._store.durable and any(self._store.get(job_id) is None for job_id in job_ids)

    def _list(self) -> list[ListedJob]:
        now = self._ledger.clock()
        return [_replies.listed(record, now) for record in self._store.snapshot()]

    def _ids(self) -> list[str]:
        return [record.job_id for record in self._store.snapshot()]

    def _asked(self, job_ids: Iterable[str] | None) -> list[str]:
        """Answer these ids, each once, or those of all jobs that have ended or can end here."""
        if isinstance(job_ids, str | bytes):
            raise TypeError("job_ids has to be a collection of ids, not one id")
        if job_ids is not None:
            return list(dict.fromkeys(job_ids))
        # What another service still works on is nobody's to wait for here.
        return [record.job_id for record in self._store.snapshot() if record.ended or self._ledger.serves(record)]

    def _split(self, job_ids: Iterable[str]) -> tuple[list[tuple[str, JobRecord | None]], list[str]]:
        """Answer the records of those jobs that need no waiting, and the ids of the others."""
        ended: list[tuple[str, JobRecord | None]] = []
        pending: list[str] = []
        for job_id in job_ids:
            record = self._store.get(job_id)
            if record is None or record.status.is_terminal:
                ended.append((job_id, record))
            else:
                pending.append(job_id)
        return ended, pending

    def _not_found(self, job_id: str) -> str:
        if self._store_trouble is not None:
            return say(self._language, "store", detail=self._store_trouble)
        return say(self._language, "not_found", job_id=shown(job_id))

    # --- ending ---------------------------------------------------------------------------------------------

    def _cancel_reply(self, job_id: str, verdict: CancelVerdict | StoreError) -> CancelReply:
        if (record := self._store.get(job_id)) is None:
            return {"success": False, "error": self._not_found(job_id)}
        if isinstance(verdict, StoreError):
            return self._kept(record, verdict)
        if verdict is CancelVerdict.CONFIRMED:
            return _replies.cancelled(record)
        let_go = verdict is CancelVerdict.TOO_LATE and not record.status.is_terminal
        return _replies.left_alone(record, self._language, "closed" if let_go else _NOT_CANCELLED[verdict])

    def _kept(self, record: JobRecord, trouble: Exception) -> CancelReply:
        """Answer for a job that could not be cancelled or removed."""
        if isinstance(trouble, StoreError) and not self._is_closed:
            return _replies.left_alone(record, self._language, "store", detail=trouble)
        if isinstance(trouble, RemoteTrouble):
            detail = explain(self._language, trouble.failure.code, trouble.failure.detail)
            return _replies.left_alone(record, self._language, "delete_failed", detail=detail)
        return _replies.left_alone(record, self._language, "closed")

    def _removable(self, job_id: str) -> JobRecord | CancelReply:
        """Answer the record of a job that may be removed, or the reply for one that there is not, or has not ended."""
        if (record := self._store.get(job_id)) is None:
            return {"success": False, "error": self._not_found(job_id)}
        return record if record.status.is_terminal else _replies.left_alone(record, self._language, "not_finished")

    def _check_open(self) -> None:
        """Raise `HandlerClosed` where a closed handler cannot change its store any more."""
        if self._is_closed and self._store.durable:
            raise HandlerClosed("the handler is closed: make a new one")

    def _ended(self) -> list[JobRecord]:
        return [record for record in self._store.snapshot() if record.status.is_terminal]

    def _deletes(self, *, delete_remote: bool | None) -> bool:
        return self._delete_remote if delete_remote is None else delete_remote


_NOT_CANCELLED = {
    CancelVerdict.TOO_LATE: "already_finished",
    CancelVerdict.REFUSED: "cancel_refused",
    CancelVerdict.UNCONFIRMED: "cancel_unconfirmed",
}
