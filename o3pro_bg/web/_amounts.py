"""How the page tells times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from o3pro_bg._shown import duration
from o3pro_bg.web._markup import Html, fill

if TYPE_CHECKING:
    from o3pro_bg._records import JobRecord
    from o3pro_bg._sentences import Language

SHORT: Final = 8  # characters of an id where the whole of it has no room


def moment(language: Language, record: JobRecord) -> Html:
    """Answer when a job was started; scripts tell it in the reader's own time."""
    at = datetime.fromtimestamp(record.created_at, UTC)
    return fill(language, "moment", iso=f"{at:%Y-%m-%dT%H:%M:%SZ}", text=f"{at:%Y-%m-%d %H:%M} UTC")


def lasted(language: Language, record: JobRecord, seconds: float) -> Html:
    """Answer how long a job has taken; of one under way scripts go on counting."""
    if record.status.is_terminal:
        return Html(duration(seconds))
    return fill(language, "lasting", since=f"{record.created_at:.3f}", text=duration(seconds))
