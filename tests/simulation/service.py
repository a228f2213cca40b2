"""The service, at the level of the wire: responses that live by the clock, and weather that meets the exchanges."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from o3pro_bg._records import Failure
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._responses import JOB_TAG, ResponsesRemote
from o3pro_bg.config import O3ProConfig

from .faults import FAULTS, TRAITS, Answer, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from .judge import Judge

CONFIG = O3ProConfig(endpoint="https://simulated.openai.azure.com", api_key="simulated")
_LATENCIES = (0.0, 0.0, 0.0, 0.02, 0.5, 1.0, 4.0)  # seconds, few different ones: much happens at once
_LENGTHS = (0.0, 2.0, 4.0, 9.0, 20.0, 45.0, 90.0)
_RATES = (0.02, 0.1, 0.1, 0.3, 0.6)
_OVER = frozenset({"completed", "failed", "incomplete", "cancelled"})
_VERBS = {("POST", False): "create", ("GET", False): "look", ("POST", True): "cancel", ("DELETE", False): "delete"}


@dataclass
class Response:
    """A response, and what it is going to do."""

    id: str
    job_id: str
    question: str
    born: float
    length: float
    traits: frozenset[str]
    cancelled_at: float | None = None
    is_deleted: bool = False
    told: list[str] = field(default_factory=list)

    @property
    def ends(self) -> float:
        """When it ends, if nobody cancels it."""
        return self.born + self.length

    @property
    def text(self) -> str:
        """The answer."""
        return f"answer of {self.id} to {self.question}"

    def word(self, now: float) -> str:
        """Answer the status of this moment."""
        if self.cancelled_at is not None and "finishes in spite of a cancel" not in self.traits:
            is_revived = "cancelled, then completed" in self.traits and now >= self.cancelled_at + 20
            return "completed" if is_revived else "cancelled"
        if now >= self.ends:
            return next((word for trait, word in _ENDS.items() if trait in self.traits), "completed")
        is_queued = now < self.born + 1 and "never queued" not in self.traits
        return "queued" if is_queued else "in_progress"

    def is_denied(self, now: float) -> bool:
        """Tell whether the service says that there is no such response."""
        age = now - self.born
        return (
            self.is_deleted
            or ("404 at first" in self.traits and age < 3)
            or ("404 for a while" in self.traits and 5 <= age < 9)
            or ("404 for good" in self.traits and age >= 4)
        )

    def body(self, now: float) -> dict[str, Any]:
        """Answer what the service says of it."""
        word = self.word(now)
        body: dict[str, Any] = {"id": self.id, "object": "response", "status": word, "model": "o3-pro", "output": None}
        if word in ("completed", "incomplete"):
            content = [{"type": "output_text", "text": self.text}]
            body["output"] = [{"type": "reasoning"}, {"type": "message", "content": content}]
        if word == "failed":
            body["error"] = {"code": "server_error", "message": "It went wrong."}
        if word == "incomplete":
            body["incomplete_details"] = {"reason": "max_output_tokens"}
        if word in _OVER - {"cancelled"}:  # of which it tells later, if it has finished it all the same
            body["usage"] = {"input_tokens": 10, "output_tokens": 100}
        return body


_ENDS = {"fails": "failed", "incomplete": "incomplete", "cancelled by the service": "cancelled"}


class Weather:
    """
    Which faults meet the exchanges, and how often; each seed has some of its own.

    Attributes:
        is_calm: Whether none does any more.
    """

    def __init__(self, luck: Random) -> None:
        self._luck = luck
        self.is_calm = False
        few = luck.choice((0, 1, 2, 3, 5, 8))
        self.rates = {name: luck.choice(_RATES) for name in luck.sample(sorted(FAULTS), few)}
        self.traits = luck.sample(TRAITS, luck.choice((0, 1, 2, 3)))
        self.tells_limits = luck.random() < 0.2
        self._storm, self._until = "", 0.0
        self.token_trouble = luck.choice((0.0, 0.0, 0.0, 0.0, 0.1, 0.5))
        self.connect_trouble = luck.choice((0.0,) * 9 + (0.3,))
        self._has_storms = bool(self.rates) and luck.random() < 0.3

    def fault(self, verb: str, now: float) -> Fault | None:
        """Answer what meets an exchange of this verb now, if anything does."""
        if self.is_calm:
            return None
        initial = "x" if verb == "cancel" else verb[0]
        if self._has_storms and now >= self._until and self._luck.random() < 0.1:
            self._storm, self._until = self._luck.choice(list(self.rates)), now + self._luck.choice((10, 35, 130))
        if now < self._until and initial in FAULTS[self._storm].verbs:
            return FAULTS[self._storm]
        for name, rate in self.rates.items():
            if initial in FAULTS[name].verbs and self._luck.random() < rate:
                return FAULTS[name]
        return None

    def lacks(self, rate: float) -> bool:
        """Tell whether something is missing that is missing at this rate."""
        return not self.is_calm and self._luck.random() < rate

    def some_traits(self) -> frozenset[str]:
        """Answer what is odd about a new response."""
        return frozenset(trait for trait in self.traits if self._luck.random() < 0.5)


class Service:
    """
    The service.

    Attributes:
        responses: All that were accepted, by their id.
        accepted: How many were accepted for each job, by our tag.
    """

    def __init__(self, luck: Random, judge: Judge) -> None:
        self.weather = Weather(luck)
        self.responses: dict[str, Response] = {}
        self.accepted: Counter[str] = Counter()
        self.luck = luck
        self._judge = judge
        judge.runs = self._runs

    async def exchange(
        self, method: str, path: str, timeout: float | None, body: Mapping[str, Any] | None = None
    ) -> Answer:
        """Answer a request; what meets it on its way is luck."""
        loop = asyncio.get_running_loop()
        is_cancel = path.endswith("/cancel")
        verb = _VERBS[method, is_cancel]
        response_id = unquote(path.removeprefix("responses").removesuffix("/cancel").removeprefix("/"))
        job_id = self._job_of(response_id, body)
        fault = self.weather.fault(verb, loop.time())
        self._judge.asked(verb, job_id, fault)
        arrives = fault is None or (self.luck.random() < 0.5 if fault.arrives is None else fault.arrives)
        arrival: asyncio.Future[Answer] = loop.create_future()
        there, back = self.luck.choice(_LATENCIES), self.luck.choice(_LATENCIES)

        def deliver(outcome: Answer | Exception) -> None:
            if arrival.done():  # who asked has gone
                return
            if isinstance(outcome, Exception):
                arrival.set_exception(outcome)
            else:
                arrival.set_result(outcome)

        def arrive() -> None:
            good = self._carry_out(verb, response_id, job_id, body) if arrives else Answer(200, {}, b"{}")
            if fault is None or good.status_code >= 400:
                outcome: Answer | Exception = good
            elif fault.outcome is None:
                return
            else:
                outcome = fault.outcome(self.luck, good)
            loop.call_later(back, deliver, outcome, context=Context())

        loop.call_later(there, arrive, context=Context())
        async with asyncio.timeout(timeout):
            answer = await arrival
        if verb == "look":
            is_good = answer.status_code == 200 and (
                fault is None or fault.name in ("unknown status", "back to queued")
            )
            self._judge.looked(job_id, answer, is_good=is_good)
        return answer

    def _runs(self, job_id: str) -> bool:
        now = asyncio.get_running_loop().time()
        return any(one.job_id == job_id and one.word(now) not in _OVER for one in self.responses.values())

    def _job_of(self, response_id: str, body: Mapping[str, Any] | None) -> str:
        if body is not None:
            return str(body["metadata"][JOB_TAG])
        response = self.responses.get(response_id)
        return "" if response is None else response.job_id

    def _carry_out(self, verb: str, response_id: str, job_id: str, body: Mapping[str, Any] | None) -> Answer:
        now = asyncio.get_running_loop().time()
        if verb == "create":
            assert body is not None
            response = self._accept(job_id, str(body["input"]), now)
            response.told.append(response.word(now))
            headers = {"apim-request-id": f"request-{len(self.responses)}"}
            if self.weather.tells_limits:
                headers |= {"x-ratelimit-limit-requests": "6", "x-ratelimit-remaining-requests": "5"}
            return Answer(200, headers, json.dumps(response.body(now)).encode())
        found = self.responses.get(response_id)
        if found is None or found.is_denied(now):
            said = {"error": {"code": None, "message": f"Response with id '{response_id}' not found."}}
            return Answer(404, {}, json.dumps(said).encode())
        if verb == "delete":
            found.is_deleted = True
            return Answer(200, {}, json.dumps({"id": found.id, "deleted": True}).encode())
        if verb == "cancel" and found.word(now) not in _OVER:
            found.cancelled_at = now
        if verb == "look":
            found.told.append(found.word(now))
        return Answer(200, {}, json.dumps(found.body(now)).encode())

    def _accept(self, job_id: str, question: str, now: float) -> Response:
        traits = self.weather.some_traits()
        length = 400.0 if "runs for long" in traits else self.luck.choice(_LENGTHS)
        if "ends at once" in traits:
            length = 0.0
        number = len(self.responses) + 1
        response = Response(f"resp_{number}", job_id, question, now, length, traits)
        self.responses[response.id] = response
        self.accepted[job_id] += 1
        self._judge.accepted(job_id, response.id, self.accepted[job_id], traits)
        return response


class _Lane:
    """A process's way to the service."""

    def __init__(self, service: Service, judge: Judge, most: int) -> None:
        self._service = service
        self._judge = judge
        self._most = most
        self._under_way = 0

    async def send(
        self, method: str, path: str, timeout: float | None, body: Mapping[str, Any] | None = None
    ) -> Answer:
        self._under_way += 1
        self._judge.holds(self._under_way <= self._most, "more requests under way than allowed")
        try:
            await self.token()
            return await self._service.exchange(method, path, timeout, body)
        finally:
            self._under_way -= 1

    async def token(self) -> None:
        """Have a token at hand, if Entra ID gives one."""
        luck = self._service.luck
        await asyncio.sleep(luck.choice(_LATENCIES[:4]))
        if self._service.weather.lacks(self._service.weather.token_trouble):
            self._judge.befalls("no token")
            raise RemoteTrouble(luck.choice((Trouble.DENIED, Trouble.UNSENT)), Failure("credential", "simulated"))

    async def aclose(self) -> None:
        """Nothing is its own."""


class _Sdk:
    async def close(self) -> None:
        """Nothing is open."""


class SimulatedClient:
    """A client whose remote is the real one, on a simulated wire."""

    def __init__(self, service: Service, judge: Judge, most: int) -> None:
        self.config = CONFIG
        self._facts = service, judge, most

    def is_ready(self) -> bool:
        return True

    async def connect(self) -> ResponsesRemote:
        service, judge, _ = self._facts
        if service.weather.lacks(service.weather.connect_trouble):
            judge.befalls("no client")
            raise RemoteTrouble(Trouble.REFUSED, Failure("client", "simulated"))
        lane = _Lane(*self._facts)
        return ResponsesRemote(_Sdk(), CONFIG, lane, lane.token)  # type: ignore[arg-type]
