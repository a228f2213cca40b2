"""README tells the truth: every code block runs, every command and every output in it is the real one."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
import shlex
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

import o3pro_bg
from o3pro_bg import errors

from .faces import QUICK
from .terminal import Account, Terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from o3pro_bg.emulator import Emulator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Answer the code blocks of this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def title_of(block: str) -> str:
    """Name a block by the heading above it."""
    return str(re.findall(r"^#+ (.+)$", README[: README.index(block)], flags=re.MULTILINE)[-1])


@pytest.fixture(autouse=True)
def _account(o3pro_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A reader with an account, which is the emulator, an empty folder, and little patience."""
    monkeypatch.chdir(tmp_path)
    o3pro_emulator.set_knobs("seconds=0.1")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", o3pro_emulator.endpoint)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", o3pro_emulator.api_key)
    monkeypatch.setattr("o3pro_bg._shared.Pace", lambda: QUICK)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 100))


async def run(block: str) -> dict[str, Any]:
    """Run a block as a notebook cell would, where `await` may stand alone, and answer its names."""
    flags = 0 if "asyncio.run(" in block or "run_virtual(" in block else ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    names: dict[str, Any] = {"__name__": "__main__"}
    answer = eval(compile(block, "README.md", "exec", flags), names)
    if inspect.isawaitable(answer):
        await answer
    return names


PYTHON = [block for block in blocks("python") if not re.search("FastAPI|litestar|quart|django", block)]
WEB = {
    name: block
    for block in blocks("python")
    for name in re.findall(r"^from (fastapi|litestar|quart) import", block, re.M)
    if "web.app" in block
}


@pytest.mark.filterwarnings("ignore:a waiting call of BackgroundHandler:RuntimeWarning")
@pytest.mark.parametrize("block", PYTHON, ids=title_of)
def test_python_blocks_run(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every Python block runs, and those that print an answer print the emulator's."""
    if re.search(r"^(?!\s).*\bawait ", block, flags=re.MULTILINE):
        names = asyncio.run(_cell(block))
    else:
        names = {"__name__": "__main__"}
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "[emulator]" in printed or "print(" not in block or "print(job_id" in block
    for value in names.values():
        if isinstance(value, o3pro_bg.BackgroundHandler):
            value.close()


async def _cell(block: str) -> dict[str, Any]:
    names = await run(block)
    assert (await names["job"]).startswith("[emulator]")
    return names


async def test_fastapi_block_serves(o3pro_emulator: Emulator) -> None:
    """The FastAPI example takes a job over HTTP and answers its result."""
    [block] = [block for block in blocks("python") if "FastAPI" in block and block not in WEB.values()]
    app = (await run(block))["app"]
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as client,
    ):
        started = await client.post("/jobs", params={"question": "Why?"})
        assert started.status_code == 202
        assert (await client.post("/jobs", params={"question": " "})).status_code == 400
        assert (await client.get("/jobs/nope")).status_code == 404
        job_id = started.json()["job_id"]
        await app.state.jobs.wait(job_id)
        assert (await client.get(f"/jobs/{job_id}")).json()["response"].startswith("[emulator]")
    assert o3pro_emulator.counters()["accepted"] == 1


@pytest.mark.parametrize("name", ["fastapi", "litestar", "quart"])
async def test_web_blocks_serve(o3pro_emulator: Emulator, name: str) -> None:
    """The application of each framework takes a job below its mount and tells what came of it; FastAPI's asks, too."""
    app = (await run(WEB[name]))["app"]
    async with (
        serving(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as client,
    ):
        started = await client.post("/jobs/api/jobs", json={"question": "Why?"})
        assert started.status_code == 202
        places = [f"/jobs/api/jobs/{started.json()['job_id']}"]
        if name == "fastapi":
            places.append((await client.post("/summaries", params={"text": "Why?"})).json()["job"])
        for place in places:
            while (answer := await client.get(f"{place}/result")).status_code == 409:
                await asyncio.sleep(0.01)
            assert answer.json()["response"].startswith("[emulator]")
    assert o3pro_emulator.counters()["accepted"] == len(places)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[None]:
    """Have an application start and shut down, as a server does."""
    told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, told.get, said.put))

    async def hear(what: str) -> None:
        await told.put({"type": f"lifespan.{what}"})
        assert await said.get() == {"type": f"lifespan.{what}.complete"}

    await hear("startup")
    yield
    await hear("shutdown")
    await task


