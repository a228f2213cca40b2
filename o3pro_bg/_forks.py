"""
What a fork waits for, and what a forked process does first.

A fork copies one thread, in the middle of whatever all others do. What they held stays held in the child for ever, and
what they were connected to is still shared with the parent: a child that as much as tidies it up unregisters the
parent's sockets, or says goodbye on its connections. So the child keeps what it inherited, and touches none of it.
"""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PATIENCE: Final = 60.0  # seconds that a fork waits for what is done as a whole: a child with a half of it hangs

_WHOLE: Final = [threading.RLock()]
_HOLDERS: Final[list[int]] = []  # the thread that forks, if it did not have to wait for too long

KEPT: Final[list[Any]] = []
"""What was inherited. It is never collected: what that would close is the parent's."""


class Reborn:
    """
    What begins anew in a forked process, as soon as something is wanted of it that was left to the parent.

    Attributes:
        _LEFT: The names of the attributes that are the parent's.
    """

    _LEFT: ClassVar[frozenset[str]]

    @abstractmethod
    def _anew(self, left: dict[str, Any]) -> dict[str, Any]:
        """Answer what a forked process has in place of what it left to the parent."""
        ...

    def _begin_again(self) -> None:
        """Leave to the parent what is its own; called in the child before anything else, so it waits for nothing."""
        own = vars(self)
        left = {name: own.pop(name) for name in self._LEFT & own.keys()}
        KEPT.append(left)
        own["_left"] = {**own.get("_left", {}), **left}  # it may not have begun here before the next fork
        own["_beginning"] = threading.RLock()

    if not TYPE_CHECKING:  # pragma: no branch - for it every attribute is there from the beginning

        def __getattr__(self, name: str) -> Any:
            if name not in self._LEFT or "_beginning" not in vars(self):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            with self._beginning:
                if name not in vars(self):  # pragma: no branch - else another thread was first
                    vars(self).update(self._anew(self._left))  # at once: no other thread sees the half of it
            return vars(self)[name]


@contextmanager
def whole() -> Iterator[None]:
    """Do something of which a child could not inherit a half, such as an import: a fork waits for it."""
    with _WHOLE[0]:
        yield


_HEIRS: Final[WeakSet[Reborn]] = WeakSet()


def inherits(heir: Reborn) -> None:
    """Have this begin anew in every forked process, as long as it is there."""
    _HEIRS.add(heir)


def disown(descriptors: Iterable[int]) -> None:
    """Have these lead nowhere: whoever uses or closes them later, in this process, does nothing to the parent."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        with suppress(OSError):
            os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


def _wait() -> None:
    if _WHOLE[0].acquire(timeout=_PATIENCE):
        _HOLDERS.append(threading.get_ident())


def _go_on() -> None:
    if threading.get_ident() in _HOLDERS:
        _HOLDERS.remove(threading.get_ident())
        _WHOLE[0].release()


def _begin_again() -> None:
    _HOLDERS.clear()
    _WHOLE[0] = threading.RLock()
    for heir in list(_HEIRS):
        heir._begin_again()


getattr(os, "register_at_fork", dict)(  # no forks on Windows
    before=_wait, after_in_parent=_go_on, after_in_child=_begin_again
)
