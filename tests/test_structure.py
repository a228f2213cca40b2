"""The house stands as it was drawn: arrows one way, each outside thing at its own door, modules small."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "o3pro_bg"

# The rings, innermost first; a module imports from its own ring and from those before it.
RINGS = (
    (
        "errors",
        "_figures",
        "_states",
        "_sentences",
        "_echo",
        "_records",
        "_durations",
        "_pacing",
        "_budget",
        "_prices",
        "_tokens",
        "_replies",
        "config",
        "_admission",
    ),
    ("_futures", "_forks", "_remote", "_headers", "_answers", "_lanes", "_responses", "client", "_stores", "_sqlite"),
    (
        "_ends",
        "_line",
        "_in_flight",
        "_door",
        "_ledger",
        "_link",
        "_shared",
        "_submission",
        "_late",
        "_lookout",
        "_nap",
        "_life",
        "_engine",
        "_portal",
    ),
    ("job", "_view", "_settings", "_face", "aio", "handler"),
    ("testing", "_shown", "_children", "_dbos", "demo", "cli", "web", "__main__", "emulator"),
)
READING_PATH = (
    "_states",
    "_records",
    "_pacing",
    "_ledger",
    "_shared",
    "_submission",
    "_life",
    "_engine",
    "_portal",
    "handler",
)
CORE = [name for ring in RINGS[:4] for name in ring]

# Who may import what lies outside, lazily or not.
DOORS = {
    "openai": {"client"},
    "httpx2": {"_lanes", "_responses", "client"},
    "aiohttp": {"_lanes"},
    "azure": {"client"},
    "sqlite3": {"_sqlite"},
    "threading": {"_forks", "_portal", "_stores", "_sqlite"},
    "asyncio": {
        "client",
        "_futures",
        "_ends",
        "_line",
        "_in_flight",
        "_door",
        "_nap",
        "_ledger",
        "_life",
        "_link",
        "_engine",
        "_submission",
        "_portal",
        "aio",
    },
}
PURE = {*RINGS[0]}


def files_of(name: str) -> list[Path]:
    """Answer the files of a module, or of a folder of modules."""
    return sorted((PACKAGE / name).rglob("*.py")) or [PACKAGE / f"{name}.py"]


def trees_of(name: str) -> list[ast.Module]:
    """Parse a module of the package, or a folder of them."""
    return [ast.parse(path.read_text(encoding="utf-8")) for path in files_of(name)]


def imports_of(name: str) -> set[str]:
    """Answer the modules that this one imports when it runs, wherever in it: what serves types alone is left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module == "o3pro_bg":
            found.update(f"o3pro_bg.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        for child in ast.iter_child_nodes(node):
            visit(child)

    for tree in trees_of(name):
        visit(tree)
    return found


def own_imports_of(name: str) -> set[str]:
    """Answer the other modules of the package that this one imports when it runs."""
    return {found.split(".")[1] for found in imports_of(name) if found.startswith("o3pro_bg.")} - {name}


def code_lines(path: Path) -> int:
    """Count the lines that hold code: no blanks, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    docs = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in blank
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(code - docs)


def test_every_module_has_its_ring() -> None:
    """No module stands outside the rings."""
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert modules == {name for ring in RINGS for name in ring} | {"__init__"}


@pytest.mark.parametrize("name", CORE)
def test_arrows_point_inwards(name: str) -> None:
    """A module of rings 0 to 3 imports from its own ring and from those inside it, and from no edge."""
    ring = next(number for number, names in enumerate(RINGS) if name in names)
    allowed = {module for names in RINGS[: ring + 1] for module in names}
    assert own_imports_of(name) <= allowed


def test_no_circles() -> None:
    """No module imports itself by way of others."""
    arrows = {name: own_imports_of(name) for name in CORE}
    while free := {name for name, targets in arrows.items() if not targets & arrows.keys()}:
        for name in free:
            del arrows[name]
    assert not arrows


@pytest.mark.parametrize("name", RINGS[4])
def test_edges_keep_to_themselves(name: str) -> None:
    """What an edge needs of another one is public there: no edge reaches into the modules of another."""
    inner = [found.split(".")[1:] for found in imports_of(name) if found.startswith("o3pro_bg.")]
    foreign = [path for path in inner if path[0] in RINGS[4] and path[0] != name and len(path) > 1]
    assert [path for path in foreign if path[1] != "__main__" and path[1].startswith("_")] == []


@pytest.mark.parametrize("outside", DOORS)
def test_each_outside_thing_has_its_door(outside: str) -> None:
    """Only the modules named for it import openai, azure, sqlite3, threading or asyncio."""
    users = {name for name in CORE if any(found.split(".")[0] == outside for found in imports_of(name))}
    assert users == DOORS[outside]


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_innermost_ring_is_pure(name: str) -> None:
    """Ring 0 has no clock and no luck of its own: both come in as arguments."""
    assert not imports_of(name) & {"time", "random", "datetime", "socket", "anyio"}


def test_statuses_are_moved_in_one_place() -> None:
    """No module but the tables and the faces' replies compares a job's status by its words."""
    words = {"started", "running", "completed", "failed", "cancelled", "queued", "in_progress", "incomplete"}
    users = {
        name
        for name in CORE
        for tree in trees_of(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for part in (node.left, *node.comparators)
        if isinstance(part, ast.Constant) and part.value in words
    }
    assert users == {"_answers"}, "the reading of an answer is the only place that meets the service's words"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_are_small(path: Path) -> None:
    """No module has more than 260 lines of code."""
    assert code_lines(path) <= 260


def test_the_core_is_small() -> None:
    """Rings 0 to 3 have at most 5,660 lines of code together, a quarter of them for the store on disk."""
    assert sum(code_lines(path) for name in CORE for path in files_of(name)) <= 5660


def test_the_reading_path_is_one_sitting() -> None:
    """The path from the states to the handler has at most 1,580 lines of code."""
    assert sum(code_lines(path) for name in READING_PATH for path in files_of(name)) <= 1580
