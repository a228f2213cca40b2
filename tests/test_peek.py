"""A look into a file of jobs, for who holds and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from o3pro_bg import SqliteStore
from o3pro_bg._sqlite.peek import peek

from .peers import ENDPOINT, record

if TYPE_CHECKING:
    from pathlib import Path


def test_a_look_into_a_file_takes_nothing(tmp_path: Path) -> None:
    """A look tells which jobs are held by the living, and neither holds, changes nor makes anything."""
    path = str(tmp_path / "jobs.db")
    assert peek(path) == ([], frozenset())
    assert not (tmp_path / "jobs.db").exists()
    store = SqliteStore(path)
    store.open(ENDPOINT, lambda _: None).result()
    store.insert(record("held")).result()
    assert [found.job_id for found in peek(path).records] == ["held"]
    assert peek(path).watched == {"held"}
    assert store.holds("held")
    store.close().result()
    assert peek(path).watched == frozenset()
    again = SqliteStore(path)
    again.open(ENDPOINT, lambda _: None).result()
    assert again.holds("held"), "nobody else has taken it"
    again.close().result()
