"""What has to hold at every step, and at the end; who breaks it is told at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._sentences import JA
from o3pro_bg._states import JobStatus

from .loop import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from o3pro_bg._records import JobRecord

    from .faults import Answer, Fault
    from .service import Response

_QUESTION: Final = {"question", "effort"}
_TOLD: Final = {"success", "status", *_QUESTION}
_TERMINAL: Final = ("completed", "failed", "cancelled")
_SLACK: Final = 1e-3  # seconds
# Which failure's code a refusal of the create leads to.
_REFUSALS: Final = {
    "token expired": "invalid_key",
    "firewall": "forbidden",
    "redirect": "redirected",
    "404 of a gateway": "resource_not_found",
    "no deployment": "deployment_not_found",
    "content filter": "content_filter",
}


class Violation(AssertionError):
    """Something that must never be."""


@dataclass
class Case:
    """
    A job, and all that befell it.

    Attributes:
        met: The faults of its exchanges, the traits of its responses, and what its processes went through.
        is_unclear: Whether a create of it left of which nobody can know what became.
        is_unwanted: Whether anybody had a reason to cancel it.
        is_sent: Whether a create of it was sent.
        is_told: Whether anybody learned its id.
        removals: How many removals may have taken it away.
        was_let_go: Whether a handler was closed that left it running.
        calls: How often it was called back.
        comebacks: How often it was attached to after it was removed.
        ends: The record in which it ended, by the process that saw it.
        denied_since: Since when the service has denied it.
    """

    job_id: str
    name: str
    question: str
    timeout: float | None
    met: set[str] = field(default_factory=set)
    is_unclear: bool = False
    is_unwanted: bool = False
    is_sent: bool = False
    is_told: bool = False
    removals: int = 0
    was_let_go: bool = False
    calls: int = 0
    comebacks: int = 0
    ends: dict[str, JobRecord] = field(default_factory=dict)
    denied_since: float | None = None


class Judge:
    """
    Holds the invariants.

    Attributes:
        cases: The jobs that were started, by their id.
        trace: All that happened.
        violations: What was broken, the first of it first.
        opted_in: Whether creates may be sent again that may have been accepted.
        is_durable: Whether the jobs are kept on disk.
        disk_failed: Whether something could not be written.
        is_over: Whether nothing happens any more.
        max_concurrency: How many jobs may be under way.
        runs: Tells whether the service works on a job.
    """

    def __init__(
        self,
        now: Callable[[], float],
        lost_after: float,
        *,
        opted_in: bool,
        keeps_text: bool,
        is_durable: bool,
    ) -> None:
        self.cases: dict[str, Case] = {}
        self.trace: list[str] = []
        self.violations: list[str] = []
        self.opted_in = opted_in
        self.is_durable = is_durable
        self.disk_failed = False
        self.is_over = False
        self.max_concurrency: int | None = None
        self.runs: Callable[[str], bool] = lambda job_id: False
        self._keeps_text = keeps_text
        self._lost_after = lost_after
        self._now = now
        self._names: dict[str, str] = {}
        self._asked_for: dict[str, str] = {}  # the job for which each response was created
        self._attached: dict[str, list[Case]] = {}  # the jobs that were made of another one's response
        self._told: dict[tuple[str, str], dict[str, Any]] = {}

    def note(self, *facts: object) -> None:
        """Put a line into the trace."""
        process = PROCESS.get()
        self.trace.append(f"{self._now():10.3f} {process.name if process else '-':4} {' '.join(map(str, facts))}")

    def name(self, job_id: str) -> str:
        """Answer a short name of a job, in the order in which they appear."""
        return self._names.setdefault(job_id, f"job{len(self._names) + 1}" if job_id else "?")

    def holds(self, condition: object, what: str) -> None:
        """Raise `Violation`, which nobody who catches it can hide, unless this holds."""
        if not condition:
            self.violations.append(what)
            self.note("VIOLATION", what)
            raise Violation(what)

    def raise_first(self) -> None:
        """Raise the first violation, should somebody have caught it."""
        if self.violations and not self.is_over:
            raise Violation(self.violations[0])

    # --- what happens to a job ------------------------------------------------------------------------------

    def case(self, job_id: str, question: str = "", timeout: float | None = None) -> Case:
        """Answer what is known of a job, from its first appearance on."""
        if job_id not in self.cases:
            self.cases[job_id] = Case(job_id, self.name(job_id), question, timeout)
        return self.cases[job_id]

    def inserted(self, record: JobRecord) -> None:
        """Note a new job, which may be made of the response of another one."""
        is_new = record.job_id not in self.cases
        for told in [told for told in self._told if told[1] == record.job_id]:
            del self._told[told]  # that of its former life: it was removed, and is attached to
        case = self.case(record.job_id, record.request.question, record.request.timeout)
        case.comebacks += not is_new
        if is_new and record.response_id is not None:
            self.befalls("attached", [case])
            self._attached.setdefault(self._asked_for[record.response_id], []).append(case)

    def _of(self, job_id: str) -> list[Case]:
        """Answer the jobs that the exchanges of this one are about."""
        its_own = [self.cases[job_id]] if job_id in self.cases else []
        return its_own + self._attached.get(job_id, [])

    def befalls(self, what: str, cases: Iterable[Case] | None = None) -> None:
        """Note that something befalls these jobs, or all that have not ended."""
        self.note(what)
        for case in self.cases.values() if cases is None else cases:
            if not case.ends or self.disk_failed:  # what could not be written, another process may have to end again
                case.met.add(what)

    def asked(self, verb: str, job_id: str, fault: Fault | None) -> None:
        """Note an exchange and what meets it; hold that no more jobs are under way than may be."""
        self.note(verb, self.name(job_id), fault.name if fault else "")
        if verb == "create" and job_id in self.cases:
            self._count(self.cases[job_id])
        if fault is None:
            return
        for case in self._of(job_id):
            case.met.add(fault.name if verb != "create" else f"{fault.name}, at the create")
            case.is_unclear |= verb == "create" and fault.is_unclear

    def _count(self, case: Case) -> None:
        """Hold that there is room for a job that is sent; on disk, what is taken up, or left running, needs none."""
        case.is_sent = True
        others = [other for other in self.cases.values() if other.is_sent and other is not case and not other.ends]
        busy = [other.name for other in others if self.runs(other.job_id)]
        has_room = self.is_durable or self.max_concurrency is None or len(busy) < self.max_concurrency
        self.holds(has_room or "closed" in case.met, f"{case.name} is sent, and {busy} are under way")

    def accepted(self, job_id: str, response_id: str, count: int, traits: Iterable[str]) -> None:
        """Hold that no job is paid for twice."""
        self._asked_for[response_id] = job_id
        self.note("accepted", self.name(job_id), count, *sorted(traits))
        self.holds(count <= (3 if self.opted_in else 1), f"{self.name(job_id)} was accepted {count} times")
        if job_id in self.cases:
            self.cases[job_id].met.update(traits)

    def looked(self, job_id: str, answer: Answer, *, is_good: bool) -> None:
        """Note what a look was answered: a denial, something good, or anything else, which says nothing."""
        for case in self._of(job_id):
            if answer.status_code in (404, 307):
                case.denied_since = self._now() if case.denied_since is None else case.denied_since
            elif is_good:
                case.denied_since = None

    def called_back(self, job_id: str) -> None:
        """Hold that `on_done` is called once for each job, where it ended, and not before."""
        self.note("on_done", self.name(job_id))
        case = self.case(job_id)
        case.calls += 1
        self.holds(case.ends or case.removals, f"on_done is called for {case.name}, which has not ended")
        is_once = case.calls <= 1 + case.comebacks or self.disk_failed or "stopped" in case.met
        self.holds(is_once, f"on_done was called {case.calls} times for {case.name}")

    def moved(self, before: JobRecord | None, after: JobRecord) -> None:
        """Hold that what readers of a process see moves as the table says, and stays once it has ended."""
        process = PROCESS.get()
        where = process.name if process else "-"
        name = self.name(after.job_id)
        if before is not None and before.status.is_terminal:
            same = ("status", "answer", "failure", "ended", "output_items")
            self.holds(
                all(getattr(before, fact) == getattr(after, fact) for fact in same),
                f"{name} had ended as {before.status} and became {after.status} ({before.failure}, {after.failure})",
            )
        if before is not None and before.status is JobStatus.RUNNING and not self.disk_failed:
            self.holds(after.status is not JobStatus.STARTED, f"{name} went back to started")
        if before is not None and before.response_id is not None and after.response_id is not None:
            self.holds(before.response_id == after.response_id, f"{name} changed its response")
        if before is None or before.status is not after.status:
            self.note("is", name, after.status, after.failure.code if after.failure else "")
        if after.status.is_terminal and (case := self.cases.get(after.job_id)) is not None:
            case.ends.setdefault(where, after)
            if after.failure is not None and after.failure.code == "lost" and before is not None:
                is_long = case.denied_since is not None and self._now() - case.denied_since >= self._lost_after - _SLACK
                is_shared = "attached" in case.met or case.job_id in self._attached  # then others hear of it, too
                self.holds(before.status.is_terminal or is_long or is_shared, f"{name} was given up too early")

    # --- replies --------------------------------------------------------------------------------------------

    def obeys(self, verb: str, job_id: str, reply: dict[str, Any]) -> None:
        """Hold that a reply is one of the specification's dictionaries, and contradicts none before it."""
        self.note(verb, self.name(job_id), reply.get("status"), "" if reply["success"] else reply["error"][:40])
        self.holds(None not in reply.values(), f"{verb} answers None: {reply}")
        self.holds(self._is_one_of(verb, job_id, reply), f"{verb} answers {reply}")
        if reply.get("status") in _TERMINAL:
            self._same(verb, job_id, reply)

    def _is_one_of(self, verb: str, job_id: str, reply: dict[str, Any]) -> bool:
        keys, success, status = {*reply}, reply["success"], reply.get("status")
        if keys == {"success", "error"}:
            is_unread = self.is_durable and reply["error"].startswith(JA["store"][:10])  # in time
            return not success and (is_unread or reply["error"] == JA["not_found"].format(job_id=job_id))
        if verb == "start":
            return keys == ({*_TOLD, "job_id"} if success else {"success", "error", *_QUESTION})
        if verb == "status":
            has_error = status in ("failed", "cancelled")
            return bool(success) and keys == {*_TOLD, "elapsed_time", *(["error"] if has_error else [])}
        if verb in ("result", "wait"):
            return self._is_result(keys, reply)
        if verb == "cancel" and success:
            return status == "cancelled" and keys == {*_TOLD, "job_id"}
        if verb == "remove" and success:
            return status in _TERMINAL and keys == {"success", "status", "job_id"}
        is_true = status in _TERMINAL or reply["error"] != JA["already_finished"]
        return keys == {"success", "error", "status", "job_id"} and not success and is_true

    def _is_result(self, keys: set[str], reply: dict[str, Any]) -> bool:
        match reply["status"]:
            case "started" | "running":
                return keys == {"success", "error", "status"} and reply["error"] == JA["not_finished"]
            case "completed" if reply["success"]:
                return keys == {*_TOLD, "response", "total_time"}
            case "completed":
                return keys == {*_TOLD, "error", "total_time"} and not self._keeps_text
            case "cancelled":
                return keys == {*_TOLD, "error", "total_time"} and reply["error"] == JA["cancelled"]
            case _:
                is_told = keys - {"response"} == {*_TOLD, "error", "total_time"} and not reply["success"]
                return is_told and str(reply["error"]).startswith("API Error: ")

    def _same(self, verb: str, job_id: str, reply: dict[str, Any]) -> None:
        """Hold that a job which was told to have ended is told so ever after, with the same facts."""
        process = PROCESS.get()
        facts: dict[str, Any] = {
            fact: reply[fact] for fact in ("status", "response", "total_time", "elapsed_time") if fact in reply
        }
        if "elapsed_time" in facts:
            facts["total_time"] = facts.pop("elapsed_time")
        self._agree(process.name if process else "", verb, job_id, facts)
        if not self.disk_failed:  # else what was told may have been lost
            facts.pop("total_time", None)  # which follows the clock on the wall, between processes
            self._agree("", verb, job_id, facts)

    def _agree(self, where: str, verb: str, job_id: str, facts: dict[str, Any]) -> None:
        told = self._told.setdefault((where, job_id), {})
        for fact, value in facts.items():
            is_same = told.setdefault(fact, value) == value
            self.holds(is_same, f"{verb} of {self.name(job_id)}: {fact} is {value}, and was {told[fact]}")

    # --- the end --------------------------------------------------------------------------------------------

    def keys(self, records: Iterable[JobRecord]) -> None:
        """Hold that no two jobs have the same `dedupe_key`."""
        keys = [record.request.dedupe_key for record in records if record.request.dedupe_key is not None]
        self.holds(len(keys) == len({*keys}), f"two jobs have the same key: {keys}")

    def judges(self, case: Case, record: JobRecord | None, responses: list[Response]) -> str:
        """Hold that the end of a job is one that what befell it allows; answer it in a word."""
        if record is None:
            self.holds(case.removals, f"{case.name} is lost")
            return "removed"
        if not record.status.is_terminal:
            self.holds(case.was_let_go, f"{case.name} has not ended: {record}")
            return "left running"
        code = record.failure.code if record.failure else ""
        self._check_payment(case, record, code, responses)
        check = {JobStatus.COMPLETED: self._completed, JobStatus.CANCELLED: self._cancelled}.get(record.status)
        if check is not None:
            check(case, record, responses)
        else:
            self.holds(self._may_fail(case, code, responses), f"{case.name} failed as {code}: {sorted(case.met)}")
        return f"failed: {code}" if code else record.status.value

    def _check_payment(self, case: Case, record: JobRecord, code: str, responses: list[Response]) -> None:
        is_known = record.response_id is not None or code in ("submission_uncertain", "deadline")
        self.holds(is_known or not responses, f"{case.name} is {record.status} ({code}), and paid for all the same")

    def _completed(self, case: Case, record: JobRecord, responses: list[Response]) -> None:
        its_own = [response for response in responses if response.id == record.response_id]
        is_its_own = its_own and (its_own[0].job_id == case.job_id or "attached" in case.met)
        self.holds(is_its_own, f"{case.name} is completed by another's response")
        self.holds(record.answer in (its_own[0].text, None), f"{case.name} has another answer: {record.answer}")
        self.holds(record.answer is not None or not self._keeps_text, f"{case.name} has no answer")
        self.holds("completed" in its_own[0].told, f"{case.name} is completed, which the service never said")

    def _cancelled(self, case: Case, record: JobRecord, responses: list[Response]) -> None:
        told = any("cancelled" in response.told for response in responses)
        by_itself = "cancelled by the service" in case.met
        sharing = [case, *(other for response in responses for other in self._of(response.job_id))]
        is_unwanted = any(other.is_unwanted or other.timeout is not None for other in sharing)
        self.holds(is_unwanted or by_itself, f"{case.name} is cancelled, which nobody wanted")
        self.holds(told or record.response_id is None, f"{case.name} is cancelled, which the service never said")

    def _may_fail(self, case: Case, code: str, responses: list[Response]) -> bool:
        met = case.met
        if code in _REFUSALS.values():
            return any(code == ours and f"{fault}, at the create" in met for fault, ours in _REFUSALS.items())
        was_cut = bool(met & {"killed", "stopped", "closed", "disk full"})
        return {
            "submission_uncertain": case.is_unclear or was_cut,
            "deadline": case.timeout is not None,
            "lost": True,  # which was held as it happened
            "server_error": any("failed" in response.told for response in responses),
            "incomplete_max_output_tokens": any("incomplete" in response.told for response in responses),
            "unreachable": "not reached, at the create" in met,
            "closed_unconfirmed": bool(met & {"closed", "attached"}),
            "credential": "no token" in met,
            "client": "no client" in met,
            "text_not_kept": was_cut and not self._keeps_text,
        }.get(code, False)


def tally(outcomes: Iterable[tuple[set[str], str]]) -> Counter[tuple[str, str]]:
    """Count which outcome went with which fault."""
    return Counter((fault, outcome) for met, outcome in outcomes for fault in (met or {"nothing"}))
