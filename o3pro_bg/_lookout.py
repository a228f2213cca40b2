"""When a job is looked at again, and what failed looks come to."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Final

from o3pro_bg._pacing import backoff
from o3pro_bg._records import Failure, News
from o3pro_bg._remote import Trouble
from o3pro_bg._states import Event

if TYPE_CHECKING:
    from o3pro_bg._records import JobRecord
    from o3pro_bg._remote import RemoteTrouble
    from o3pro_bg._shared import Shared

log = logging.getLogger("o3pro_bg")

_LONGEST_PAUSE: Final = 600.0  # seconds between looks, whatever the service asks for
_UNNAMED_PATIENCE: Final = 20  # times `lost_after` for refusals that do not say what is missing
_WAITING: Final = {
    Trouble.THROTTLED: "rate_limit",
    Trouble.DENIED: "denied",
    Trouble.MISSING: "refused",
    Trouble.REFUSED: "refused",
}


class Lookout:
    """
    The looks at one job.

    Args:
        shared: What all jobs share.
        record: The job.

    Attributes:
        hint: Seconds until the next look that somebody asked for, or None.
        troubles: How many exchanges failed in a row.
        has_looked: Whether anything is known of the job by now.
    """

    def __init__(self, shared: Shared, record: JobRecord) -> None:
        self.hint: float | None = None
        self.troubles = 0
        self.has_looked = False
        self._shared = shared
        self._job_id = record.job_id
        self._like = shared.habits.of(record.request)
        self._missing_since: float | None = None
        now = shared.ledger.clock()
        age = record.age(now)
        self._is_dated = age is not None  # one that was attached began who knows when
        self._begun = now - (record.elapsed(now) if age is None else age)

    def pause(self) -> float:
        """Answer the seconds until the next look."""
        luck = random.random()
        if self.troubles:
            return max(backoff(self.troubles, luck), min(self.hint or 0.0, _LONGEST_PAUSE))
        known = self._like if self._is_dated else None
        return self._shared.pace.delay(self._age, luck, hint=self.hint, known=known)

    def accepted(self, news: News) -> None:
        """Note that a create brought these news: the job's age counts from now on, however long it waited before."""
        self.saw(news)
        self._is_dated, self._begun = True, self._shared.ledger.clock()

    def saw(self, news: News) -> None:
        """Note that a look brought news; from an end that was awaited and not just met, the pace learns."""
        if news.event is Event.ANSWERED and self._is_dated and self.has_looked and not self.troubles:
            self._like.add(self._age)
        self.has_looked = True
        self.troubles, self.hint, self._missing_since = 0, news.poll_after or None, None

    def failed(self, response_id: str, trouble: RemoteTrouble) -> News | None:
        """
        Note that a look failed; answer the news that the service has lost the response, if it has.

        That is believed of a service that keeps denying it by name: a gateway that leads elsewhere for a while denies
        everything. Only one that does so for long is believed, too.
        """
        self.has_looked = True
        self.troubles += 1
        self.hint = trouble.retry_after
        log.info("job %s: look %s (%s)", self._job_id, trouble.kind, trouble.failure.code)
        if trouble.kind in (Trouble.MISSING, Trouble.REFUSED):
            now = self._shared.ledger.clock()
            self._missing_since = now if self._missing_since is None else self._missing_since
            is_named = trouble.failure.code == "lost" or response_id in trouble.failure.detail
            if now - self._missing_since >= self._shared.lost_after * (1 if is_named else _UNNAMED_PATIENCE):
                return News(Event.LOST, failure=Failure("lost", trouble.failure.detail))
        self._shared.ledger.note(self._job_id, waiting=_WAITING.get(trouble.kind, "connection"))
        return None

    @property
    def _age(self) -> float:
        return self._shared.ledger.clock() - self._begun
