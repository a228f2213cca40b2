"""What the command's exit codes mean."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Exit(IntEnum):
    """An exit code, and in `meaning` the words for it."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        exit_code = int.__new__(cls, code)
        exit_code._value_ = code
        exit_code.meaning = meaning
        return exit_code

    COMPLETED = 0, "completed, or done"
    FAILED = 1, "failed, or not done"
    USAGE = 2, "the command was not understood"
    NOT_FOUND = 3, "no such job"
    NOT_FINISHED = 4, "the job has not ended yet"
    CANCELLED = 5, "the job was cancelled"
    CONFIGURATION = 6, "the configuration, or the store, does not work"
    TIMED_OUT = 124, "the wait timed out; the job goes on"
    INTERRUPTED = 130, "Ctrl-C"


OF_STATUS: Final = {
    "completed": Exit.COMPLETED,
    "failed": Exit.FAILED,
    "cancelled": Exit.CANCELLED,
}


def of_status(status: str) -> Exit:
    """Answer the exit code for a job of this status."""
    return OF_STATUS.get(status, Exit.NOT_FINISHED)


def of_many(statuses: list[str]) -> Exit:
    """Answer the exit code for several jobs: that of the worst."""
    worst_first = (Exit.FAILED, Exit.CANCELLED, Exit.NOT_FINISHED)
    codes = {of_status(status) for status in statuses}
    return next((code for code in worst_first if code in codes), Exit.COMPLETED)


class Stop(Exception):
    """
    Ends the command, with a sentence on standard error.

    Args:
        code: The exit code.
        sentence: What is wrong, and what can be done about it.
        reply: What `--json` prints, where the library has an answer for it.
    """

    def __init__(self, code: Exit, sentence: str, reply: Mapping[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.reply = reply
