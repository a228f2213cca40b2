"""The command in pipes: what it prints, where, and how it exits; over real HTTP, from real processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from o3pro_bg import BackgroundHandler, O3ProClient, O3ProConfig
from o3pro_bg._sqlite.jobfile import JobFile
from o3pro_bg._sqlite.peek import peek
from o3pro_bg._sqlite.rows import crc_of
from o3pro_bg.cli._parser import parser

from .terminal import COMMAND, Account, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from o3pro_bg.emulator import Emulator

LONG = "[emulator seconds=600] A long one?"
FAILS = '{"emulator": "outcome=failed"}'
CUT = '{"emulator": "outcome=incomplete"}'


@pytest.fixture
def emulator(service: Emulator) -> Emulator:
    """The emulator with counters at zero, whose jobs take 0.2 seconds."""
    service.reset()
    service.set_knobs("seconds=0.2 queued=0")
    return service


@pytest.fixture
def account(emulator: Emulator, tmp_path: Path) -> Account:
    """A home of the command, and an account at the emulator."""
    return Account(tmp_path / "home", emulator)


@pytest.fixture
def stranger(tmp_path: Path) -> Account:
    """The same home, and no account."""
    return Account(tmp_path / "home")


def submitted(account: Account, question: str = "Why?", *more: str) -> str:
    """Submit a question, and answer the id."""
    code, out, _ = account.says("submit", question, *more)
    assert code == 0
    return out.strip()


# --- ask and submit -----------------------------------------------------------------------------------------


def test_ask(account: Account, emulator: Emulator) -> None:
    """`ask` prints the answer, and it alone, on standard output; what becomes of the job on standard error."""
    code, out, err = account.says("ask", "Why?", "--effort", "high")
    assert code == 0
    assert out == (
        "[emulator] This answer is made up: no model was asked. The question has 4 characters, "
        "and the effort was high.\n"
    )
    assert "started" in err
    assert "tokens in" in err
    assert "Why?" not in err
    assert emulator.counters()["creates"] == 1


@pytest.mark.parametrize("given", ["-", "@{file}"])
def test_questions_from_elsewhere(account: Account, tmp_path: Path, given: str) -> None:
    """A question may come from standard input or from a file, in UTF-8 whatever the terminal speaks."""
    text = "なぜ?\n"
    (tmp_path / "q.txt").write_text(text, encoding="utf-8")
    arguments = given.format(file=tmp_path / "q.txt")
    code, out, _ = account.says("ask", arguments, stdin=text.encode())
    assert (code, f"has {len(text)} characters" in out) == (0, True)


@pytest.mark.parametrize(("given", "stdin"), [("@/nowhere/at/all", b""), ("-", b"\xff\xfe\xff")])
def test_questions_that_cannot_be_read(account: Account, emulator: Emulator, given: str, stdin: bytes) -> None:
    """A question that cannot be read is wrong usage, and nothing is asked."""
    code, out, err = account.says("ask", given, stdin=stdin)
    assert (code, out) == (2, "")
    assert err.startswith("o3pro-bg: ")
    assert emulator.counters()["creates"] == 0


def test_what_the_service_gets(account: Account) -> None:
    """Instructions, a limit of tokens and any other argument of the API reach the service as they are."""
    more = ("-i", "Be brief.", "-m", "5000", "-o", "metadata", '{"topic": "x"}', "-o", "user", "me", "--json")
    code, out, _ = account.says("ask", "Why?", *more)
    assert (code, json.loads(out)["success"]) == (0, True)
    [record] = peek(str(account.home / "jobs.db")).records
    assert record.request.options == {
        "instructions": "Be brief.",
        "max_output_tokens": 5000,
        "metadata": {"topic": "x"},
        "user": "me",
    }


def test_submit_and_walk_away(account: Account, emulator: Emulator) -> None:
    """`submit` prints the id once the job is safe, and ends when it is accepted; any later process has the answer."""
    emulator.set_knobs("seconds=1 queued=0")
    job_id = submitted(account)
    assert emulator.counters()["accepted"] == 1
    code, out, _ = account.says("result", job_id[:6], "--wait")
    assert (code, out.startswith("[emulator]")) == (0, True)
    assert emulator.counters()["creates"] == 1


def test_killed_while_asking(account: Account, emulator: Emulator) -> None:
    """An `ask` that is killed with SIGKILL loses nothing: the next command has the answer, and it was paid once."""
    emulator.set_knobs("seconds=2 queued=0")
    process = account.start("ask", "Why?")
    path = str(account.home / "jobs.db")
    wait_until(lambda: any(record.response_id for record in peek(path).records), "it is known which response it is")
    process.kill()
    process.communicate()
    code, out, _ = account.says("list", "--json")
    assert code == 0
    [job] = json.loads(out)
    code, out, _ = account.says("result", job["job_id"], "--wait")
    assert (code, out.startswith("[emulator]")) == (0, True)
    assert emulator.counters()["creates"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ended_while_asking(account: Account, emulator: Emulator, number: signal.Signals) -> None:
    """SIGTERM and SIGHUP end an `ask` as an exit does: quietly, and the job goes on at the service."""
    process = account.start("ask", LONG)
    wait_until(lambda: emulator.counters()["accepted"] == 1, "the question was accepted")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"Traceback" not in err
    assert emulator.counters()["cancels"] == 0


def test_a_wait_that_runs_out(account: Account, emulator: Emulator) -> None:
    """`--timeout` ends the waiting with 124 and says how to come back; the job goes on."""
    code, out, err = account.says("ask", LONG, "--timeout", "0.5")
    assert (code, out) == (124, "")
    assert "o3pro-bg result --wait" in err
    assert emulator.counters()["cancels"] == 0


def test_deduplicated(account: Account, emulator: Emulator) -> None:
    """A question with the `--dedupe-key` of a job is that job."""
    assert submitted(account, "Why?", "--dedupe-key", "k") == submitted(account, "Why?", "--dedupe-key", "k")
    assert emulator.counters()["creates"] == 1


def test_removed_while_it_is_waited_for(account: Account) -> None:
    """A job that another process removes meanwhile ends the waiting with 3, and without a traceback."""
    job_id = submitted(account, LONG)
    waiting = account.start("result", "--wait", job_id)
    wait_until(lambda: peek(str(account.home / "jobs.db")).watched, "it is waited for")
    file = JobFile(str(account.home / "jobs.db"))
    with file.writing():
        seq, removals = file.counters()
        file.remove(1)
        file.count(seq + 1, removals + 1)
    file.close()
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (3, b""), err
    assert b"Traceback" not in err


def test_another_endpoint(account: Account) -> None:
    """What another endpoint works on is neither waited for nor cancelled in vain: the command says which one it is."""
    job_id = submitted(account, LONG)
    for verb in (("result", "--wait"), ("watch",), ("cancel",)):
        code, _, err = account.says(*verb, job_id, "--endpoint", "http://127.0.0.1:9")
        assert code == 6
        assert account.environment["AZURE_OPENAI_ENDPOINT"] in err
    code, _, err = account.says("status", job_id, "--endpoint", "http://127.0.0.1:9")
    assert code == 4
    assert "may be old" in err
    assert "belong to another endpoint" in account.says("list", AZURE_OPENAI_ENDPOINT="http://127.0.0.1:9")[2]


def test_a_key_that_is_wrong_by_now(account: Account) -> None:
    """Where the service does not let us in any more, `result` and `cancel` say so."""
    job_id = submitted(account, LONG)
    for verb in ("result", "cancel"):
        code, _, err = account.says(verb, job_id, AZURE_OPENAI_API_KEY="wrong")
        assert code == 4
        assert "check the key" in err


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_streams(account: Account, closed: int) -> None:
    """A standard stream that is closed loses nothing but what it would have shown."""
    done = subprocess.run(  # noqa: S603
        [*COMMAND, "ask", "Why?"],
        env=account.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: os.close(closed),
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert done.stdout.startswith(b"[emulator]") == (closed != 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("verb", [("list", "--json"), ("completion", "bash")])
def test_a_full_disk(account: Account, verb: tuple[str, ...]) -> None:
    """Where standard output cannot be written, the command says so and exits with 1."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(  # noqa: S603
            [*COMMAND, *verb], env=account.environment, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"o3pro-bg: standard output cannot be written")
    assert b"Traceback" not in done.stderr


