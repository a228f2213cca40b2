"""What answers of the service say about how it behaves: rows of a table, each with its evidence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from o3pro_bg._shown import one_line
from o3pro_bg.cli._doctor.checks import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from o3pro_bg.cli._doctor.witness import Said

BACKGROUND: Final = "background on this api-version"
CREATED_AT: Final = "created_at while queued"
RATES_CREATE: Final = "rate headers of a create"
RATES_LOOK: Final = "rate headers of a look"
RETENTION: Final = "retention headers"
REQUEST_ID: Final = "request id header"
POLLING: Final = "polling hints"
IDEMPOTENCY: Final = "Idempotency-Key"
CANCEL: Final = "a cancel is final"
WINDOW: Final = "completion_window"
ANSWER: Final = "the answer after the end"
DELETE: Final = "a look after a delete: 404"
FACTS: Final = (
    BACKGROUND,
    CREATED_AT,
    RATES_CREATE,
    RATES_LOOK,
    RETENTION,
    REQUEST_ID,
    POLLING,
    IDEMPOTENCY,
    CANCEL,
    WINDOW,
    ANSWER,
    DELETE,
)

ENDED: Final = frozenset({"completed", "failed", "incomplete", "cancelled"})
"""The statuses that a response keeps, in the service's words."""

YES: Final = "yes"
NO: Final = "no"
UNKNOWN: Final = "unknown"

_RETENTION: Final = re.compile("retention|retain|expir|ttl")
_POLLING: Final = ("openai-poll-after-ms", "retry-after-ms", "retry-after")
_HARMLESS: Final = re.compile(r"[\w :;,.+=/-]{1,40}", re.ASCII)


class Row(NamedTuple):
    """
    One fact.

    Attributes:
        fact: What was asked.
        found: Yes, no, unknown, or what else there is to say in a word or two.
        evidence: What was seen, or why nothing was.
    """

    fact: str
    found: str
    evidence: str


def of_headers(said: Sequence[Said]) -> Iterator[Row]:
    """Answer what the headers of all answers say, and the first moments of a response."""
    yield _created_at(said)
    for fact, verb in ((RATES_CREATE, "create"), (RATES_LOOK, "look")):
        yield _row_of(fact, [one for one in said if one.verb == verb], lambda name: name.startswith("x-ratelimit-"))
    yield _row_of(RETENTION, said, lambda name: _RETENTION.search(name) is not None)
    yield _row_of(REQUEST_ID, said, lambda name: name.endswith("request-id"), with_values=False)
    yield _row_of(POLLING, said, lambda name: name in _POLLING)


def of_background(first: Said) -> Row:
    """Answer whether a create with `background` is answered at once."""
    if first.trouble is not None:
        return Row(BACKGROUND, NO if first.blames("background") else UNKNOWN, f"create: {first}")
    if first.word in ("queued", "in_progress"):
        return Row(BACKGROUND, YES, f"create: {first}")
    return Row(BACKGROUND, NO if first.word in ENDED else UNKNOWN, f"create: {first}, not queued or in_progress")


def of_idempotency(first: Said, second: Said) -> Row:
    """Answer what became of the same create, sent again with the same key."""
    if second.trouble is not None:
        found = "refused" if second.status in (400, 409, 422) else UNKNOWN
        return Row(IDEMPOTENCY, found, f"the same create again: {second}")
    if first.response_id == second.response_id:
        return Row(IDEMPOTENCY, YES, "the same create again: the same response")
    return Row(IDEMPOTENCY, NO, "the same create again: a second response")


def of_cancel(cancel: Said, at_once: Said, later: Said, seconds: float) -> Row:
    """Answer whether what was cancelled stayed so."""
    evidence = f"cancel: {cancel}; looked at once: {at_once}; after {seconds:.0f} s: {later}"
    if later.trouble is not None:
        return Row(CANCEL, UNKNOWN, evidence)
    if later.word == "cancelled":
        return Row(CANCEL, YES, evidence)
    if "cancelled" in (cancel.word, at_once.word):
        return Row(CANCEL, NO, evidence)
    if cancel.trouble is not None:
        return Row(CANCEL, "refused" if 400 <= cancel.status < 500 else UNKNOWN, evidence)
    if at_once.word in ENDED:
        return Row(CANCEL, UNKNOWN, f"it had ended before: {evidence}")
    return Row(CANCEL, "not carried out", evidence)


