"""The command in a real pseudo-terminal: what a person sees, and what Ctrl-C, a resize and a closed window do."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from .terminal import CTRL_C, Account, Terminal, colours

if TYPE_CHECKING:
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

LONG = "[emulator seconds=600 queued=0] A long one?"


@pytest.fixture
def emulator(service: Emulator) -> Emulator:
    """The emulator with counters at zero."""
    service.reset()
    service.set_knobs("seconds=1 queued=0")
    return service


@pytest.fixture
def account(emulator: Emulator, tmp_path: Path) -> Account:
    """A home of the command, and an account at the emulator."""
    return Account(tmp_path / "home", emulator)


def statuses(account: Account) -> list[str]:
    """Answer the statuses of all jobs, by their ages."""
    return [job["status"] for job in json.loads(account.says("list", "--json")[1])]


def test_ask_in_a_terminal(account: Account) -> None:
    """`ask` shows how the job goes in one line, which is gone in the end; the answer and what it took stay."""
    with Terminal(account, "ask", "[emulator seconds=3 queued=0] Why?", "-e", "high") as terminal:
        text = terminal.until(lambda text: "running" in text and "next look in" in text)
        assert re.search(r"running  high  \d\.\d s  next look in \d+ s", text)
        assert terminal.code() == 0
        text = " ".join(terminal.lines())
        assert "[emulator] This answer is made up" in text
        assert re.search(r"completed after [\d.]+ s: [\d,]+ tokens in, [\d,]+ out .* about \$\d", text)
        assert "next look" not in text


def test_ask_says_why_it_waits(account: Account) -> None:
    """While the service asks a job to wait, `ask` says so."""
    question = "[emulator fault=429 retry_after=3] Why?"
    with Terminal(account, "ask", question) as terminal:
        terminal.until("the limits a minute hold it back: requests, tokens, or a 429")
        assert terminal.code() == 0


def test_only_data_goes_to_standard_output(account: Account, tmp_path: Path) -> None:
    """With standard output in a file, it gets the answer alone, and the terminal the progress."""
    with (tmp_path / "answer").open("wb") as file, Terminal(account, "ask", "Why?", stdout=file.fileno()) as terminal:
        terminal.until("running")
        assert terminal.code() == 0
        assert "[emulator]" not in terminal.text()
    answer = (tmp_path / "answer").read_text(encoding="utf-8")
    assert answer.startswith("[emulator]")
    assert answer.count("\n") == 1


def test_ctrl_c_leaves(account: Account, emulator: Emulator) -> None:
    """The first Ctrl-C leaves the job, says how to come back, and exits with 130; the job goes on."""
    with Terminal(account, "ask", LONG) as terminal:
        terminal.until("running")
        terminal.press(CTRL_C)
        text = terminal.until("o3pro-bg result --wait")
        assert "Ctrl-C again within 2 s cancels it" in text
        assert terminal.code() == 130
        assert "Traceback" not in terminal.text()
    assert statuses(account) == ["running"]
    assert emulator.counters()["cancels"] == 0


def test_ctrl_c_twice_cancels(account: Account, emulator: Emulator) -> None:
    """A second Ctrl-C within two seconds cancels the job at the service, and exits with 5; more do no harm."""
    with Terminal(account, "ask", LONG) as terminal:
        terminal.until("running")
        while "cancelling" not in terminal.text():
            terminal.press(CTRL_C)
            terminal.look(0.2)
        assert terminal.code() == 5
        assert "Ctrl-C again within 2 s cancels it" in terminal.text()
        assert "Traceback" not in terminal.text()
    assert emulator.counters()["cancels"] >= 1
    assert statuses(account) == ["cancelled"]


def test_a_closed_window_loses_nothing(account: Account, emulator: Emulator) -> None:
    """Whoever closes the terminal's window leaves the job as it is, and finds it again."""
    with Terminal(account, "ask", LONG) as terminal:
        terminal.until("running")
        terminal.hang_up()
        terminal.process.wait(60)
    assert statuses(account) == ["running"]
    assert emulator.counters()["cancels"] == 0