def test_standard_input_is_read_once(account: Account, emulator: Emulator) -> None:
    """`-` for two things is wrong usage, and nothing is asked."""
    code, _, err = account.says("ask", "-", "-i", "-", stdin=b"Why?")
    assert code == 2
    assert "once" in err
    assert emulator.counters()["creates"] == 0


@pytest.mark.parametrize("verb", ["status", "result", "cancel", "rm"])
def test_unknown_jobs_as_json(account: Account, verb: str) -> None:
    """With `--json` an unknown job is answered as the library does."""
    code, out, _ = account.says(verb, "nope", "--json")
    assert (code, json.loads(out)) == (3, {"success": False, "error": "No such job: nope"})


# --- exit codes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ask", "Why?", "-o", "metadata", FAILS), 1, "API Error"),
        (("ask", "Why?", "-o", "metadata", CUT), 1, "API Error"),
        (("ask", ""), 2, "question"),
        (("ask", "Why?", "-o", "stream", "true"), 2, "stream"),
        (("ask", "Why?", "-m", "1.5"), 2, "no number above 0"),
        (("ask", "Why?", "--deadline", "soon"), 2, "no number of seconds"),
        (("emulator", "--port", "99999"), 2, "no port"),
        (("ask", "@"), 2, "@"),
        (("attach", "not an id"), 2, "response id"),
        (("list", "--store", ":memory:"), 6, "file"),
        (("list", "--store", "~nobody-of-this-name/jobs.db"), 6, "home"),
        (("ask", "Why?", "--env-file", "/proc/self/exe"), 6, "UTF-8"),
        (("ask", "Why?", "--effort", "hgih"), 2, "usage"),
        (("ask", "Why?", "--timeout", "-1"), 2, "usage"),
        (("prune", "--older-than", "soon"), 2, "7d"),
        (("status", "abc"), 3, "list --all"),
        (("result", ""), 3, "list --all"),
        (("cancel", "abc"), 3, "list --all"),
        (("ask", "Why?", "--endpoint", "http://example.com"), 6, "doctor"),
        (("ask", "Why?", "--store", "/proc/none/jobs.db"), 6, "/proc/none"),
        (("ask", "Why?", "--env-file", "/nowhere/.env"), 6, "/nowhere/.env"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_exit_codes(account: Account, arguments: tuple[str, ...], code: int, words: str) -> None:
    """What goes wrong has its exit code, and a sentence on standard error; there is no traceback."""
    found, _, err = account.says(*arguments)
    assert found == code
    assert words in err
    assert "Traceback" not in err


def test_a_partial_answer_is_data(account: Account) -> None:
    """Of an answer that was cut short, what there is goes to standard output, and the exit code is 1."""
    code, out, err = account.says("ask", "Why?", "-o", "metadata", CUT)
    assert (code, out.startswith("[emulator]")) == (1, True)
    assert "max_output_tokens" in err


def test_jobs_that_run(account: Account) -> None:
    """`status` and `result` of a job that runs exit with 4, and so does `rm`, which leaves it alone."""
    job_id = submitted(account, LONG)
    assert account.run("status", job_id).returncode == 4
    assert account.run("result", job_id).returncode == 4
    assert account.run("rm", job_id).returncode == 4
    assert job_id in account.says("list", "--json")[1]


def test_cancel(account: Account, emulator: Emulator) -> None:
    """`cancel` cancels at the service; what had ended is told, and exits with 1; a cancelled job's result with 5."""
    job_id = submitted(account, LONG)
    code, out, _ = account.says("cancel", job_id[:7], "--json")
    assert (code, json.loads(out)["status"]) == (0, "cancelled")
    assert emulator.counters()["cancels"] == 1
    assert account.run("cancel", job_id).returncode == 1
    assert account.run("result", job_id).returncode == 5
    assert account.run("status", job_id).returncode == 5


# --- reading ------------------------------------------------------------------------------------------------


def test_ended_jobs_are_read_from_the_file(account: Account, stranger: Account, emulator: Emulator) -> None:
    """What has ended is told without a request, and without an account."""
    account.run("ask", "Why?")
    job_id = json.loads(account.says("list", "--json")[1])[0]["job_id"]
    before = emulator.counters()["connections"]
    assert stranger.says("result", job_id)[1].startswith("[emulator]")
    assert "completed" in stranger.says("status", job_id)[1]
    assert "completed" in stranger.says("list")[1]
    assert emulator.counters()["connections"] == before


def test_status_asks_where_nobody_does(account: Account, stranger: Account, emulator: Emulator) -> None:
    """`status` of a job that no process watches asks the service once; without an account it says that it is old."""
    job_id = submitted(account)
    wait_until(lambda: emulator.counters()["responses"] == 1, "the response is there")
    assert "may be old" in stranger.says("status", job_id)[2]
    answers: list[tuple[int, str, str]] = []

    def has_completed() -> bool:
        answers.append(account.says("status", job_id, "--json"))
        return answers[-1][0] == 0

    wait_until(has_completed, "the job has completed")
    _, out, err = answers[-1]
    assert json.loads(out)["status"] == "completed"
    assert err == ""


def test_status_leaves_a_watched_job_alone(account: Account, emulator: Emulator) -> None:
    """`status` and `list` of a job that a process watches ask nobody, and take nothing over."""
    client = O3ProClient(O3ProConfig(endpoint=emulator.endpoint, api_key=emulator.api_key))
    with BackgroundHandler(client, store=account.home / "jobs.db") as handler:
        job = handler.submit(LONG)
        wait_until(lambda: job.response_id, "the question was accepted")
        before = emulator.counters()["connections"]
        assert account.says("status", job.id, "--json")[0] == 4
        code, _, err = account.says("list")
        assert (code, err) == (0, "")
        assert emulator.counters()["connections"] == before
        assert handler._store.holds(job.id)


def test_list(account: Account) -> None:
    """`list` shows jobs with status, effort and question, `--status` those of some statuses, `--json` an array."""
    account.run("ask", "Warum ist das so?\nWeil.", "--effort", "high")
    account.run("ask", "Why?", "-o", "metadata", FAILS)
    submitted(account, "[emulator seconds=600] 長い質問ですか?")
    code, out, err = account.says("list")
    head, *rows = out.splitlines()
    assert code == 0
    assert head.split() == ["job", "status", "effort", "elapsed", "submitted", "question"]
    assert "✓ completed  high" in rows[0]
    assert rows[0].endswith("Warum ist das so? Weil.")
    assert "✗ failed" in rows[1]
    assert "長い質問ですか?" in rows[2]
    assert "nobody watches 1 of them" in err
    assert [job["status"] for job in json.loads(account.says("list", "--status", "failed", "--json")[1])] == ["failed"]
    assert [*json.loads(account.says("list", "--json")[1])[0]] == [
        "job_id", "status", "question", "effort", "elapsed_time",
    ]  # fmt: skip


def test_old_jobs_are_not_listed(account: Account, emulator: Emulator) -> None:
    """`list` leaves out what ended more than a day ago, and says so; `--all` does not."""
    submitted(account)
    account.run("watch")
    age(account, 2 * 86400)
    code, out, err = account.says("list")
    assert (code, out) == (0, "")
    assert "--all" in err
    assert "completed" in account.says("list", "--all")[1]


def age(account: Account, seconds: float) -> None:
    """Have the jobs of the file be older by so many seconds."""
    file = JobFile(str(account.home / "jobs.db"))
    with file.writing():
        for job_id, text in file._do("SELECT job_id, state FROM jobs").fetchall():
            state = json.loads(text)
            state["created_at"] -= seconds
            aged = json.dumps(state)
            file._do("UPDATE jobs SET state = ?, state_crc = ? WHERE job_id = ?", aged, crc_of(job_id, aged), job_id)
    file.close()


def test_ids_are_shortened(account: Account, emulator: Emulator) -> None:
    """An id may be shortened as long as it means one job; what could be several is told with their ids."""
    client = O3ProClient(O3ProConfig(endpoint=emulator.endpoint, api_key=emulator.api_key))
    with BackgroundHandler(client, store=account.home / "jobs.db") as handler:
        ids = [handler.submit(LONG).id for _ in range(17)]  # of which two begin alike
    doubled = next(first for first in "0123456789abcdef" if sum(job_id[0] == first for job_id in ids) > 1)
    code, _, err = account.says("status", doubled)
    assert code == 2
    assert "jobs begin with" in err
    single = ids[0]
    assert account.says("cancel", single[:12].upper(), "--json")[1].count(single) == 1


def test_nothing_there(stranger: Account) -> None:
    """Without a file there are no jobs, and reading makes none."""
    assert stranger.says("list") == (0, "", "no jobs\n")
    assert stranger.says("list", "--json") == (0, "[]\n", "")
    assert stranger.says("watch") == (0, "", "no jobs are under way\n")
    assert not stranger.home.exists()


# --- watch --------------------------------------------------------------------------------------------------


def test_watch(account: Account) -> None:
    """`watch` takes up what nobody watches, writes a line for each change, and ends when all have ended."""
    good, bad = submitted(account), submitted(account, "Why?", "-o", "metadata", FAILS)
    code, out, _ = account.says("watch", good, bad)
    assert code == 1
    assert f"{good[:8]}  completed" in out.splitlines()
    assert f"{bad[:8]}  failed" in out.splitlines()
    assert account.says("watch", good)[0] == 0


def test_watch_json(account: Account) -> None:
    """`watch --json` writes each change as one line, as `list_active_jobs` tells of the job."""
    job_id = submitted(account)
    code, out, err = account.says("watch", job_id, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [*lines[-1]] == ["job_id", "status", "question", "effort", "elapsed_time"]
    assert (lines[-1]["job_id"], lines[-1]["status"]) == (job_id, "completed")


# --- rm, prune, attach --------------------------------------------------------------------------------------


def test_rm_and_prune(account: Account, stranger: Account) -> None:
    """`rm` and `prune` forget ended jobs, without an account; `--dry-run` forgets nothing."""
    account.run("ask", "One?")
    account.run("ask", "Two?")
    one, two = (job["job_id"] for job in json.loads(stranger.says("list", "--json")[1]))
    code, out, _ = stranger.says("rm", one, "--json")
    assert (code, json.loads(out)) == (0, {"success": True, "job_id": one, "status": "completed"})
    assert stranger.says("prune", "--older-than", "1d")[:2] == (0, "")
    assert stranger.says("prune", "--older-than", "0s", "--dry-run")[:2] == (0, f"{two}\n")
    assert json.loads(stranger.says("prune", "--older-than", "0s", "--dry-run", "--json")[1])["job_id"] == two
    assert stranger.says("prune", "--older-than", "0s")[0] == 0
    assert stranger.says("list")[2] == "no jobs\n"


def test_rm_remote(account: Account, emulator: Emulator) -> None:
    """`rm --remote` deletes the response at the service, too."""
    account.run("ask", "One?")
    job_id = json.loads(account.says("list", "--json")[1])[0]["job_id"]
    assert account.run("rm", job_id, "--remote").returncode == 0
    assert emulator.counters()["deletes"] == 1


def test_attach(account: Account, emulator: Emulator, tmp_path: Path) -> None:
    """`attach` takes up a response that another program made; nothing is asked anew."""
    emulator.set_knobs("seconds=1 queued=0")
    client = O3ProClient(O3ProConfig(endpoint=emulator.endpoint, api_key=emulator.api_key))
    with BackgroundHandler(client, on_close="detach") as handler:
        job = handler.submit("Why?")
        wait_until(lambda: job.response_id, "the question was accepted")
        response = str(job.response_id)
    code, out, _ = account.says("attach", response)
    assert code == 0
    assert account.says("result", out.strip(), "--wait")[1].startswith("[emulator]")
    assert account.says("result", response)[1].startswith("[emulator]")
    assert emulator.counters()["creates"] == 1
    assert account.says("attach", "not an id")[0] == 2


# --- batch --------------------------------------------------------------------------------------------------


def batch_file(tmp_path: Path, *lines: Any) -> str:
    """Write a file of questions, and answer its path."""
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join([*map(json.dumps, lines), ""]), encoding="utf-8")
    return str(path)


def results(out: bytes | str) -> dict[int, dict[str, Any]]:
    """Answer the results by line."""
    text = out.decode() if isinstance(out, bytes) else out
    return {line["line"]: line for line in map(json.loads, text.splitlines())}


def test_batch(account: Account, emulator: Emulator, tmp_path: Path) -> None:
    """`batch` prints one line for each question; run again it prints them again, and asks nothing twice."""
    questions = ("One?", {"id": "two", "question": "Two?", "effort": "high"}, "One?")
    path = batch_file(tmp_path, *questions)
    code, out, _ = account.says("batch", path)
    found = results(out)
    assert code == 0
    assert {*found} == {1, 2, 3}
    assert found[2]["id"] == "two"
    assert found[2]["effort"] == "high"
    assert found[1]["job_id"] != found[3]["job_id"], "the same question twice is two questions"
    assert emulator.counters()["creates"] == 3
    assert results(account.says("batch", path)[1]) == found
    assert emulator.counters()["creates"] == 3
    assert account.says("batch", path, "--deadline", "3600", "--priority", "3")[0] == 0
    assert emulator.counters()["creates"] == 3
    assert account.says("batch", path, "--name", "again", "--priority", "3")[0] == 0
    assert [record.request.priority for record in peek(str(account.home / "jobs.db")).records] == [0, 0, 0, 3, 3, 3]
    assert emulator.counters()["creates"] == 6


def test_batch_is_killed(account: Account, emulator: Emulator, tmp_path: Path) -> None:
    """A batch that is killed with SIGKILL in its midst goes on when it is run again, and asks nothing twice."""
    emulator.set_knobs("seconds=1 queued=0")
    path = batch_file(tmp_path, *(f"Question {number}?" for number in range(30)))
    process = account.start("batch", path)
    wait_until(lambda: emulator.counters()["accepted"] >= 10, "ten were accepted")
    process.kill()
    process.communicate()
    code, out, _ = account.says("batch", path, "--concurrency", "50")
    found = results(out)
    assert {*found} == {*range(1, 31)}
    failed = [line for line in found.values() if not line["success"]]  # those that were just leaving
    assert code == (1 if failed else 0)
    assert emulator.counters()["accepted"] <= 30
    assert not emulator.counters()["duplicates"]


def test_batch_again_what_failed(account: Account, emulator: Emulator, tmp_path: Path) -> None:
    """A batch exits with 1 where a job failed; `--retry-failed` asks those again, and no others."""
    path = batch_file(tmp_path, "Good?", {"question": "Bad?", "metadata": {"emulator": "outcome=failed"}})
    assert account.run("batch", path).returncode == 1
    assert account.run("batch", path).returncode == 1
    assert emulator.counters()["creates"] == 2
    assert account.run("batch", path, "--retry-failed").returncode == 1
    assert emulator.counters()["creates"] == 3


BAD_LINES = (
    "5",
    "{",
    "[]",
    "[" * 200_000,
    '{"effort": "low"}',
    '{"question": ""}',
    '{"question": "Why?", "timeout": {}}',
    '{"question": "Why?", "effort": ["low"]}',
    '{"question": "Why?", "priority": "high"}',
    '{"question": "Why?", "dedupe_key": "k"}',
    '{"question": "Why?", "self": 1}',
    '{"question": "Why?", "model": "gpt"}',
)


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40])
def test_batches_that_are_none(account: Account, emulator: Emulator, tmp_path: Path, line: str) -> None:
    """A line that is no question is told by its number, and nothing is asked, not even what stands before it."""
    path = tmp_path / "q.jsonl"
    path.write_text(f'"One?"\n\n{line}\n', encoding="utf-8")
    code, _, err = account.says("batch", str(path))
    assert code == 2
    assert "line 3" in err
    assert "Traceback" not in err
    assert emulator.counters()["creates"] == 0