def of_window(said: Said, value: str) -> Row:
    """Answer whether a create takes `completion_window`."""
    if said.trouble is None:
        echoed = said.data.get(WINDOW)
        if echoed == value:
            return Row(WINDOW, YES, f"create: {said}, and the answer repeats it")
        return Row(WINDOW, "accepted", f"create: {said}, but the answer does not repeat it: it may be ignored")
    if not said.blames(WINDOW):
        return Row(WINDOW, UNKNOWN, f"create: {said}")
    is_strange = re.search(
        "unknown|unrecogni|unexpected|unsupported.parameter|extra|not permitted", str(said), re.IGNORECASE
    )
    return Row(WINDOW, NO if is_strange else "not this value", f"create: {said}")


def of_answer(said: Said, seconds: float) -> Row:
    """Answer whether the text was there once a response had ended."""
    if said.trouble is not None:
        return Row(ANSWER, UNKNOWN, f"look: {said}")
    if said.word not in ENDED:
        return Row(ANSWER, UNKNOWN, f"look: {said}, after {seconds:.0f} s, which is as long as is waited here")
    why = f", {_reason_of(said)}" if said.word != "completed" else ""
    length = counted(len(said.text), "character")
    evidence = f"look: {said} after {seconds:.0f} s{why}, {length} of text{_tokens_of(said)}"
    if said.text:
        return Row(ANSWER, YES, evidence)
    return Row(ANSWER, NO if said.word == "completed" else UNKNOWN, evidence)


def of_delete(delete: Said, look: Said) -> Row:
    """Answer whether what was deleted is gone."""
    evidence = f"delete: {delete}; look: {look}"
    if delete.trouble is not None:
        return Row(DELETE, UNKNOWN, evidence)
    return Row(DELETE, YES if look.status == 404 else UNKNOWN if not look.status else NO, evidence)


def _created_at(said: Sequence[Said]) -> Row:
    queued = [one.data for one in said if one.word == "queued"]
    if not queued:
        return Row(CREATED_AT, UNKNOWN, "no answer said queued")
    times, outputs = ({_kind_of(data, name) for data in queued} for name in ("created_at", "output"))
    evidence = f"{counted(len(queued), 'answer')} said queued; output: {', '.join(sorted(outputs))}"
    return Row(CREATED_AT, ", ".join(sorted(times)), evidence)


def _kind_of(data: Mapping[str, Any], name: str) -> str:
    if name not in data:
        return "missing"
    value = data[name]
    kinds = {int: "a number", float: "a number", str: "a text", list: "a list" if value else "an empty list"}
    return "null" if value is None else kinds.get(type(value), "something else")


def _row_of(fact: str, said: Sequence[Said], is_meant: Callable[[str], bool], *, with_values: bool = True) -> Row:
    """Answer which headers there are of a kind, each with the first value that was seen of it."""
    answered = [one for one in said if one.status and (one.trouble is None or one.status == 429)]
    if not answered:
        return Row(fact, UNKNOWN, "no request was carried out")
    found: dict[str, str] = {}
    for one in answered:
        found = {name: value for name, value in one.headers.items() if is_meant(name)} | found
    if not found:
        return Row(fact, NO, f"in none of {counted(len(answered), 'answer')}")
    return Row(fact, YES, "; ".join(_shown(name, value if with_values else "") for name, value in found.items()))


def _shown(name: str, value: str) -> str:
    """Answer a header, and its value where that is short and plain."""
    return f"{name}: {value}" if _HARMLESS.fullmatch(value) else name


def _reason_of(said: Said) -> str:
    for name, key in (("incomplete_details", "reason"), ("error", "code")):
        about = said.data.get(name)
        if isinstance(about, dict) and isinstance(about.get(key), str):
            return one_line(about[key], 40)
    return "for no reason that it gives"


def _tokens_of(said: Said) -> str:
    usage = said.data.get("usage")
    tokens = usage.get("output_tokens") if isinstance(usage, dict) else None
    return f", {counted(tokens, 'token')} billed as output" if isinstance(tokens, int) else ""
