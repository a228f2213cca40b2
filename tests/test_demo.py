"""What `o3pro-bg demo` promises beside its text: to scripts, to whoever stops it, and where something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import demo
from o3pro_bg.cli import main
from o3pro_bg.demo import _killing
from o3pro_bg.demo._cast import QUESTIONS, Astray
from o3pro_bg.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "o3pro_bg", "demo"]
PATIENCE = 60.0  # seconds after which it is taken to hang


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What a run with `--json` prints, which is one JSON object and nothing else; the run ends with 0."""
    done = subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, "--json"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_json_tells_all(told: dict[str, Any]) -> None:
    """With `--json` a script gets the emulator's address, the jobs as `get_result` answers them, and the counts."""
    assert (told["emulator"], told["ok"]) == (True, True)
    assert told["endpoint"].startswith("http://127.0.0.1:")
    assert [(job["question"], job["status"]) for job in told["jobs"]] == [
        (each.text, each.status) for each in QUESTIONS
    ]
    assert [{*job} - {"response", "error"} for job in told["jobs"]] == [
        {"job_id", "success", "status", "total_time", "question", "effort"}
    ] * len(QUESTIONS)
    assert "error" not in told


def test_each_job_is_paid_once(told: dict[str, Any]) -> None:
    """The emulator has accepted as many requests as there are jobs, none twice, and has refused one with a 429."""
    assert told["paid"] == told["counts"]["accepted"] == len(told["jobs"]) == told["counts"]["creates"] - 1
    assert (told["paid_twice"], told["counts"]["duplicates"], told["counts"]["cancels"]) == (0, {}, 1)


def test_every_answer_says_that_the_emulator_made_it_up(told: dict[str, Any]) -> None:
    """No answer stands in the JSON without the emulator's mark."""
    answers = [job["response"] for job in told["jobs"] if job["status"] == "completed"]
    assert [answer.startswith("[emulator] ") for answer in answers] == [True] * 3


def test_the_killed_process_is_gone_and_another_has_its_jobs(told: dict[str, Any]) -> None:
    """No process has the id of the killed one, and the jobs which it left were completed after it."""
    with pytest.raises(ProcessLookupError):
        os.kill(told["killed"], 0)
    assert len(told["taken_up"]) == 2
    completed = {job["job_id"] for job in told["jobs"] if job["success"]}
    assert {*told["taken_up"]} < completed


@contextmanager
def running_until(words: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Answer a demo that has printed these words; it is the first of its process group, as in a terminal."""
    with subprocess.Popen(  # noqa: S603 - our own command
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert any(words in line for line in process.stdout)
        yield process


def said_until_all_have_ended(process: subprocess.Popen[str]) -> str:
    """Answer what comes on standard error until it is closed: by the demo, and by all processes that it started."""
    return process.communicate(timeout=PATIENCE)[1]


@pytest.mark.parametrize("words", ["This is the EMULATOR", "429", "opens the same file", "taken up"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, words: str) -> None:
    """Ctrl-C, whenever it comes, ends the demo with 130 and without a word; no process is left, and no file."""
    with running_until(words, tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        said = said_until_all_have_ended(process)
    assert (process.returncode, said) == (130, "")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("words", ["429", "taken up"])
def test_a_demo_that_is_killed_leaves_no_process(tmp_path: Path, words: str) -> None:
    """Whatever the demo has started ends with it, even where it could not say so."""
    with running_until(words, tmp_path) as process:
        process.kill()
        said = said_until_all_have_ended(process)
    assert (process.returncode, said) == (-signal.SIGKILL, "")


def test_a_reader_who_leaves_ends_it(tmp_path: Path) -> None:
    """Where nobody reads on, as behind `head`, the demo ends, and so does what it started."""
    with running_until("This is the EMULATOR", tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141
    assert [*tmp_path.iterdir()] == []


@contextmanager
def _short_lived(*_: object) -> Iterator[subprocess.Popen[str]]:
    """Start a first process that does nothing."""
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE, text=True) as process:
        yield process


def test_a_first_process_that_ends_by_itself_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A demo that does not go as it should exits with 1, and says why: as text, and as JSON."""
    monkeypatch.setattr(_killing, "_started", _short_lived)
    assert main(["demo", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["emulator"], told["ok"]) == (True, False)
    assert told["error"].startswith("the first process ended by itself")
    assert main(["demo"]) == 1
    printed = capsys.readouterr().out
    assert f"This did not go as the demo of the emulator should: {told['error']}." in printed


def test_an_emulator_that_cannot_start_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where not even the emulator starts, the demo exits with 1 and a sentence."""

    def start(_: Emulator) -> Emulator:
        raise RuntimeError("the emulator cannot start: no sockets are left")

    monkeypatch.setattr(Emulator, "start", start)
    assert main(["demo"]) == 1
    assert "no sockets are left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"taken_up": []}, "no job was under way"),
        ({"paid": 5}, "not each job was paid once"),
        ({"paid_twice": 1}, "not each job was paid once"),
        ({"counts": {"creates": 4}}, "no request was refused"),
        ({"jobs": []}, "a job ended otherwise"),
    ],
)
def test_nothing_else_than_what_is_told_is_well(told: dict[str, Any], change: dict[str, Any], why: str) -> None:
    """A run in which anything is otherwise than the demo tells is no success."""
    with pytest.raises(Astray, match=why):
        demo._judge({**told, **change})
