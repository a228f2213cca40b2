"""
One modelled response and its clock.

Nothing runs while a response "thinks": its status is computed from the time that is asked about, so ten
thousand of them cost nothing between looks. Times are seconds on one monotonic clock, given by the caller.
"""

import os
from dataclasses import dataclass, field
from typing import Any

from o3pro_bg.emulator._creation import Creation
from o3pro_bg.emulator._knobs import Knobs

TERMINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})
_REASONING = {"none": 0, "minimal": 64, "low": 256, "medium": 1024, "high": 4096, "xhigh": 8192, "max": 16384}
_MARK = "[emulator]"


def _new_id() -> str:
    return "resp_emulator_" + os.urandom(20).hex()


@dataclass(slots=True)
class ModelledResponse:
    """Models one response from its create to its end."""

    creation: Creation
    knobs: Knobs
    born: float
    created_at: int
    id: str = field(default_factory=_new_id)
    looks: int = 0
    cancelled_at: float | None = None
    _progress_looks: int = 0

    @property
    def ends(self) -> float:
        """Is the time at which the response is terminal, if nobody cancels it."""
        return float("inf") if self.knobs.outcome == "never" else self.born + self.knobs.seconds

    def status(self, now: float) -> str:
        """Returns the true status at `now`."""
        if self.completed_late(now):
            return "completed"
        if self.cancelled_at is not None:
            return "cancelled"
        if now >= self.ends:
            return self.knobs.outcome
        still_queued = self.knobs.skip_progress or now < self.born + self.knobs.queued_seconds
        return "queued" if still_queued else "in_progress"

    def status_for_look(self, now: float) -> str:
        """Returns the status that a look reports: the true one, unless the response walks backwards."""
        status = self.status(now)
        if status == "in_progress":
            self._progress_looks += 1
            if self.knobs.backwards and self._progress_looks == 2:
                return "queued"
        return status

    def completed_late(self, now: float) -> bool:
        """Returns whether the response was cancelled and reads completed all the same."""
        late = self.knobs.late_completion
        return self.cancelled_at is not None and late is not None and now >= self.cancelled_at + late

    def cancel(self, now: float) -> None:
        """Cancels the response; one that has ended stays as it is."""
        if self.status(now) not in TERMINAL:
            self.cancelled_at = now

    @property
    def lost(self) -> bool:
        """Is true once the response was looked at so often that the service has lost it."""
        return self.knobs.lost_after is not None and self.looks >= self.knobs.lost_after

    @property
    def answer(self) -> str:
        """Is the whole text of the answer: made up, and marked as such."""
        if self.knobs.text is not None:
            return f"{_MARK} {self.knobs.text}" if self.knobs.text else ""
        return (
            f"{_MARK} This answer is made up: no model was asked. The question has "
            f"{len(self.creation.prompt)} characters, and the effort was {self.creation.effort}."
        )

    @property
    def message_id(self) -> str:
        """Is the id of the message that holds the answer."""
        return "msg_" + self.id.removeprefix("resp_")

    def as_json(self, status: str) -> dict[str, Any]:
        """Returns the response as the service shows it in `status`."""
        creation, unborn = self.creation, self.knobs.nulls and status == "queued"
        return {
            "id": self.id,
            "object": "response",
            "created_at": None if unborn else self.created_at,
            "status": self.knobs.word if self.knobs.word and status == "in_progress" else status,
            "background": creation.background,
            "completed_at": self.created_at + int(self.knobs.seconds) if status == "completed" else None,
            "error": self._error() if status == "failed" else None,
            "incomplete_details": {"reason": self.knobs.reason} if status == "incomplete" else None,
            "max_output_tokens": creation.max_output_tokens,
            "metadata": creation.metadata,
            "model": f"emulator:{creation.deployment}",
            "output": None if unborn else self._output(status),
            "parallel_tool_calls": True,
            "reasoning": creation.reasoning,
            "store": creation.store,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self._usage(status) if status in ("completed", "incomplete") else None,
            **creation.echoed,
        }

    def _error(self) -> dict[str, str]:
        return {"code": self.knobs.code, "message": f"{_MARK} The response failed, as its knobs asked."}

    def text(self, status: str) -> str:
        """Returns the text that is there in `status`: the whole answer, or half of it."""
        return self.answer if status == "completed" else self.answer[: len(self.answer) // 2]

    def _output(self, status: str) -> list[dict[str, Any]]:
        if status not in ("completed", "incomplete"):
            return []
        part = {"type": "output_text", "text": self.text(status), "annotations": [], "logprobs": []}
        message = {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [part],
        }
        return [{"id": "rs_" + self.id.removeprefix("resp_"), "type": "reasoning", "summary": []}, message]

    def _usage(self, status: str) -> dict[str, Any]:
        bound = self.creation.max_output_tokens or 100_000
        visible = min(bound, (len(self.text(status)) + 3) // 4)
        reasoning = min(bound - visible, _REASONING[self.creation.effort] + self.creation.input_tokens // 64 * 64)
        return {
            "input_tokens": self.creation.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": visible + reasoning,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": self.creation.input_tokens + visible + reasoning,
        }
