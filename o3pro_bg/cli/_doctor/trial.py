"""The tiny questions of `doctor --live`: what is asked, in which order, and how long it may take."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._admission import admit
from o3pro_bg._remote import Trouble
from o3pro_bg.cli._doctor import facts
from o3pro_bg.cli._doctor.facts import ENDED, FACTS, UNKNOWN, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from o3pro_bg._records import JobRequest
    from o3pro_bg.cli._doctor.witness import Said, Witness
    from o3pro_bg.config import O3ProConfig

QUESTIONS: Final = 4  # at most: the tiny one, the same again, one to cancel, one with completion_window
MOST_TOKENS: Final = 1000  # of each answer
INPUT_TOKENS: Final = 40  # of each question, about
_TINY: Final = "Answer with the word ok, and nothing else."
_LONG: Final = "Prove in five different ways that there are infinitely many primes."
_EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # the cheapest first
_WINDOW: Final = "24h"

_WHOLE: Final = 170.0  # seconds for all of it, beside tidying up
_TO_END: Final = 120.0  # seconds in which the tiny question should be answered
_BETWEEN_LOOKS: Final = 2.0
_GRACE: Final = 15.0  # seconds in which a response may not be found yet
_SETTLED: Final = 20.0  # seconds after a cancel until it is looked at again
_LONGEST_PAUSE: Final = 30.0  # seconds that a 429 is waited for


class Trial:
    """
    Asks a deployment what only it can tell; `rows` holds what was found.

    Args:
        witness: The way to it.
        config: What is configured.
    """

    def __init__(self, witness: Witness, config: O3ProConfig) -> None:
        self._witness = witness
        self._config = config
        self._found: dict[str, Row] = {}
        self._why_not = "it was stopped before"
        self.first: Said | None = None
        self.effort = ""

    @property
    def rows(self) -> list[Row]:
        """Answer a row for each fact."""
        found = {**self._found, **{row.fact: row for row in facts.of_headers(self._witness.said)}}
        return [found.get(fact, Row(fact, UNKNOWN, self._why_not)) for fact in FACTS]

    async def run(self) -> None:
        """Ask; what goes wrong on the way is a row."""
        try:
            async with asyncio.timeout(_WHOLE):
                await self._ask()
        except TimeoutError:
            self._why_not = f"not found out within {_WHOLE:.0f} s"

    async def _ask(self) -> None:
        begun = time.monotonic()
        first, request, tags = await self._begin()
        self._put(facts.of_background(first))
        if not first.response_id:
            self._why_not = f"no response was made: {first}"
            return
        await self._repeat(first, request, tags)
        await self._witness.look(first.response_id)
        stopped = await self._stop()
        await self._widen()
        await self._end(first.response_id, begun)
        if stopped is not None:
            await self._look_again(*stopped)
        deleted = await self._witness.delete(first.response_id)
        self._put(facts.of_delete(deleted, await self._witness.look(first.response_id)))

    async def _begin(self) -> tuple[Said, JobRequest, tuple[str, str]]:
        """Ask the tiny question with the lowest effort that the deployment takes; a refused one costs nothing."""
        for effort in self._efforts():
            self.effort = effort
            tags = _job_id(), secrets.token_hex(16)
            request = self._request(_TINY)
            self.first = said = await self._create(tags[0], request, tags[1])
            if not said.blames("effort"):
                break
        return said, request, tags

    async def _repeat(self, first: Said, request: JobRequest, tags: tuple[str, str]) -> None:
        """Send the very same create with the very same idempotency key."""
        second = await self._create(tags[0], request, tags[1])
        self._put(facts.of_idempotency(first, second))
        if second.response_id not in ("", first.response_id):
            await self._witness.cancel(second.response_id)

    async def _stop(self) -> tuple[str, Said, Said, float] | None:
        """Ask what takes longer, cancel it, and look at once."""
        created = await self._create(_job_id(), self._request(_LONG))
        if not created.response_id:
            self._put(Row(facts.CANCEL, UNKNOWN, f"nothing to cancel was made: {created}"))
            return None
        cancelled = await self._witness.cancel(created.response_id)
        at = time.monotonic()
        return created.response_id, cancelled, await self._witness.look(created.response_id), at

    async def _widen(self) -> None:
        """Ask with a `completion_window`; what comes of it is stopped at once."""
        said = await self._create(_job_id(), self._request(_TINY, completion_window=_WINDOW))
        self._put(facts.of_window(said, _WINDOW))
        if said.response_id:
            await self._witness.cancel(said.response_id)

    async def _end(self, response_id: str, begun: float) -> None:
        """Look until the tiny question is answered."""
        while True:
            said = await self._witness.look(response_id)
            seconds = time.monotonic() - begun
            if said.word in ENDED or seconds > _TO_END or _is_hopeless(said, seconds):
                break
            await asyncio.sleep(_BETWEEN_LOOKS)
        self._put(facts.of_answer(said, seconds))

    async def _look_again(self, response_id: str, cancelled: Said, at_once: Said, at: float) -> None:
        """Look at what was cancelled, some time later."""
        await asyncio.sleep(max(0.0, at + _SETTLED - time.monotonic()))
        later = await self._witness.look(response_id)
        self._put(facts.of_cancel(cancelled, at_once, later, time.monotonic() - at))

    async def _create(self, job_id: str, request: JobRequest, key: str = "") -> Said:
        """Create; a 429 that says how long, and not for too long, is waited for: nothing was made by it."""
        for _ in range(3):
            said = await self._witness.create(job_id, request, key)
            is_throttled = said.trouble is not None and said.trouble.kind is Trouble.THROTTLED
            pause = said.trouble.retry_after if said.trouble is not None and is_throttled else None
            if pause is None or pause > _LONGEST_PAUSE:
                break
            await asyncio.sleep(pause)
        return said

    def _request(self, question: str, **options: Any) -> JobRequest:
        options["max_output_tokens"] = MOST_TOKENS
        return admit(self._config, question, self.effort, None, options)

    def _efforts(self) -> Sequence[str]:
        return [effort for effort in _EFFORTS if effort in self._config.efforts] or [*self._config.efforts]

    def _put(self, row: Row) -> None:
        self._found[row.fact] = row


def _job_id() -> str:
    """Answer what a create of ours is tagged with, as a job's is."""
    return f"doctor-{secrets.token_hex(8)}"


def _is_hopeless(look: Said, seconds: float) -> bool:
    """Tell whether a look was refused for good; a response that was just made may not be found at first."""
    kind = look.trouble.kind if look.trouble is not None else None
    return kind in (Trouble.DENIED, Trouble.REFUSED) or (kind is Trouble.MISSING and seconds > _GRACE)
