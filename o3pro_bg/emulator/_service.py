"""The four verbs: create, look, cancel, delete."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from o3pro_bg.emulator import _errors
from o3pro_bg.emulator._creation import JOB_ID, Creation, understand
from o3pro_bg.emulator._faults import SERVER, Tally
from o3pro_bg.emulator._knobs import Knobs
from o3pro_bg.emulator._quota import Quota
from o3pro_bg.emulator._responses import ModelledResponse
from o3pro_bg.emulator._stream import follow
from o3pro_bg.emulator._wire import Reply

_COUNTED = ("creates", "accepted", "looks", "cancels", "deletes", "refused", "dropped", "streams")


@dataclass(frozen=True, slots=True)
class Call:
    """Holds one request for a verb; `response_id` is empty for a create."""

    verb: str
    response_id: str
    query: dict[str, str]
    body: bytes


class Service:
    """Holds the modelled responses and performs verbs on them."""

    def __init__(self, knobs: Knobs) -> None:
        self._knobs = knobs
        self._tally = Tally()
        self.forget()

    def forget(self) -> None:
        """Forgets every response, and starts all counts anew."""
        self.counts = dict.fromkeys(_COUNTED, 0)
        self._held: dict[str, ModelledResponse] = {}
        self._accepted_jobs: Counter[str] = Counter()
        self._quota = Quota()
        self._tally.forget()

    def turn(self, knobs: Knobs) -> None:
        """Replaces the server's knobs; the clock of a response that exists stays as it is."""
        self._knobs = knobs
        self._tally.forget(SERVER)

    def counters(self) -> dict[str, Any]:
        """Returns every count, in the words of the page."""
        now = time.monotonic()
        return {
            **self.counts,
            "duplicates": {job: count for job, count in self._accepted_jobs.items() if count > 1},
            "late_completions": sum(response.completed_late(now) for response in self._held.values()),
            "responses": len(self._held),
        }

    def rate_headers(self) -> dict[str, str]:
        """Returns the x-ratelimit headers of this moment."""
        return self._quota.headers(time.monotonic(), self._knobs.rpm, self._knobs.tpm)

    async def refuse(self, refusal: _errors.Refusal) -> Reply:
        """Answers a request that reaches no verb, as late as any answer."""
        return await self._delay(refusal.reply, self._knobs)

    async def perform(self, call: Call) -> Reply:
        """Performs one verb, with the fault that is due at it."""
        self._count(call)
        try:
            creation = self._admit(call) if call.verb == "create" else None
        except _errors.Refusal as refusal:
            return await self.refuse(refusal)
        own, key = self._own(call, creation)
        knobs = self._knobs.overlay(own)
        fault = self._tally.due(key if "fault" in own else SERVER, knobs, call.verb)
        if fault is None:
            return await self._delay(await self._do(call, creation, knobs), knobs)
        performs = fault.performs or knobs.performed
        true = await self._do(call, creation, knobs) if performs else Reply()
        return await fault.act(await self._delay(true, knobs), knobs, call.response_id)

    def _count(self, call: Call) -> None:
        streams = call.verb == "look" and _wants_stream(call)
        self.counts["streams" if streams else f"{call.verb}s"] += 1

    def _admit(self, call: Call) -> Creation:
        # A create refused for the rate is not counted again: a client that waits as it is told gets through.
        now = time.monotonic()
        try:
            creation = understand(call.body)
        except _errors.Refusal:
            self._check_quota(now, 0)
            self._quota.spend(now, 0)
            raise
        tokens = creation.input_tokens + (creation.max_output_tokens or 0)
        self._check_quota(now, tokens)
        self._quota.spend(now, tokens)
        return creation

    def _check_quota(self, now: float, tokens: int) -> None:
        if wait := self._quota.wait(now, tokens, self._knobs.rpm, self._knobs.tpm):
            seconds = int(wait) + 1
            raise _errors.rate_limited({"retry-after": str(seconds)}, seconds)

    def _own(self, call: Call, creation: Creation | None) -> tuple[dict[str, Any], str]:
        """Returns the knobs of the job's own, and the key under which its faults are counted."""
        if creation is None and (held := self._held.get(call.response_id)) is not None:
            creation = held.creation
        return (creation.settings, creation.key) if creation is not None else ({}, SERVER)

    async def _delay(self, reply: Reply, knobs: Knobs) -> Reply:
        if knobs.latency:
            await asyncio.sleep(knobs.latency)
        return reply

    async def _do(self, call: Call, creation: Creation | None, knobs: Knobs) -> Reply:
        try:
            if creation is not None:
                return await self._create(creation, knobs)
            response = self._find(call.response_id)
            match call.verb:
                case "look" if _wants_stream(call):
                    return self._stream(response, call, knobs)
                case "look":
                    return self._look(response, knobs)
                case "cancel":
                    return self._cancel(response, knobs)
            return self._delete(response)
        except _errors.Refusal as refusal:
            return refusal.reply

    async def _create(self, creation: Creation, knobs: Knobs) -> Reply:
        response = ModelledResponse(creation, knobs, time.monotonic(), int(time.time()))
        self._held[response.id] = response
        self.counts["accepted"] += 1
        if (job := creation.metadata.get(JOB_ID)) is not None:
            self._accepted_jobs[job] += 1
        if creation.background:
            return _shown(response, response.status(response.born))
        await self._until_the_end(response)
        return _shown(response, response.status(response.ends))

    async def _until_the_end(self, response: ModelledResponse) -> None:
        try:
            await asyncio.sleep(response.ends - response.born)
        except asyncio.CancelledError:  # the client dropped the connection
            response.cancel(time.monotonic())
            self.counts["dropped"] += 1
            raise

    def _find(self, response_id: str) -> ModelledResponse:
        response = self._held.get(response_id)
        if response is None or response.lost:
            raise _errors.response_not_found(response_id)
        return response

    def _look(self, response: ModelledResponse, knobs: Knobs) -> Reply:
        response.looks += 1
        if response.looks <= response.knobs.missing_first:
            raise _errors.response_not_found(response.id)
        reply = _shown(response, response.status_for_look(time.monotonic()))
        if knobs.poll_after_ms is not None:
            reply.headers["openai-poll-after-ms"] = str(knobs.poll_after_ms)
        return reply

    def _stream(self, response: ModelledResponse, call: Call, knobs: Knobs) -> Reply:
        after = _starting_after(call.query.get("starting_after"))
        if time.monotonic() - response.born > knobs.stream_max_age:
            raise _errors.invalid("This response is too old to be streamed.", "stream", "invalid_value")
        return Reply(200, follow(response, after, knobs.cut), media="text/event-stream; charset=utf-8")

    def _cancel(self, response: ModelledResponse, knobs: Knobs) -> Reply:
        if not response.creation.background:
            raise _errors.invalid("Only responses created with 'background' set to true can be cancelled.")
        if knobs.cancel_status == 400:
            raise _errors.invalid(f"Response with id '{response.id}' cannot be cancelled.")
        if knobs.cancel_status == 409:
            raise _errors.conflict()
        now = time.monotonic()
        response.cancel(now)
        # A late completion of no seconds still answers this cancel with cancelled, as the service does.
        return _shown(response, "cancelled" if response.cancelled_at == now else response.status(now))

    def _delete(self, response: ModelledResponse) -> Reply:
        del self._held[response.id]
        return _json({"id": response.id, "object": "response", "deleted": True})


def _wants_stream(call: Call) -> bool:
    return call.query.get("stream", "").lower() == "true"


def _starting_after(value: str | None) -> int:
    if value is None:
        return -1
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise _errors.invalid("Invalid 'starting_after': expected an integer of 0 or more.", "starting_after")
    return int(value)


def _shown(response: ModelledResponse, status: str) -> Reply:
    return _json(response.as_json(status))


def _json(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode())
