"""Continuation tokens: what it takes to take a job up elsewhere, versioned and allow-listed."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._figures import is_figure
from o3pro_bg.errors import InvalidRequest, JobNotFinished

if TYPE_CHECKING:
    from o3pro_bg._records import JobRecord

_PREFIX: Final = "o3pro-bg-1:"  # the 1 is the version
_TEXTS: Final = ("job_id", "response_id", "effort", "deployment")
_LONGEST: Final = 512  # characters of an id


def is_token(text: str) -> bool:
    """Tell whether this is meant to be a token, of whatever version, and not a response id."""
    return text.startswith("o3pro-bg-")


def is_id(text: str) -> bool:
    """Tell whether this can be a response's id: one printable word, and no step up in a path."""
    return 0 < len(text) <= _LONGEST and text.isprintable() and " " not in text and not text.startswith(".")


def to_token(record: JobRecord) -> str:
    """
    Answer a printable token with which another handler takes the job up.

    It holds a version, the two ids, the effort, the deployment and the time of submission: no secret, and
    neither the question nor the answer.

    Raises:
        JobNotFinished: The service has not accepted the job yet, so there is nothing to take up.
    """
    if record.response_id is None:
        raise JobNotFinished(
            f"job {record.job_id} has no response id yet: ask for its token once the service has accepted it",
            job_id=record.job_id,
        )
    facts = {
        "job_id": record.job_id,
        "response_id": record.response_id,
        "effort": record.request.effort,
        "deployment": record.request.deployment,
        "created_at": record.created_at,
    }
    return _PREFIX + base64.urlsafe_b64encode(json.dumps(facts).encode()).decode()


def from_token(token: str) -> dict[str, Any]:
    """
    Answer the facts of a token: `job_id`, `response_id`, `effort`, `deployment`, `created_at`.

    Raises:
        InvalidRequest: It is damaged, or of a version that this library does not read.
    """
    if not token.startswith(_PREFIX):
        raise InvalidRequest("this continuation token was made by another version of o3pro_bg")
    try:
        facts = json.loads(base64.b64decode(token.removeprefix(_PREFIX), altchars=b"-_", validate=True))
        whole = {*facts} == {*_TEXTS, "created_at"} and all(isinstance(facts[name], str) for name in _TEXTS)
        whole = whole and all(len(facts[name]) <= _LONGEST and facts[name].isprintable() for name in _TEXTS)
        whole = whole and is_id(facts["response_id"]) and facts["job_id"] != "" and is_figure(facts["created_at"])
    except (ValueError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise InvalidRequest("this continuation token is damaged")
    return dict(facts)