def test_watch_in_a_terminal(account: Account) -> None:
    """`watch` redraws one table: glyph and word, wide characters in their columns, counts, and no line twice."""
    questions = (
        "[emulator seconds=600] 日本語の質問ですか?",
        "[emulator seconds=600] Why?",
        "[emulator seconds=600] Ü?",
    )
    ids = [account.says("submit", question)[1].strip() for question in questions]
    with Terminal(account, "watch", size=(110, 24)) as terminal:
        text = terminal.until(lambda text: text.count("● running") == 3)
        rows = [line for line in terminal.screen.display if "● running" in line]
        assert {row.index("[emulator") for row in rows} == {rows[0].index("[emulator")}
        assert "日本語の質問ですか?" in text
        assert "0/3" in text
        for job_id in ids[:2]:
            assert account.run("cancel", job_id).returncode == 0
        text = terminal.until("2/3")
        assert "1 running, 2 cancelled" in text
        assert text.count("⊘ cancelled") == 2
        assert text.count("elapsed") == 1, "the table is redrawn, not repeated"
        assert account.run("cancel", ids[2]).returncode == 0
        assert terminal.code() == 5
        assert [line.split()[:3] for line in terminal.lines()] == [[job_id[:8], "⊘", "cancelled"] for job_id in ids]


def test_ctrl_c_leaves_the_watch(account: Account, emulator: Emulator) -> None:
    """Ctrl-C ends `watch` with 130; the jobs go on."""
    account.run("submit", LONG)
    with Terminal(account, "watch") as terminal:
        terminal.until("● running")
        terminal.press(CTRL_C)
        assert terminal.code() == 130
        assert "left: the jobs go on" in terminal.text()
    assert emulator.counters()["cancels"] == 0


def test_watch_is_resized(account: Account) -> None:
    """A window that gets narrow loses whole columns, never a part of the status; a wide one gets them back."""
    account.run("submit", LONG)
    with Terminal(account, "watch", size=(100, 24)) as terminal:
        terminal.until(lambda text: "question" in text and "● running" in text)
        terminal.resize(60, 24)
        terminal.until(lambda text: "question" not in text and "effort" in text and "● running" in text)
        terminal.resize(44, 10)
        text = terminal.until(lambda text: "effort" not in text and "● running" in text)
        assert "elapsed" in text
        terminal.resize(120, 24)
        terminal.until(lambda text: "question" in text and "● running" in text)
        terminal.press(CTRL_C)
        assert terminal.code() == 130


def test_more_jobs_than_lines(account: Account, tmp_path: Path) -> None:
    """A table of more jobs than the window has lines shows those under way first, and how many it leaves out."""
    (tmp_path / "many.jsonl").write_text('"[emulator seconds=600] Why?"\n' * 30, encoding="utf-8")
    command = ("batch", str(tmp_path / "many.jsonl"))
    with (
        (tmp_path / "results").open("wb") as file,
        Terminal(account, *command, size=(100, 16), stdout=file.fileno()) as terminal,
    ):
        text = terminal.until(lambda text: "0/30" in text and "30 running" in text)
        assert re.search(r"and \d+ more", text)
        assert len(terminal.lines()) <= 16
        terminal.press(CTRL_C)
        assert terminal.code() == 130
        assert "asks nothing twice" in terminal.text()


def test_a_batch_without_questions(account: Account, tmp_path: Path) -> None:
    """A file without questions is answered by nothing, with 0."""
    (tmp_path / "none.jsonl").write_text("", encoding="utf-8")
    with (
        (tmp_path / "results").open("wb") as file,
        Terminal(account, "batch", str(tmp_path / "none.jsonl"), stdout=file.fileno()) as terminal,
    ):
        assert terminal.code() == 0
        assert terminal.text() == ""


def test_a_dumb_terminal(account: Account) -> None:
    """With TERM=dumb nothing is redrawn: lines, without any control sequence."""
    with Terminal(account, "ask", "Why?", TERM="dumb") as terminal:
        assert terminal.code() == 0
        assert b"\x1b" not in terminal.written
        assert "completed after" in terminal.text()


def test_no_color(account: Account) -> None:
    """With NO_COLOR the table is redrawn in one colour; without it, statuses have theirs."""
    account.run("submit", LONG)
    seen: dict[str, set[bytes]] = {}
    for no_color in ("", "1"):
        with Terminal(account, "watch", NO_COLOR=no_color) as terminal:
            terminal.until("● running")
            terminal.press(CTRL_C)
            terminal.code()
            seen[no_color] = {*colours(terminal.written)} & {b"%d" % code for code in range(30, 38)}
    assert seen["1"] == set()
    assert seen[""]


def test_interrupted_while_asking_stdin(account: Account, emulator: Emulator) -> None:
    """Ctrl-C while the question is still being typed asks nothing."""
    with Terminal(account, "ask", "-") as terminal:
        terminal.until("Ctrl-D ends it")
        terminal.press(CTRL_C)
        assert terminal.code() == 130
        assert "Traceback" not in terminal.text()
    assert emulator.counters()["creates"] == 0
