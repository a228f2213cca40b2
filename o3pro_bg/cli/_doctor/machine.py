"""What the doctor finds on this machine: versions, extras, and the file of the jobs, or their database."""

from __future__ import annotations

import os
import platform
import re
import stat
from importlib import metadata
from typing import TYPE_CHECKING, Final

from o3pro_bg import __version__
from o3pro_bg._sentences import explain
from o3pro_bg._sqlite.peek import peek
from o3pro_bg._sqlite.place import absolute
from o3pro_bg.cli._doctor.checks import Verdict, counted, ok, problem, unknown, warn
from o3pro_bg.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from o3pro_bg.cli._doctor.checks import Check

_US: Final = "o3pro-bg"
_NEEDED: Final = ("openai", "azure-identity", "anyio")
_EXTRAS: Final = {
    "aio": (("aiohttp",), "each request takes the SDK's own, slower HTTP client"),
    "cli": (("rich", "python-dotenv", "shtab"), "there are no live pictures, no --env-file or no completion"),
}
"""Of each extra: the packages that serve it, and what is missing without them."""

_REQUIREMENT: Final = re.compile(r"([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?[^;]*?>=\s*([\w.]+)")
_RELEASE: Final = re.compile(r"\d+(?:\.\d+)*", re.ASCII)
_ELSEWHERE: Final = "choose another file: --store FILE, or the directory O3PRO_BG_HOME"


def versions() -> Iterator[Check]:
    """Answer the versions of Python and of what is imported, against what our distribution asks for."""
    python, minimums = _minimums()
    yield _compared("python", platform.python_version(), python, "install a newer Python")
    yield _ourselves()
    for name in _NEEDED:
        if (found := _version_of(name)) is None:
            yield problem(name, "it is not installed", f"pip install '{_US}', which brings it")
        else:
            yield _compared(name, found, minimums.get(name), f"pip install --upgrade '{name}'")


def extras() -> Iterator[Check]:
    """Answer which extras are there; nothing but comfort depends on them."""
    _, minimums = _minimums()
    for extra, (packages, loss) in _EXTRAS.items():
        name, fix = f"extra {extra}", f"pip install --upgrade '{_US}[{extra}]'"
        found = {package: _version_of(package) for package in packages}
        missing = [package for package, version in found.items() if version is None]
        said = ", ".join(f"{package} {version}" for package, version in found.items() if version is not None)
        if missing:
            yield warn(name, f"without {', '.join(missing)}, {loss}", fix)
        elif old := [package for package in packages if _is_older(str(found[package]), minimums.get(package))]:
            yield warn(name, f"{said}: too old is {', '.join(old)}", fix)
        else:
            yield ok(name, said)


def store(path: str) -> Iterator[Check]:
    """Answer whether the file of the jobs can be used, and what it holds."""
    try:
        whole = absolute(path)
    except ValueError as exc:
        yield problem("store", str(exc), _ELSEWHERE)
        return
    yield (directory := _directory_of(whole))
    if not os.path.exists(whole):
        can_be_made = directory.verdict is Verdict.OK
        said = f"{whole} is not there yet"
        yield ok("store", f"{said}; the first job makes it") if can_be_made else unknown("store", said)
        return
    if os.name == "posix":
        yield _mode_of(whole)
    yield _jobs_in(whole)


def database(url: str) -> Check:
    """Answer whether the database of the jobs can be used, and what it holds."""
    from o3pro_bg._dbos.engine import DbosEngine

    try:
        place = DbosEngine(url).place
        from o3pro_bg._dbos.peek import peek as peek_into

        records = peek_into(url)
    except (ConfigError, StoreError, ValueError) as exc:
        return problem("database", str(exc), "correct --database, or O3PRO_BG_DATABASE, or what stands behind it")
    under_way = [record for record in records if not record.status.is_terminal]
    said = f"{place} holds {counted(len(records), 'job')}, {len(under_way)} under way"
    if waiting := sum(record.waiting == "concurrency" for record in under_way):
        said = f"{said}, of which {waiting} wait for a worker"
    return ok("database", said)


