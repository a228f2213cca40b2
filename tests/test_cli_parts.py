"""The small parts of the command: words, places, exit codes, shortened ids."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from o3pro_bg._records import JobRecord, JobRequest, Usage
from o3pro_bg._shown import columns, duration, one_line, padded
from o3pro_bg._states import JobStatus
from o3pro_bg.cli._changing import seconds_of
from o3pro_bg.cli._exits import Exit, Stop, of_many, of_status
from o3pro_bg.cli._jobs import Shelf, shortened
from o3pro_bg.cli._place import home, language
from o3pro_bg.cli._words import COLOURS, glyph, spent

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185.4, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (86399, "23 h 59 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """A time is told in its two largest units."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "width", "line"),
    [
        ("short", 10, "short"),
        ("exactly10!", 10, "exactly10!"),
        ("a longer text", 10, "a longer …"),
        ("two\nlines\tand tabs", 30, "two lines and tabs"),
        ("日本語の質問", 12, "日本語の質問"),
        ("日本語の質問", 11, "日本語の質…"),
        ("日本語の質問", 10, "日本語の…"),
        ("\x1b[31mred", 20, " [31mred"),
        ("x" * 10_000_000, 5, "xxxx…"),
        ("e\u0301" * 5, 5, "e\u0301" * 5),
    ],
)
def test_one_line(text: str, width: int, line: str) -> None:
    """A text becomes one line that fits: wide characters count twice, what controls a terminal is left out."""
    assert one_line(text, width) == line
    assert columns(line) <= width


def test_padding_counts_columns() -> None:
    """A text is padded to columns, not to characters."""
    assert [columns(padded(text, 8)) for text in ("ab", "日本", "")] == [8, 8, 8]


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "✓"), ("cp437", "+"), ("ascii", "+"), (None, "+")])
def test_glyphs(encoding: str | None, sign: str) -> None:
    """A status has a sign in every encoding; each status its own."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding or "ascii")
    assert glyph("completed", stream) == sign
    assert len({glyph(status, stream) for status in COLOURS}) == len(COLOURS) == len(JobStatus)


def test_what_a_job_took() -> None:
    """Tokens and the estimate of the cost are told as far as they are known."""
    usage = Usage(1200, 34567, reasoning_tokens=30000)
    assert spent(None, None) == ""
    assert spent(usage, None) == "1,200 tokens in, 34,567 out (30,000 to reason)"
    assert spent(usage, 2.789).endswith(", about $2.79")
    assert spent(Usage(10, 20), 0.00161) == "10 tokens in, 20 out, about $0.0016"


@pytest.mark.parametrize(
    ("environment", "platform", "place"),
    [
        ({"O3PRO_BG_HOME": "/x/y"}, "linux", "/x/y"),
        ({"O3PRO_BG_HOME": "/x/y"}, "win32", "/x/y"),
        ({"XDG_STATE_HOME": "/state"}, "linux", "/state/o3pro-bg"),
        ({"XDG_STATE_HOME": "relative"}, "linux", "~/.local/state/o3pro-bg"),
        ({}, "linux", "~/.local/state/o3pro-bg"),
        ({}, "darwin", "~/Library/Application Support/o3pro-bg"),
        ({"LOCALAPPDATA": "/local"}, "win32", "/local/o3pro-bg"),
        ({}, "win32", "~/AppData/Local/o3pro-bg"),
    ],
)
def test_home(environment: Mapping[str, str], platform: str, place: str) -> None:
    """The jobs lie where the platform keeps state, unless O3PRO_BG_HOME says otherwise."""
    assert home(environment, platform) == Path(place).expanduser()


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "ja"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": ""}, "ja"),
    ],
)
def test_language(environment: Mapping[str, str], chosen: str) -> None:
    """The first of LC_ALL, LC_MESSAGES and LANG that is set decides."""
    assert language(environment) == chosen


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([], 0),
        (["completed"], 0),
        (["completed", "cancelled"], 5),
        (["cancelled", "failed", "completed"], 1),
        (["running", "completed"], 4),
    ],
)
def test_codes_of_many(statuses: list[str], code: int) -> None:
    """Several jobs have the exit code of the worst."""
    assert of_many(statuses) == code


def test_exit_codes_are_what_they_are() -> None:
    """The exit codes are a contract with scripts."""
    assert {code.name: int(code) for code in Exit} == {
        "COMPLETED": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "NOT_FINISHED": 4,
        "CANCELLED": 5,
        "CONFIGURATION": 6,
        "TIMED_OUT": 124,
        "INTERRUPTED": 130,
    }
    assert [of_status(status) for status in JobStatus] == [4, 4, 0, 1, 5]


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604800), ("12h", 43200), ("1.5m", 90), ("0s", 0), ("2w", 1209600)]
)
def test_ages(text: str, seconds: float) -> None:
    """An age is a number and a unit."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "7 days", "1e3s", "7d "])
def test_ages_that_are_none(text: str) -> None:
    """What is no age stops the command as wrong usage."""
    with pytest.raises(Stop) as stopped:
        seconds_of(text)
    assert stopped.value.code is Exit.USAGE


def test_shortened() -> None:
    """Ids are shortened to eight characters, and to more where others begin alike."""
    alike, other = "0123456789aaaa", "0123456789abbb"
    assert shortened([alike, other, "ffffffffffff", "short"]) == {
        alike: "0123456789aa",
        other: "0123456789ab",
        "ffffffffffff": "ffffffff",
        "short": "short",
    }


def record(job_id: str, response_id: str | None = None) -> JobRecord:
    """Answer the record of a job."""
    return JobRecord(job_id, JobRequest("Why?", "low"), 0.0, 0.0, response_id=response_id)


def test_an_id_that_is_the_beginning_of_another() -> None:
    """A whole id means its job, even where others begin with it; a response's id means its job as well."""
    shelf = Shelf([record("abc"), record("abcd", "resp_1")], frozenset(), 0.0)
    assert shelf.find("abc").job_id == "abc"
    assert shelf.find("resp_1").job_id == "abcd"
    with pytest.raises(Stop, match="2 jobs begin with 'ab'"):
        shelf.find("ab")
