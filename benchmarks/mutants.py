"""
Which small faults of the innermost modules no test notices.

Each mutant is a module with one fault: a comparison turned, a bound moved by one, a statement left out, a condition
reversed. The module's own suites run on it in a forked process, which saves the imports of all else; a mutant that no
test fails on has survived, and is printed. So is one that hangs, as the suites of a busy machine may seem to. What an
argument of a log, a docstring or a type says is not mutated.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.machinery import ModuleSpec
    from types import ModuleType

HOUSE = Path(__file__).parent.parent
LIFE = "life ledger engine durability"
SUITES = {
    "_figures": "figures",
    "_states": "states records",
    "_echo": "echo",
    "_records": "records",
    "_pacing": "pacing",
    "_budget": "budget",
    "_durations": "durations",
    "_prices": "prices",
    "_tokens": "tokens",
    "_replies": "replies",
    "_admission": "admission",
    "config": "config",
    "_line": f"line {LIFE}",
    "_in_flight": f"in_flight {LIFE}",
    "_ends": f"ledger {LIFE}",
    "_door": f"{LIFE} storms",
    "_lookout": LIFE,
    "_submission": f"{LIFE} remotes storms",
    "_late": LIFE,
    "_nap": LIFE,
    "_stores": "stores",
    "_life": f"{LIFE} remotes storms aio",
    "_ledger": LIFE,
    "_engine": f"{LIFE} remotes aio",
    "_headers": "remote",
    "_answers": "remote",
    "_link": f"{LIFE} storms remotes",
    "_shared": f"{LIFE} storms remotes",
    "_remote": "engine remotes",
    "_forks": "reborn",
    "_sqlite/rows": "rows jobfile sqlite",
    "_sqlite/mirror": "mirror journal sqlite",
    "_sqlite/peek": "cli_parts peek",
    "_sqlite/place": "place jobfile sqlite",
    "_responses": "remote lanes client",
    "_lanes": "lanes",
    "client": "client lanes",
    "_sqlite/journal": "journal sqlite",
    "_portal": "portal threads",
    "_sqlite/jobfile": "jobfile journal peek disk_faults",
    "_sqlite/causes": "jobfile disk_faults",
    "_sqlite/store": "sqlite stores stores_shared disk_faults",
    "_sqlite/writer": "sqlite stores stores_shared disk_faults",
}
LONGEST = 90.0  # seconds after which a mutant hangs
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip


class Mutant(NamedTuple):
    """A module with one fault."""

    module: str
    line: int
    was: str
    now: str
    tree: ast.Module


def faults_of(node: ast.AST) -> Iterator[Callable[[Any], Any]]:
    """Answer what makes other nodes of this one, each with one fault."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield lambda it: _set(it, ops=[SWAPS[type(it.ops[0])]()])
        case ast.BoolOp() | ast.BinOp() | ast.AugAssign() if type(node.op) in SWAPS:
            yield lambda it: _set(it, op=SWAPS[type(it.op)]())
        case ast.UnaryOp(op=ast.Not()):
            yield lambda it: it.operand
        case ast.Constant(value=bool()):
            yield lambda it: _set(it, value=not it.value)
        case ast.Constant(value=int() | float()):
            yield lambda it: _set(it, value=it.value + 1)
        case ast.If() | ast.While() | ast.IfExp():
            yield lambda it: _set(it, test=ast.UnaryOp(ast.Not(), it.test))
        case ast.Call(func=ast.Name(id="min" | "max" | "any" | "all")):
            other = {"min": "max", "max": "min", "any": "all", "all": "any"}
            yield lambda it: _set(it, func=ast.Name(other[it.func.id], ast.Load()))
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign():
            yield lambda it: ast.Pass()
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield lambda it: _set(it, value=ast.Constant(None))


def _set(node: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def mutants_of(module: str) -> Iterator[Mutant]:
    """Answer every mutant of a module."""
    source = (HOUSE / "o3pro_bg" / f"{module}.py").read_text(encoding="utf-8")
    whole = ast.parse(source)
    for number, node in enumerate(ast.walk(whole)):
        if _is_moot(node, whole):
            continue
        for fault in range(len(list(faults_of(node)))):
            tree = copy.deepcopy(whole)
            spot = list(ast.walk(tree))[number]
            was, now = ast.unparse(spot), list(faults_of(spot))[fault](copy.deepcopy(spot))
            _put(tree, spot, now)
            yield Mutant(module, getattr(node, "lineno", 0), was, ast.unparse(now), ast.fix_missing_locations(tree))


def _is_moot(node: ast.AST, whole: ast.Module) -> bool:
    """Tell whether this is a log, or there for types alone."""
    for other in ast.walk(whole):
        is_log = isinstance(other, ast.Expr) and ast.unparse(other).startswith("log.")
        is_type = isinstance(other, ast.If) and ast.unparse(other.test) == "TYPE_CHECKING"
        if (is_log or is_type) and node in ast.walk(other):
            return True
    return False


def _put(tree: ast.AST, spot: ast.AST, now: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is spot:
                setattr(parent, name, now)
            elif isinstance(value, list):
                value[:] = [now if item is spot else item for item in value]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Has the mutant imported in the module's place."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        is_ours = name == f"o3pro_bg.{self._mutant.module}".replace("/", ".")
        return importlib.util.spec_from_loader(name, self) if is_ours else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._mutant.tree, f"{self._mutant.module} (a mutant)", "exec"), module.__dict__)  # noqa: S102


def fate(mutant: Mutant | None, suites: str) -> str:
    """Run the suites on a mutant, or on the module as it is, in a process of their own; tell what became of it."""
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        os._exit(_run(mutant, suites))
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "killed" if os.waitstatus_to_exitcode(status) else "survives"
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"


def _run(mutant: Mutant | None, suites: str) -> int:
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
    paths = [str(HOUSE / "tests" / f"test_{suite}.py") for suite in dict.fromkeys(suites.split())]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    quiet = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*quiet, "--rootdir", str(HOUSE), *paths]))


def main() -> None:
    """Print the survivors of these modules."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=[*SUITES], help=f"default: {' '.join(SUITES)}")
    parser.add_argument("--at-once", type=int, default=2, help="processes; default: %(default)s")
    arguments = parser.parse_args()
    sys.path.insert(0, str(HOUSE))
    os.chdir(HOUSE)
    for name in ("openai", "httpx2", "aiohttp", "azure.identity"):
        importlib.import_module(name)
    for plugin in entry_points(group="pytest11"):
        plugin.load()
    for module in arguments.modules:
        if fate(None, SUITES[module]) != "survives":
            print(f"{module}: its suites fail as it is")
            continue
        mutants, begun = list(mutants_of(module)), time.monotonic()
        with ThreadPoolExecutor(arguments.at_once) as pool:
            fates = list(pool.map(fate, mutants, [SUITES[module]] * len(mutants)))
        counts = f"{fates.count('survives')} survive, {fates.count('hangs')} hang"
        print(f"\n{module}: {len(mutants)} mutants, {counts} ({time.monotonic() - begun:.0f} s)")
        for mutant, what in zip(mutants, fates, strict=True):
            if what != "killed":
                print(f"  {mutant.line}: {mutant.was!r} -> {mutant.now!r} {what}", flush=True)


if __name__ == "__main__":
    main()