def version_line() -> str:
    """Answer the versions that somebody needs to know who reads a report."""
    return f"o3pro-bg {__version__}, Python {platform.python_version()}, openai {_version_of('openai') or 'missing'}"


def _minimums() -> tuple[str | None, Mapping[str, str]]:
    """Answer the oldest Python and, by package, the oldest version that our distribution takes; None, {} without it."""
    try:
        ours = metadata.metadata(_US)
    except metadata.PackageNotFoundError:
        return None, {}
    least: dict[str, str] = {}
    for requirement in metadata.requires(_US) or ():
        if (match := _REQUIREMENT.match(requirement)) is not None:
            least.setdefault(re.sub(r"[-_.]+", "-", match[1]).lower(), match[2])
    python = re.search(r">=\s*([\w.]+)", str(ours["Requires-Python"]))
    return python[1] if python else None, least


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _compared(name: str, version: str, least: str | None, fix: str) -> Check:
    if least is None:
        return unknown(name, f"{version}; which one is needed is not known, for {_US} is not installed as a package")
    if _release(version) is None:
        return unknown(name, f"{version} is no version that can be compared with the {least} that is needed")
    if _is_older(version, least):
        return problem(name, f"{version} is too old: {least} is needed", fix)
    return ok(name, f"{version} (needed: {least})")


def _is_older(version: str, least: str | None) -> bool:
    """Tell whether the release of a version comes before another; what is no version comes before none."""
    release, wanted = _release(version), _release(least or "")
    return release is not None and wanted is not None and release < wanted


def _release(version: str) -> tuple[int, ...] | None:
    """Answer the numbers of a release, without zeros at the end: a pre-release is taken for its release."""
    match = _RELEASE.match(version)
    if match is None:
        return None
    numbers = [int(number) for number in match[0].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _ourselves() -> Check:
    installed = _version_of(_US)
    if installed is None:
        return unknown(_US, f"{__version__}, which is not installed as a package", "pip install it, to be sure of it")
    if installed != __version__:
        return warn(_US, f"{__version__} runs, and {installed} is what is installed", "pip install it again")
    return ok(_US, installed)


def _directory_of(whole: str) -> Check:
    """Answer whether a file, and what SQLite puts beside it, can be made there."""
    where = os.path.dirname(whole)
    while not os.path.exists(where):
        where = os.path.dirname(where)
    if not os.path.isdir(where):
        return problem("store's directory", f"{where} is no directory", _ELSEWHERE)
    if not os.access(where, os.W_OK | os.X_OK):
        return problem("store's directory", f"{where} cannot be written", f"change its permissions, or {_ELSEWHERE}")
    return ok("store's directory", f"{where} can be written")


def _mode_of(whole: str) -> Check:
    """Answer whether others of this machine may read the questions and answers."""
    mode = stat.S_IMODE(os.stat(whole).st_mode)
    if mode & 0o077 and os.path.isfile(whole):
        return warn("store's mode", f"others may read or write it (mode {mode:04o})", f"chmod 600 '{whole}'")
    return ok("store's mode", f"{mode:04o}")


def _jobs_in(whole: str) -> Check:
    try:
        records, watched = peek(whole)
    except StoreError as exc:
        return problem("store", str(exc), _ELSEWHERE)
    under_way = [record for record in records if not record.status.is_terminal]
    unwatched = [record for record in under_way if record.job_id not in watched]
    damaged = [record for record in records if record.failure is not None and record.failure.code == "store_damaged"]
    said = f"{whole} holds {counted(len(records), 'job')}, {len(under_way)} under way"
    if damaged:
        return warn("store", f"{said}; damaged: {len(damaged)}", explain("en", "store_damaged", ""))
    if unwatched:
        watch = "`o3pro-bg watch` takes them up; the service goes on with them meanwhile"
        return warn("store", f"{said}, of which nobody watches {len(unwatched)}", watch)
    return ok("store", said)
