"""The two tables hold, cell by cell: what moves a job, and what the service's words mean."""

from __future__ import annotations

import itertools
import typing

import pytest
from openai.types.responses.response_status import ResponseStatus

from o3pro_bg._states import SERVICE_WORDS, TRANSITIONS, Event, IllegalTransition, JobStatus, step

_TABLE = """
            accepted   progressed   answered    errored   cancelled   lost
started     started    running      completed   failed    cancelled   failed
running     running    running      completed   failed    cancelled   failed
completed   -          -            -           -         -           -
failed      -          -            -           -         -           -
cancelled   -          -            -           -         -           -
"""
_HEAD, *_ROWS = [line.split() for line in _TABLE.strip().splitlines()]
_CELLS = [(row[0], event, after) for row in _ROWS for event, after in zip(_HEAD, row[1:], strict=True)]
_LEGAL = [cell for cell in _CELLS if cell[2] != "-"]
_ILLEGAL = [cell[:2] for cell in _CELLS if cell[2] == "-"]
_WORDS = {
    "queued": "accepted",
    "in_progress": "progressed",
    "completed": "answered",
    "failed": "errored",
    "incomplete": "errored",
    "cancelled": "cancelled",
}


def test_table_names_every_cell() -> None:
    """The table below knows every status and every event that there is."""
    assert {cell[:2] for cell in _CELLS} == set(itertools.product([*map(str, JobStatus)], [*map(str, Event)]))


@pytest.mark.parametrize(("status", "event", "after"), _LEGAL)
def test_step_answers_the_cell(status: str, event: str, after: str) -> None:
    """A legal event leads to the status that the table names."""
    assert step(JobStatus(status), Event(event)) is JobStatus(after)


@pytest.mark.parametrize(("status", "event"), _ILLEGAL)
def test_no_event_leads_out_of_a_terminal_status(status: str, event: str) -> None:
    """An event in a terminal status raises, with both words in the message, and hides no other exception."""
    with pytest.raises(IllegalTransition, match=f"^a job that is {status} cannot be {event}$") as caught:
        step(JobStatus(status), Event(event))
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, AssertionError)


@pytest.mark.parametrize("status", JobStatus)
def test_terminal_statuses_are_the_three_dead_ends(status: JobStatus) -> None:
    """Completed, failed and cancelled are terminal, the other two are not."""
    assert status.is_terminal == (status.value in {"completed", "failed", "cancelled"})


def test_service_words_read_as_the_table_says() -> None:
    """Each word of the service means the event that the table names, and no other word means one."""
    assert {word: event.value for word, event in SERVICE_WORDS.items()} == _WORDS


def test_service_words_are_the_sdks_own() -> None:
    """The words that are known here are those that the SDK knows, neither more nor fewer."""
    assert set(SERVICE_WORDS) == set(typing.get_args(ResponseStatus))


@pytest.mark.parametrize("table", [TRANSITIONS, *TRANSITIONS.values(), SERVICE_WORDS])
def test_tables_cannot_be_written(table: dict[object, object]) -> None:
    """Nobody changes a table, or a row of it, at run time."""
    with pytest.raises(TypeError, match="does not support item assignment"):
        table["x"] = "y"