def test_ci_runs_the_test_command() -> None:
    """What CI runs for tests is README's second command, read from README."""
    first, second, account = blocks("sh")
    assert first.count("\n") == second.count("\n") == 1
    assert first.endswith("o3pro-bg demo\n")
    assert "pytest" in second
    assert "README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^export (\w+)=", account, flags=re.MULTILINE) == [
        "AZURE_OPENAI_ENDPOINT",
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_DEPLOYMENT",
    ]


def test_demo_output_is_real(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What README shows of the demo is what it prints, but for ids, times and counts."""
    monkeypatch.undo()
    from o3pro_bg.demo import run as demo

    assert demo() == 0
    assert _shape(blocks("text")[0]) <= _shape(capsys.readouterr().out)


def _shape(output: str) -> set[str]:
    """Answer the kinds of lines: digits and ids made alike, spaces folded."""
    output = re.sub(r"\b[0-9a-f]{8}\b", "ID", output)
    return {re.sub(r"\s+", " ", re.sub(r"[\d.]+", "N", line)).strip() for line in output.splitlines()}


@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: block.splitlines()[-1][:20])
def test_screens_are_real(block: str, o3pro_emulator: Emulator, tmp_path: Path) -> None:
    """What README shows of the command stands, at some moment, on a real terminal's screen, but for ids and figures."""
    command, *screen = block.splitlines()
    account = Account(tmp_path / "home", o3pro_emulator)
    for status, effort, question in re.findall(r"^\w{8}  . (\w+) +(\w+) .+? s  (.+)$", block, flags=re.MULTILINE):
        o3pro_emulator.set_knobs(f"seconds={600 if status == 'running' else 0.1} queued=0")
        account.run("submit", question, "--effort", effort)
    o3pro_emulator.set_knobs("seconds=5 queued=0")
    shown = [_line_shape(line) for line in screen]
    with Terminal(account, *shlex.split(command.removeprefix("$ o3pro-bg ")), size=(200, 40)) as terminal:
        terminal.until(lambda text: shown == [_line_shape(line) for line in text.splitlines()])


def _line_shape(line: str) -> str:
    """Answer what stays of a line: figures, ids, and what moves are made alike, spaces folded."""
    line = re.sub(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}\b", "ID", line)
    line = re.sub(r"(?<![\w:/.])~?/[\w./-]+", "PATH", line)
    line = re.sub(r"[━╸╺]+", "━", re.sub(r"[\u2800-\u28ff]", "⠿", line))
    return re.sub(r"\s+", " ", re.sub(r"[\d.,]*\d", "N", line)).strip()


def test_error_tree_is_real() -> None:
    """The tree of exceptions is the one of `errors`, and names every exception there is."""
    tree = blocks("text")[1]
    assert tree.strip() in inspect.cleandoc(errors.__doc__ or "").replace("\n    ", "\n")
    names = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert names == set(re.findall(r"\b[A-Z]\w+(?=\n|  )", tree))


def test_settings_are_all_named() -> None:
    """README names every setting of a handler, and every field of the configuration that has a story."""
    for setting in o3pro_bg.Settings.__annotations__:
        assert f"`{setting}`" in README or f"`{setting}=" in README


def test_each_trap_is_held_by_tests() -> None:
    """No line stands in the table of traps without the tests that hold it, and none of these has gone."""
    page = (ROOT / ".github" / "TRAPS.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (?!trap|-|store|memory|file)[^\n]+ \| ([^|\n]+) \|$", page, flags=re.MULTILINE)
    assert len(lines) > 15
    for line in lines:
        module = ""
        for name in re.findall(r"`([\w.]+)`", line):
            module, test = name.split(".") if "." in name else (module, name)
            assert hasattr(importlib.import_module(f"tests.{module}"), test), name
        assert module, line