def test_a_batch_that_is_interrupted_as_it_starts(account: Account, emulator: Emulator, tmp_path: Path) -> None:
    """Ctrl-C while questions are still being started says how to come back, and exits with 130."""
    emulator.set_knobs("seconds=600 queued=0")
    process = account.start("batch", batch_file(tmp_path, *(f"Question {number}?" for number in range(5000))))
    wait_until(lambda: emulator.counters()["accepted"], "the first one was accepted")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"asks nothing twice" in err
    assert b"Traceback" not in err


# --- places, languages, encodings ---------------------------------------------------------------------------


def test_the_file_is_private(account: Account) -> None:
    """The jobs lie in the home of the command, for their owner alone."""
    account.run("ask", "Why?")
    assert stat.S_IMODE(os.stat(account.home).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(account.home / "jobs.db").st_mode) == 0o600


def test_env_file(account: Account, stranger: Account, tmp_path: Path) -> None:
    """`--env-file` takes from a file what the environment does not set; without its library it says what to install."""
    names = ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY")
    (tmp_path / ".env").write_text("\n".join(f"{name}={account.environment[name]}" for name in names), encoding="utf-8")
    assert stranger.run("ask", "Why?", "--env-file", str(tmp_path / ".env")).returncode == 0
    code, _, err = stranger.says("ask", "Why?", "--env-file", str(tmp_path / ".env"), without=("dotenv",))
    assert code == 6
    assert "o3pro-bg[cli]" in err


