"""What the package promises as a package: names, lightness, and a command that answers at once."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import o3pro_bg
from o3pro_bg.cli import main

HEAVY = ("openai", "azure", "httpx", "httpx2", "pydantic", "anyio", "asyncio", "pytest", "fastapi", "starlette")


def loaded_by(code: str) -> set[str]:
    """Answer which of the heavy modules a fresh interpreter has loaded after this code."""
    code += f"\nimport sys; print(*({{*{HEAVY}}} & {{*sys.modules}}), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    return {*run.stderr.split()}


def test_import_is_light() -> None:
    """`import o3pro_bg` loads nothing heavy: not openai, not azure, not even asyncio."""
    assert loaded_by("import o3pro_bg") == set()


def test_help_is_light() -> None:
    """`o3pro-bg --help` loads nothing heavy either."""
    code = "from o3pro_bg.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert loaded_by(code) == set()


def test_a_handler_is_made_without_the_sdk() -> None:
    """Making a client and a handler, and reading, load neither openai nor azure: the first job does."""
    code = "from o3pro_bg import *\nBackgroundHandler(O3ProClient(O3ProConfig())).check_status('nope')"
    assert not loaded_by(code) & {"openai", "azure", "httpx2", "pydantic"}


def test_every_public_name_is_there() -> None:
    """Each name of `__all__` is found, is listed by `dir`, and is declared for type checkers as well."""
    declared = {
        alias.asname
        for node in ast.walk(ast.parse(Path(str(o3pro_bg.__file__)).read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("o3pro_bg.")
        for alias in node.names
    }
    assert {*o3pro_bg.__all__} == declared | {"__version__"}
    for name in o3pro_bg.__all__:
        assert getattr(o3pro_bg, name) is not None
        assert name in dir(o3pro_bg)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that does not exist raises AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="BackgroundHandlr"):
        o3pro_bg.BackgroundHandlr  # noqa: B018 - the access is the point


def test_version_is_the_distribution_s() -> None:
    """The module and the installed distribution tell the same version."""
    assert o3pro_bg.__version__ == importlib.metadata.version("o3pro-bg")


def test_version_option(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the version and exits with 0."""
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"o3pro-bg {o3pro_bg.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["explode"], ["emulator", "--port=x"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage exits with 2 and says what is wrong on standard error."""
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "usage: o3pro-bg" in capsys.readouterr().err


def test_unknown_knob(capsys: pytest.CaptureFixture[str]) -> None:
    """An emulator that cannot start says why on standard error and exits with 2."""
    assert main(["emulator", "--knobs", "explode=1"]) == 2
    assert "unknown knob 'explode'" in capsys.readouterr().err


def test_demo(capsys: pytest.CaptureFixture[str]) -> None:
    """`o3pro-bg demo` shows a 429 honoured, a cancel, a kill, an answer and a table, marked as the emulator's."""
    assert main(["demo"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("This is the EMULATOR")
    assert "429" in printed
    assert "cancelled" in printed
    assert "was killed (SIGKILL) with 2 of its jobs under way" in printed
    assert printed.count("taken up") == 2
    assert "[emulator] This answer is made up" in printed
    assert "5 creates (4 accepted, 1 answered 429)" in printed
    assert "4 paid requests for 4 jobs, 0 paid twice" in printed
    assert "export AZURE_OPENAI_ENDPOINT=https://" in printed
    assert "o3pro-bg ask" in printed


def test_emulator_command() -> None:
    """`o3pro-bg emulator` prints the lines that point a client to it, and ends cleanly on Ctrl-C."""
    environment = {key: value for key, value in os.environ.items() if key != "O3PRO_BG_EMULATOR_KEY"}
    command = [sys.executable, "-m", "o3pro_bg", "emulator", "--knobs", "seconds=1"]
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert "made up" in lines[0]
    assert lines[2].startswith("export AZURE_OPENAI_ENDPOINT=http://127.0.0.1:")
    assert lines[3].startswith("export AZURE_OPENAI_API_KEY=")
    assert (process.returncode, errors) == (0, "")
