"""What the two faces share: settings, admission, and everything that is read from snapshots."""

from __future__ import annotations

import html
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from o3pro_bg import _replies
from o3pro_bg._admission import Refused, admit, is_positive
from o3pro_bg._engine import CancelVerdict, Engine
from o3pro_bg._ledger import Ledger
from o3pro_bg._pacing import Pace
from o3pro_bg._records import JobRecord, JobRequest
from o3pro_bg._sentences import say
from o3pro_bg._stores import MemoryStore
from o3pro_bg._tokens import from_token, is_token
from o3pro_bg.errors import InvalidRequest, JobNotFinished

if TYPE_CHECKING:
    from o3pro_bg._remote import Client
    from o3pro_bg._replies import CancelReply, ListedJob, ResultReply, StartReply, StatusReply
    from o3pro_bg._sentences import Language


class Settings(TypedDict, total=False):
    """
    How a handler behaves; every setting may be left out.

    Attributes:
        language: The language of the replies' sentences, `"ja"` (default) or `"en"`.
        timeout: Seconds from its start after which a job is cancelled at the service and fails, waits for
            `max_concurrency` included; default none.
        max_concurrency: The most jobs under way at the service at once; default no bound.
        max_in_flight: The most HTTP requests under way at once; default 64.
        pace: When to look at a job; default `Pace()`.
        retain: How many ended jobs to keep at the most (int), or for how long (timedelta); default until removed. An
            answer that is let go before it was read is gone.
        on_close: `"cancel"` (default) cancels jobs under way when the handler closes, `"detach"` leaves them
            running at the service.
        resubmit_uncertain: Send a create again that may have been accepted, and so perhaps pay twice.
        lost_after: Seconds for which the service has to deny a response before its job fails; default 30.
    """

    language: Language
    timeout: float | None
    max_concurrency: int | None
    max_in_flight: int
    pace: Pace
    retain: int | timedelta | None
    on_close: Literal["cancel", "detach"]
    resubmit_uncertain: bool
    lost_after: float


def _check(settings: Settings) -> None:
    if unknown := {*settings} - {*Settings.__annotations__}:
        raise TypeError(f"unknown setting: {', '.join(sorted(unknown))}")
    if settings.get("language", "ja") not in ("ja", "en"):
        raise ValueError('language has to be "ja" or "en"')
    if settings.get("on_close", "cancel") not in ("cancel", "detach"):
        raise ValueError('on_close has to be "cancel" or "detach"')
    retain = settings.get("retain")
    figures = {
        "retain": retain.total_seconds() if isinstance(retain, timedelta) else retain,
        **{name: settings.get(name) for name in ("timeout", "max_concurrency")},
        "max_in_flight": settings.get("max_in_flight", 64),
        "lost_after": settings.get("lost_after", 30.0),
    }
    optional = ("retain", "timeout", "max_concurrency")
    for name, figure in figures.items():
        if not is_positive(figure) and not (figure is None and name in optional):
            raise ValueError(f"{name} has to be above 0{', or None' if name in optional else ''}")
        if name.startswith("max_") and isinstance(figure, float):
            raise ValueError(f"{name} has to be a whole number")


def grace_of(timeout: float) -> float:
    """Answer the seconds that closing may take; raises ValueError where they are none."""
    if timeout != 0 and not is_positive(timeout):
        raise ValueError("timeout has to be a finite number of seconds, 0 or more")
    return timeout