@pytest.mark.parametrize(("locale", "words"), [("ja_JP.UTF-8", "ジョブは"), ("C.UTF-8", "job"), ("de_DE", "job")])
def test_language(account: Account, locale: str, words: str) -> None:
    """The replies' sentences are Japanese where the environment is, and else English."""
    job_id = submitted(account, LONG)
    account.run("cancel", job_id)
    reply = json.loads(account.says("result", job_id, "--json", LC_ALL=locale)[1])
    assert words in reply["error"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "utf-8"])
def test_encodings(account: Account, encoding: str) -> None:
    """A console's encoding loses no line: what it has is written, and what it lacks as an escape."""
    submitted(account, "[emulator seconds=600] 質問 €?")
    done = account.run("list", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    text = done.stdout.decode(encoding)
    assert " started " in text or " running " in text
    assert ("質問" in text) == (encoding in ("cp932", "utf-8"))
    assert ("\\u8cea" in text) == (encoding in ("ascii", "cp1252"))


def test_verbose(account: Account) -> None:
    """`--verbose` tells on standard error what becomes of the job; neither the question nor the key is in it."""
    code, out, err = account.says("ask", "Why on earth?", "-v")
    assert (code, out.startswith("[emulator]")) == (0, True)
    assert "o3pro_bg" not in out
    assert err.count("\n") > 3
    assert "earth" not in err
    assert account.environment["AZURE_OPENAI_API_KEY"] not in err


def test_without_extras(account: Account) -> None:
    """The command needs none of the extra's libraries."""
    code, out, _ = account.says("ask", "Why?", without=("rich", "shtab", "dotenv"))
    assert (code, out.startswith("[emulator]")) == (0, True)
    assert account.says("completion", "bash", without=("shtab",))[0] == 6


def test_whoever_reads_goes(account: Account) -> None:
    """A reader who goes, such as `head`, ends the command without a traceback."""
    submitted(account, LONG)
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(  # noqa: S603
        [*COMMAND, "list", "--json"],
        env=account.environment,
        stdout=writes,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(writes)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr


# --- help ---------------------------------------------------------------------------------------------------


def verbs() -> list[str]:
    """Answer the command's verbs."""
    [choices] = [action.choices for action in parser()._actions if isinstance(action.choices, dict)]
    return [*choices]


def test_the_verbs() -> None:
    """The command has these verbs."""
    assert verbs() == [
        "ask", "submit", "status", "result", "list", "watch", "cancel", "rm", "prune", "attach", "batch", "worker",
        "doctor", "serve", "demo", "emulator", "completion",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", verbs())
def test_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb has a help with an example, which the command understands; every console has its characters."""
    with pytest.raises(SystemExit):
        parser().parse_args([verb, "--help"])
    text = capsys.readouterr().out
    examples = re.findall(rf"^  .*?o3pro-bg ({verb}\b.*)$", text, flags=re.MULTILINE)
    assert examples
    assert text.isascii()
    for example in examples:
        words = shlex.split(example, comments=True)
        assert parser().parse_args(words[: words.index(">")] if ">" in words else words).run


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(stranger: Account, shell: str) -> None:
    """`completion` prints a script for the shell that knows every verb."""
    code, out, _ = stranger.says("completion", shell)
    assert code == 0
    assert all(verb in out for verb in verbs())
