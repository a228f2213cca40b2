"""How a single job looks: what is known of it, its question, what came of it, and what can be done about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from o3pro_bg._replies import error_of
from o3pro_bg._shown import duration, money
from o3pro_bg._states import JobStatus
from o3pro_bg.web._amounts import SHORT, lasted, moment
from o3pro_bg.web._markup import Html, fill, join, phrase
from o3pro_bg.web._phrases import PHRASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from o3pro_bg._records import JobRecord
    from o3pro_bg._sentences import Language
    from o3pro_bg.web._asked import Asked
    from o3pro_bg.web._desk import Desk, Details


def detail(desk: Desk, asked: Asked, record: JobRecord, reply: Mapping[str, str]) -> Html:
    """Answer a job, with what `get_result` answers for it."""
    language, word = asked.language, record.status.value
    return fill(
        language,
        "detail",
        word=word,
        status_said=phrase(language, f"status.{word}"),
        short=record.job_id[:SHORT],
        back_link=asked.link(job=""),
        facts=join(
            fill(language, "fact", name=phrase(language, name), value=value, kind=kind)
            for name, value, kind in _facts(desk, language, record)
        ),
        text=record.request.question or phrase(language, "no_question"),
        outcome=join(_outcome(desk, language, record, reply)),
        acts=_act(asked, record),
    )


def _facts(desk: Desk, language: Language, record: JobRecord) -> Iterator[tuple[str, str, str]]:
    details = desk.details(record)
    yield "elapsed", lasted(language, record, desk.row(record, has_details=False)["elapsed_time"]), ""
    yield "effort", record.request.effort, ""
    yield "created", moment(language, record), "broad"
    if not record.status.is_terminal:
        yield from _hopes(language, details)
    if (tokens := details["tokens"]) is not None:
        counts = {kind: f"{count:,}" for kind, count in tokens.items()}
        yield "tokens", phrase(language, "tokens_said", **counts), "broad"
    if details["cost"] is not None:
        yield "cost_estimate", phrase(language, "about", money=money(details["cost"])), "broad"
    ids = {"job": record.job_id, "response_id": details["response_id"], "request_id": details["request_id"]}
    for name, value in ids.items():
        if value:
            yield name, fill(language, "code", text=value), "broad"


def _hopes(language: Language, details: Details) -> Iterator[tuple[str, str, str]]:
    """Tell what is waited for."""
    if waiting := details["waiting"]:
        yield "waiting", PHRASES[language].get(f"waiting.{waiting}", waiting), "broad"
    if (left := details["next_look"]) is not None:
        until = fill(language, "until", until=f"{time.time() + left:.3f}", text=duration(left))
        yield "next_look", until, ""


def _outcome(desk: Desk, language: Language, record: JobRecord, reply: Mapping[str, str]) -> Iterator[Html]:
    """Tell what came of a job: an answer, why there is none, or both where it was cut off."""
    spoken = language
    error = error_of(record, language)
    if error is None and (error := reply.get("error")) is not None:
        spoken = desk.language
    if not record.status.is_terminal:
        key = "no_answer_yet" if record.cancel_requested_at is None else "cancelling"
        yield fill(
            language,
            "outcome",
            name=phrase(language, "answer"),
            text=phrase(language, key),
            kind="none",
            spoken=language,
        )
        return
    if error is not None:
        name = phrase(language, "error")
        kind = "none" if record.status is JobStatus.CANCELLED else "note bad"
        yield fill(language, "outcome", name=name, text=error, kind=kind, spoken=spoken)
    if (answer := reply.get("response")) is not None:
        yield fill(language, "answer", name=phrase(language, "answer" if error is None else "cut_answer"), text=answer)


def _act(asked: Asked, record: JobRecord) -> Html:
    action = "remove" if record.status.is_terminal else "cancel"
    return fill(
        asked.language,
        "act",
        action=action,
        ask=phrase(asked.language, action),
        sure=phrase(asked.language, f"{action}_sure"),
        yes=phrase(asked.language, f"{action}_yes"),
        here=asked.link(),
        job_id=record.job_id,
    )