class Face:
    """The common part of `BackgroundHandler` and `AsyncBackgroundHandler`."""

    def __init__(self, client: Client, settings: Settings) -> None:
        if not hasattr(client, "connect"):
            raise TypeError(f"client has to be an O3ProClient, such as O3ProClient(O3ProConfig()), not {type(client)}")
        _check(settings)
        self.client = client
        self._language: Language = settings.get("language", "ja")
        self._timeout = settings.get("timeout")
        self._store = MemoryStore()
        self._ledger = Ledger(self._store, retain=settings.get("retain"))
        self._engine = Engine(
            client.connect,
            self._ledger,
            pace=settings.get("pace", Pace()),
            max_concurrency=settings.get("max_concurrency"),
            max_in_flight=settings.get("max_in_flight", 64),
            resubmit_uncertain=settings.get("resubmit_uncertain", False),
            lost_after=settings.get("lost_after", 30.0),
            cancel_on_close=settings.get("on_close", "cancel") == "cancel",
        )
        self._is_closed = False

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
        statuses = [record.status.value for record in self._store.snapshot()]
        counts = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)]
        return f"{self.client!r}: {', '.join(counts) or 'no jobs'}{', closed' * self._is_closed}"

    # --- taking on ------------------------------------------------------------------------------------------

    def _admit(self, question: str, effort: str, timeout: float | None, options: Mapping[str, Any]) -> JobRecord:
        """Answer the record of a new job that readers see at once; raises `Refused`."""
        if self._is_closed:
            raise Refused("closed")
        if not self.client.is_ready():
            raise Refused("not_ready", problems=lambda language: "; ".join(self.client.config.validate(language)))
        timeout = self._timeout if timeout is None else timeout
        request = admit(self.client.config, question, effort, timeout, options)
        return self._enter(request, uuid.uuid4().hex, time.time())[0]

    def _adopt(self, response: str, question: str, effort: str) -> tuple[JobRecord, bool]:
        """Answer the record of a job whose response exists already, and whether the job is new here."""
        if self._is_closed:
            raise Refused("closed").as_error()
        if not response or not response.isprintable() or response.startswith(".") or " " in response:
            raise InvalidRequest("attach takes a response id, or a continuation token")
        deployment, now = self.client.config.deployment, time.time()
        facts: dict[str, Any] = {
            "job_id": uuid.uuid4().hex,
            "response_id": response,
            "effort": effort,
            "created_at": now,
        }
        if is_token(response):
            facts = from_token(response)
            if (asked := facts["deployment"]) != deployment:
                raise InvalidRequest(f"this job belongs to deployment {asked!r}, the handler to {deployment!r}")
        request = JobRequest(question, facts["effort"], deployment)
        return self._enter(request, facts["job_id"], facts["created_at"], facts["response_id"])

    def _enter(
        self, request: JobRequest, job_id: str, created_at: float, response_id: str | None = None
    ) -> tuple[JobRecord, bool]:
        """Answer the record of this job, and whether it is new here."""
        started = self._ledger.clock() - max(time.time() - created_at, 0.0)
        record = JobRecord(job_id, request, created_at, started, response_id=response_id)
        is_new = self._store.insert(record)
        return record, is_new

    def _refused(self, refused: Refused, question: str, effort: str) -> StartReply:
        error = refused.sentence(self._language)
        return {"success": False, "error": error, "question": question, "effort": effort}

    # --- reading --------------------------------------------------------------------------------------------

    def _status(self, job_id: str) -> StatusReply:
        if (record := self._store.get(job_id)) is None:
            return {"success": False, "error": self._not_found(job_id)}
        return _replies.status(record, self._ledger.clock(), self._language)

    def _result(self, job_id: str) -> ResultReply:
        if (record := self._store.get(job_id)) is None:
            return {"success": False, "error": self._not_found(job_id)}
        return self._result_of(record)

    def _result_of(self, record: JobRecord) -> ResultReply:
        return _replies.result(record, self._ledger.clock(), self._language)

    def _list(self) -> list[ListedJob]:
        now = self._ledger.clock()
        return [_replies.listed(record, now) for record in self._store.snapshot()]

    def _ids(self) -> list[str]:
        return [record.job_id for record in self._store.snapshot()]

    def _split(self, job_ids: Iterable[str] | None) -> tuple[list[tuple[str, ResultReply]], list[str]]:
        """Answer the replies of those jobs that need no waiting, and the ids of the others."""
        if isinstance(job_ids, str):
            raise TypeError("job_ids has to be a collection of ids, not one id")
        ids = self._ids() if job_ids is None else dict.fromkeys(job_ids)
        ended: list[tuple[str, ResultReply]] = []
        pending: list[str] = []
        for job_id in ids:
            record = self._store.get(job_id)
            if record is None or record.status.is_terminal:
                ended.append((job_id, self._result(job_id)))
            else:
                pending.append(job_id)
        return ended, pending

    def _not_found(self, job_id: str) -> str:
        return say(self._language, "not_found", job_id=job_id)

    # --- ending ---------------------------------------------------------------------------------------------

    def _cancel_reply(self, job_id: str, verdict: CancelVerdict) -> CancelReply:
        if (record := self._store.get(job_id)) is None:
            return {"success": False, "error": self._not_found(job_id)}
        if verdict is CancelVerdict.CONFIRMED:
            return _replies.cancelled(record)
        let_go = verdict is CancelVerdict.TOO_LATE and not record.status.is_terminal
        return _replies.left_alone(record, "closed" if let_go else _NOT_CANCELLED[verdict], self._language)

    def _remove(self, job_id: str) -> CancelReply:
        if (record := self._store.get(job_id)) is None:
            return {"success": False, "error": self._not_found(job_id)}
        if not record.status.is_terminal:
            return _replies.left_alone(record, "not_finished", self._language)
        self._store.remove(job_id)
        return {"success": True, "job_id": job_id, "status": record.status.value}

    def _clear(self) -> int:
        ended = [record.job_id for record in self._store.snapshot() if record.status.is_terminal]
        return sum(self._store.remove(job_id) for job_id in ended)


_NOT_CANCELLED = {
    CancelVerdict.TOO_LATE: "already_finished",
    CancelVerdict.REFUSED: "cancel_refused",
    CancelVerdict.UNCONFIRMED: "cancel_unconfirmed",
}


class JobsView(Mapping[str, "ListedJob"]):
    """
    The jobs that a handler holds, by id: a live view whose values are plain snapshots.

    It may be iterated while other threads start and end jobs. `del view[job_id]` removes a job that has ended,
    and raises `JobNotFinished` for one that has not.
    """

    def __init__(self, face: Face) -> None:
        self._face = face

    def __getitem__(self, job_id: str) -> ListedJob:
        if (record := self._face._store.get(job_id)) is None:
            raise KeyError(job_id)
        return _replies.listed(record, self._face._ledger.clock())

    def __delitem__(self, job_id: str) -> None:
        self[job_id]
        if not self._face._remove(job_id)["success"]:
            raise JobNotFinished(f"job {job_id} has not ended: cancel it, or wait for it, first", job_id=job_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._face._ids())

    def __len__(self) -> int:
        return len(self._face._ids())

    def __repr__(self) -> str:
        return f"<JobsView of {self._face!r}>"
