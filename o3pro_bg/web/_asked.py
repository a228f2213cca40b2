"""What of the page somebody asks for: the parameters of its address."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from o3pro_bg._states import JobStatus
from o3pro_bg.web._words import language_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from o3pro_bg._sentences import Language

FEW: Final = 50  # jobs that are shown at first
MOST: Final = 1000  # and at the most
_STATUSES: Final = frozenset(status.value for status in JobStatus)


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What is asked for; what makes no sense is taken as not said, since whoever looks at a page cannot mend it.

    Attributes:
        lang: The language that the address names, or nothing: then the browser's.
        status: The only status whose jobs are listed, or nothing.
        q: A text that the listed jobs hold, or nothing.
        limit: How many jobs are listed.
        job: The id of the job that is shown, or nothing.
        said: What an action has just done, as a phrase, or nothing.
    """

    language: Language
    lang: str = ""
    status: str = ""
    q: str = ""
    limit: int = FEW
    job: str = ""
    said: str = ""

    @classmethod
    def of(cls, request: Request) -> Asked:
        """Read the address of a request."""
        given = request.query_params
        lang, status, limit = (given.get(name, "") for name in ("lang", "status", "limit"))
        language: Language = "ja" if lang == "ja" else "en" if lang == "en" else language_of(request.headers)
        return cls(
            language,
            lang if lang == language else "",
            status if status in _STATUSES else "",
            given.get("q", ""),
            min(max(int(limit), 1), MOST) if limit.isascii() and limit.isdecimal() and len(limit) < 6 else FEW,
            given.get("job", ""),
            given.get("said", ""),
        )

    def link(self, **changes: object) -> str:
        """Answer the address of the page with these changes; what was said is said once."""
        asked: Asked = replace(self, **{"said": "", **changes})  # type: ignore[arg-type]
        names = ("lang", "status", "q", "limit", "job", "said")
        given = {name: value for name in names if (value := getattr(asked, name)) and (name != "limit" or value != FEW)}
        return "./" + ("?" + urlencode(given, errors="replace") if given else "")
