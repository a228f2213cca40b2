"""What a fork waits for, and what begins anew: as far as one process can tell; `test_forks` has real ones."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from o3pro_bg import BackgroundHandler, StoreError, _forks
from o3pro_bg._forks import Reborn, disown

from .faces import QUICK, fake

if TYPE_CHECKING:
    from pathlib import Path


class Shop(Reborn):
    """Something that begins anew."""

    _LEFT = frozenset({"open_since"})
    open_since: int

    def __init__(self) -> None:
        self.open_since = 1
        self.begun = 0

    def _anew(self, left: dict[str, Any]) -> dict[str, Any]:
        self.begun += 1
        return {"open_since": left["open_since"] + 1}


def test_what_was_left_to_the_parent_begins_anew_when_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins at the first use and once, however many threads come, and in a child of a child as well."""
    kept: list[Any] = []
    monkeypatch.setattr(_forks, "KEPT", kept)
    shop = Shop()
    shop._begin_again()
    shop._begin_again()
    assert shop.begun == 0
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: shop.open_since, range(100))) == {2}
    shop._begin_again()
    assert (shop.open_since, shop.begun) == (3, 2)
    assert [left.get("open_since") for left in kept] == [1, None, 2]
    with pytest.raises(AttributeError, match="'Shop' object has no attribute 'closed'"):
        _ = shop.closed  # type: ignore[attr-defined]


def test_a_fork_waits_for_what_is_done_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits until that is over, but not for ever; a child has it over in any case."""
    monkeypatch.setattr(_forks, "_PATIENCE", 0.05)
    monkeypatch.setattr(_forks, "_WHOLE", [threading.RLock()])
    monkeypatch.setattr(_forks, "_HEIRS", {heir := Shop()})
    begun, over = threading.Event(), threading.Event()

    def work() -> None:
        with _forks.whole():
            begun.set()
            over.wait(20)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        assert begun.wait(20)
        _forks._wait()
        _forks._go_on()
        assert not working.done()
        over.set()
        working.result(20)
        _forks._wait()
        another = pool.submit(work)
        _forks._go_on()
        assert not _forks._HOLDERS
        another.result(20)
        _forks._wait()
        _forks._begin_again()  # as in the child
        pool.submit(work).result(20)
    assert not _forks._HOLDERS
    assert heir.open_since == 2


def test_a_child_that_cannot_open_its_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first verb in a child raises StoreError where the file cannot be opened, and the next one tries again."""
    kept: list[Any] = []
    monkeypatch.setattr(_forks, "KEPT", kept)
    path = tmp_path / "jobs.db"
    handler = BackgroundHandler(fake(), pace=QUICK, store=path)
    handler._begin_again()
    kept[0]["_portal"].stop(1)
    path.rename(tmp_path / "other.db")
    path.mkdir()
    with pytest.raises(StoreError, match="it is no regular file"):
        handler.check_status("nope")
    path.rmdir()
    with handler:
        assert handler.submit("q").result(5).startswith("fake")


def test_closing_in_a_child_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that a child only closes opens no file and starts no loop there, and reads answer afterwards."""
    kept: list[Any] = []
    monkeypatch.setattr(_forks, "KEPT", kept)
    handler = BackgroundHandler(fake(), pace=QUICK, store=tmp_path / "jobs.db", language="en")
    handler._begin_again()
    handler.close()
    assert "_portal" not in vars(handler)
    assert handler.list_active_jobs() == []
    assert "closed" in handler.start_background_task("q")["error"]
    kept[0]["_portal"].stop(1)


def test_what_is_disowned_leads_nowhere() -> None:
    """Whatever is done with a disowned socket, the other end hears nothing of it; what is closed already is no harm."""
    here, there = socket.socketpair()
    parent = os.dup(here.fileno())  # which has it open as well
    disown([here.fileno(), 10**6])
    assert not os.get_inheritable(here.fileno())
    os.write(here.fileno(), b"goodbye")
    here.close()
    os.write(parent, b"hello")
    assert there.recv(100) == b"hello"
    os.close(parent)
    there.close()


def test_to_disown_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a descriptor leads to in place of the parent's is not open once more beside it."""
    opened, closed = Mock(wraps=os.open), Mock(wraps=os.close)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "close", closed)
    disown([10**6])
    monkeypatch.undo()
    assert opened.call_count == closed.call_count == 1
