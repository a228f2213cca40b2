"""
What an answer of the service says: news, or trouble.

Every answer passes one gate, `read`, and every refusal one table, so that whatever a service or a gateway sends ends as
one of the two. The SDK's models are not asked: they raise on, or silently accept, bodies that services really send
(null output, HTML with status 200, truncated JSON).
"""

from __future__ import annotations

import functools
import json
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from o3pro_bg._headers import limits_of, poll_after_of, request_id_of, reset_after_of, retry_after_of
from o3pro_bg._records import Failure, News, Usage
from o3pro_bg._remote import RemoteTrouble, Trouble
from o3pro_bg._states import SERVICE_WORDS, Event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from o3pro_bg._headers import Answer

log = logging.getLogger("o3pro_bg")


def read(response: Answer, *, asked: str | None) -> News:
    """
    Answer the news of a response that was just created, or of the one that was asked for.

    Raises:
        RemoteTrouble: It makes no sense, or is about another response.
    """
    data = json_of(response)
    response_id, word = data.get("id"), data.get("status")
    # An id of dots alone would lead out of its place in the path.
    known = isinstance(response_id, str) and response_id.strip(".") != "" and asked in (None, response_id)
    # A created response is worth watching whatever else is odd about the answer; a look has to make sense.
    if not known or (asked is not None and not isinstance(word, str)):
        raise bad_answer(response)
    return News(
        event=_event(word),
        response_id=str(response_id),
        request_id=request_id_of(response),
        answer=_text_of(data),
        output_items=_items_of(data),
        failure=_failure_of(data),
        usage=_usage_of(data),
        model=_model_of(data),
        poll_after=poll_after_of(response),
        limits=limits_of(response) if asked is None else None,
    )


def _event(word: object) -> Event | None:
    event = SERVICE_WORDS.get(word) if isinstance(word, str) else None
    if event is None:
        _warn_of(repr(word)[:60])
    return event


@functools.lru_cache(maxsize=100)
def _warn_of(word: str) -> None:
    """Warn of a status that is not known here: once, not at each look."""
    log.warning("the service reports a status that is not known here, %s: jobs stay as they are", word)


def json_of(response: Answer) -> dict[str, Any]:
    """Read a body as a JSON object; whatever is none reads as empty (HTML, null, cut off, too deep, not UTF-8)."""
    try:
        data = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _glimpse(response: Answer) -> str:
    kind = response.headers.get("content-type", "no content type").partition(";")[0][:100]
    return f"HTTP {response.status_code} with {len(response.content)} bytes of {kind}"


def bad_answer(response: Answer) -> RemoteTrouble:
    """Answer the trouble that an answer without sense is."""
    return RemoteTrouble(Trouble.UNCLEAR, Failure("bad_answer", _glimpse(response)), request_id=request_id_of(response))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text_of(data: Mapping[str, Any]) -> str:
    """Answer the text of all messages of the output; where there is none, the words of a refusal."""
    parts = [part for item in _dicts(data.get("output")) for part in _dicts(item.get("content"))]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
    return "".join(texts or refusals)


def _items_of(data: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Answer what the output holds beside text and reasoning, such as calls of tools."""
    return tuple(item for item in _dicts(data.get("output")) if item.get("type") not in ("message", "reasoning"))


_CUT_SHORT: Final = ("max_output_tokens", "content_filter")  # the reasons with a sentence of their own


def _failure_of(data: Mapping[str, Any]) -> Failure | None:
    if data.get("status") == "incomplete":
        details = data.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        code = f"incomplete_{reason}" if reason in _CUT_SHORT else "incomplete"
        return Failure(code, f"incomplete: {_line_of(reason[:100])}" if isinstance(reason, str) else "")
    if data.get("status") == "failed":
        code, detail = _error_of(data)
        return Failure(code or "server_error", detail or "the service gave no reason")
    return None


def _usage_of(data: Mapping[str, Any]) -> Usage | None:
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return None

    def count(parent: object, key: str) -> int:
        value = parent.get(key) if isinstance(parent, dict) else None
        return value if isinstance(value, int) and 0 <= value < 2**53 else 0  # what any reader of JSON can hold

    return Usage(
        input_tokens=count(usage, "input_tokens"),
        output_tokens=count(usage, "output_tokens"),
        reasoning_tokens=count(usage.get("output_tokens_details"), "reasoning_tokens"),
        cached_tokens=count(usage.get("input_tokens_details"), "cached_tokens"),
    )


def _model_of(data: Mapping[str, Any]) -> str | None:
    model = data.get("model")
    return model if isinstance(model, str) and 0 < len(model) <= 200 and model.isprintable() else None


def _error_of(data: Mapping[str, Any]) -> tuple[str, str]:
    """Answer the code and the message of Azure's error body, of API Management's, or of OpenAI's."""
    error = data.get("error")
    body: Mapping[str, Any] = error if isinstance(error, dict) else data
    code, message = body.get("code"), body.get("message")
    fired = _fired_filters(body.get("innererror"))
    detail = _line_of(message[:1000])[:500] if isinstance(message, str) else ""
    # It goes into logs: a code is one word, and not whatever text a gateway puts there.
    word = code[:60] if isinstance(code, str) else ""
    return (word if re.fullmatch(r"[\w.-]+", word, re.ASCII) else ""), f"{detail}{fired}"


def _line_of(text: str) -> str:
    """Answer this as one line, without what a terminal would obey."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _fired_filters(innererror: object) -> str:
    result = innererror.get("content_filter_result") if isinstance(innererror, dict) else None
    if not isinstance(result, dict):
        return ""
    fired = [name for name, verdict in result.items() if isinstance(verdict, dict) and verdict.get("filtered")]
    return f" [{', '.join(fired)}]" if fired else ""


# HTTP status, a word that the code or the message holds, what it means, our word for it; the first row that fits.
_REFUSALS: Final = (
    (400, "content_filter", Trouble.REFUSED, "content_filter"),
    (401, "audience", Trouble.DENIED, "wrong_audience"),
    (401, "", Trouble.DENIED, "invalid_key"),
    (403, "", Trouble.DENIED, "forbidden"),
    (404, "DeploymentNotFound", Trouble.MISSING, "deployment_not_found"),
    (404, "Response with id", Trouble.MISSING, "lost"),
    (404, "", Trouble.MISSING, "resource_not_found"),
    (408, "", Trouble.UNCLEAR, ""),
    (410, "", Trouble.MISSING, "lost"),
    (429, "insufficient_quota", Trouble.REFUSED, "insufficient_quota"),
    (429, "", Trouble.THROTTLED, ""),
)


def _meaning_of(status: int, said: str) -> tuple[Trouble, str]:
    if status < 400:
        return Trouble.REFUSED, "redirected"
    rows = ((kind, name) for row, word, kind, name in _REFUSALS if row == status and word in said)
    return next(rows, (Trouble.UNCLEAR if status >= 500 else Trouble.REFUSED, ""))


def trouble_of(response: Answer) -> RemoteTrouble:
    """Answer the trouble that a refusal is."""
    code, message = _error_of(json_of(response))
    kind, name = _meaning_of(response.status_code, f"{code} {message}")
    failure = Failure(name or code or f"http_{response.status_code}", message or _glimpse(response))
    retry_after, limits = retry_after_of(response), None
    if kind is Trouble.THROTTLED:
        limits = limits_of(response)
        retry_after = reset_after_of(response) if retry_after is None else retry_after
    return RemoteTrouble(kind, failure, retry_after=retry_after, request_id=request_id_of(response), limits=limits)
