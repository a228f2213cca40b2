"""Who has died is told by Linux, and only where it can be."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from o3pro_bg._sqlite import place
from o3pro_bg._sqlite.place import absolute, is_gone, lies_in_its_folder, make, process_mark

from .peers import until

if TYPE_CHECKING:
    from pathlib import Path

on_linux = pytest.mark.skipif(not process_mark(), reason="only Linux tells")


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a\0b", "\ud800", "a/\udfff"])
def test_what_no_file_can_be_called(path: str) -> None:
    """A name that no file can have is refused before one is made in its place."""
    with pytest.raises(ValueError, match="path of a file"):
        absolute(path)


@pytest.mark.parametrize("path", ["x", "./~x", "a/~b", "質問", "\udcff", "a b\n", b"x"])
def test_any_other_name_is_one(path: str) -> None:
    """Every other name is taken, from where the process stands."""
    assert absolute(path) == os.path.abspath(os.fsdecode(path))


@on_linux
def test_a_process_is_there_until_it_has_ended() -> None:
    """A living process is there, stopped or not; one that has ended is gone, buried or not."""
    assert not is_gone(process_mark())
    script = "from o3pro_bg._sqlite.place import process_mark as mark; print(mark(), flush=True); input()"
    with subprocess.Popen(  # noqa: S603 - the script is ours
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        mark = process.stdout.readline().strip()
        assert not is_gone(mark)
        process.kill()
        until(lambda: is_gone(mark))
        assert process.returncode is None, "it is not buried yet"
    assert is_gone(mark)


@on_linux
def test_a_process_whose_main_thread_has_ended_is_there() -> None:
    """A process that other threads go on with is there, though its main thread has ended."""
    script = (
        "import ctypes, threading, time; from o3pro_bg._sqlite.place import process_mark as mark; "
        "threading.Thread(target=input).start(); print(mark(), flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen(  # noqa: S603 - the script is ours
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        mark = process.stdout.readline().strip()
        until(lambda: place._state_of(process.pid)[0] == "Z")
        assert not is_gone(mark)
        process.kill()


@on_linux
def test_another_process_of_the_same_number_is_another() -> None:
    """A number that was given away again is told by the time of the start."""
    number, _, house = process_mark().split(" ", 2)
    assert is_gone(f"{number} 1 {house}")


@pytest.mark.parametrize("mark", ["", "1", "1 2", f"{2**22 + 1} 2 another house", "x y z"])
def test_nothing_is_known_of_another_house(mark: str) -> None:
    """A process of another machine, of another namespace, or of no sense at all is not known to be gone."""
    assert not is_gone(mark)


@on_linux
def test_a_mark_without_sense_is_nobody() -> None:
    """A mark of this house that names no process is not believed."""
    assert not is_gone(f"number {process_mark().partition(' ')[2]}")


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such thing as /proc, nobody has a mark, and nobody is gone."""
    mark = process_mark()

    def refuse() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(place, "_house", refuse)
    assert process_mark() == ""
    monkeypatch.setattr(place, "_house", lambda: (_ for _ in ()).throw(PermissionError()))
    assert not is_gone(mark or "1 2 3")


@pytest.mark.parametrize("mounts", [place._MOUNTS, "/nothing"])
def test_a_file_lies_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str) -> None:
    """A file that is no mount lies in its folder, whether or not the system lists its mounts."""
    monkeypatch.setattr(place, "_MOUNTS", mounts)
    path = tmp_path / "jobs.db"
    path.touch()
    assert lies_in_its_folder(str(path))


def test_a_mount_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is a mount of its own is told by the system's list, in which spaces are escaped."""
    path = tmp_path / "my jobs.db"
    path.touch()
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 2 0:3 / {str(path).replace(' ', chr(92) + '040')} rw - ext4 /dev/x rw\n")
    monkeypatch.setattr(place, "_MOUNTS", str(mounts))
    assert not lies_in_its_folder(str(path))


@on_linux
def test_a_mount_is_told_by_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system lists no mounts, what lies on another device than its folder is one."""
    monkeypatch.setattr(place, "_MOUNTS", "/nothing")
    assert place._is_mounted("/proc")


def test_a_directory_that_another_process_made_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that was missing, and is there by the time it is to be made, is as good."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    monkeypatch.setattr(type(folder), "exists", lambda path: path != folder)
    make(folder / "jobs.db")
    monkeypatch.undo()
    assert (folder / "jobs.db").is_file()
