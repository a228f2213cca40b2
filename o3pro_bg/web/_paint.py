"""How the page looks: its frame, the form and the list."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from o3pro_bg._sentences import EN, JA, shown
from o3pro_bg._shown import money
from o3pro_bg._states import JobStatus
from o3pro_bg.web._amounts import SHORT, lasted, moment
from o3pro_bg.web._asked import FEW, MOST
from o3pro_bg.web._chart import chart
from o3pro_bg.web._markup import NOTHING, Html, fill, join, phrase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from o3pro_bg._records import JobRecord
    from o3pro_bg._sentences import Language
    from o3pro_bg.web._asked import Asked
    from o3pro_bg.web._desk import Desk

_SENTENCES: Final[Mapping[Language, Mapping[str, str]]] = {"en": EN, "ja": JA}


@dataclass(frozen=True, slots=True)
class Message:
    """What is said above all else; `spoken` is its language."""

    text: str
    spoken: Language
    is_bad: bool = True

    @classmethod
    def of(cls, error: str, spoken: Language, asked: Asked, job_id: str = "") -> Message:
        """
        Answer what the handler said of a job, in the language that is asked for.

        A sentence into which something was put that is not known here stays as it was said.
        """
        known, told = {"job_id": shown(job_id)}, _SENTENCES[asked.language]
        for key, sentence in _SENTENCES[spoken].items():
            if sentence.replace("{job_id}", known["job_id"]) == error:
                return cls(told[key].format(**known), asked.language)
        return cls(error, spoken)

    def painted(self) -> Html:
        """Answer it as HTML."""
        kind, role = ("bad", "alert") if self.is_bad else ("good", "status")
        return fill(self.spoken, "message", text=self.text, kind=kind, role=role, spoken=self.spoken)


@dataclass(frozen=True, slots=True)
class Draft:
    """What the form for a new job holds."""

    most: int
    question: str
    effort: str

    @classmethod
    def of(cls, fields: Mapping[str, str], most: int) -> Draft:
        """Answer what the fields of a form that could not be taken leave in it."""
        return cls(most, fields.get("question", ""), fields.get("effort", ""))


def frame(asked: Asked, heading: str, main: Html, *, is_emulator: bool) -> Html:
    """Answer a whole page around this."""
    other = "en" if asked.language == "ja" else "ja"
    return fill(
        asked.language,
        "frame",
        lang=asked.language,
        heading=heading,
        home=asked.link(job="", status="", q="", limit=FEW),
        other_lang=other,
        other=asked.link(lang=other),
        mark=fill(asked.language, "mark") if is_emulator else NOTHING,
        main=main,
    )


def login(asked: Asked, message: Message | None) -> Html:
    """Answer the form that asks for the token."""
    said = NOTHING if message is None else message.painted()
    return fill(asked.language, "login", message=said, query=asked.link()[2:])


def overview(desk: Desk, asked: Asked, draft: Draft, wanted: Sequence[JobRecord]) -> Html:
    """Answer what stands above the list: the form, and the chart."""
    efforts = join(_option(asked.language, effort, effort, draft.effort) for effort in desk.efforts)
    return fill(
        asked.language,
        "top",
        here=asked.link(),
        key=secrets.token_hex(16),
        most=draft.most,
        asked=draft.question,
        efforts=efforts,
        chart=chart(desk, asked, wanted),
    )


def listing(desk: Desk, asked: Asked, wanted: Sequence[JobRecord], **parts: object) -> Html:
    """Answer the page's main part: the list of these jobs, the newest first, below the other parts."""
    language, shown = asked.language, wanted[: asked.limit]
    choices = [("", phrase(language, "all"))]
    choices += [(status.value, phrase(language, f"status.{status.value}")) for status in JobStatus]
    kept = {name: value for name in ("lang", "job") if (value := getattr(asked, name))}
    return fill(
        language,
        "main",
        now=time.time(),
        job_id=asked.job,
        kept=join(fill(language, "kept", name=name, value=value) for name, value in kept.items()),
        choices=join(_option(language, value, text, asked.status) for value, text in choices),
        q=asked.q,
        rows=join(_row(desk, asked, record) for record in shown) or _empty(asked),
        foot=_foot(asked, len(shown), len(wanted)),
        **parts,
    )


def _option(language: Language, value: str, text: str, chosen: str) -> Html:
    selected = Html(" selected") if value == chosen else NOTHING
    return fill(language, "option", value=value, text=text, selected=selected)


def _empty(asked: Asked) -> Html:
    text = phrase(asked.language, "none_found" if asked.q or asked.status else "none_yet")
    return fill(asked.language, "empty", text=text)


def _foot(asked: Asked, shown: int, total: int) -> Html:
    count = phrase(asked.language, "count", shown=f"{shown:,}", total=f"{total:,}") if total else ""
    if shown == total:
        return fill(asked.language, "count", text=count)
    if shown >= MOST:
        return fill(asked.language, "count", text=f"{count} {phrase(asked.language, 'narrow')}")
    return fill(asked.language, "further", text=count, link=asked.link(limit=min(asked.limit + 2 * FEW, MOST)))


def _row(desk: Desk, asked: Asked, record: JobRecord) -> Html:
    row, details = desk.row(record), desk.details(record)
    word, tokens = row["status"], details["tokens"]
    said, is_current = phrase(asked.language, f"status.{word}"), record.job_id == asked.job
    return fill(
        asked.language,
        "row",
        job_id=record.job_id,
        word=word,
        said=f"{record.job_id[:SHORT]}: {said}" if record.status.is_terminal else "",
        current=Html(' aria-current="true"') if is_current else NOTHING,
        status_said=said,
        link=asked.link(job=record.job_id),
        text=" ".join(row["question"].split()) or phrase(asked.language, "no_question"),
        job_effort=record.request.effort,
        moment=moment(asked.language, record),
        lasted=lasted(asked.language, record, row["elapsed_time"]),
        used="" if tokens is None else f"{tokens['input'] + tokens['output']:,}",
        spent="" if details["cost"] is None else money(details["cost"]),
        short=record.job_id[:SHORT],
    )
