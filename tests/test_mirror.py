"""Readers see whole records, from the moment they are shown to the moment the job is removed."""

from __future__ import annotations

from o3pro_bg._sqlite.mirror import Mirror

from .peers import ended, record


def test_mirror_shows_the_newest() -> None:
    """What was shown last is read, in the order in which the jobs were shown first."""
    mirror = Mirror()
    first, second = record("a"), record("b")
    for shown in (first, second, ended(first)):
        mirror.show(shown, is_held=True)
    assert [found.job_id for found in mirror.snapshot()] == ["a", "b"]
    assert (mirror.get("b"), mirror.get("c")) == (second, None)
    assert (mirror.holds("a"), mirror.holds("b"), mirror.holds("c")) == (False, True, False)


def test_mirror_hides_what_is_on_its_way_out() -> None:
    """A job that was removed here does not show until it is gone, whatever is still written of it."""
    mirror = Mirror()
    assert not mirror.hide("a")
    mirror.show(record(), is_held=True)
    assert mirror.hide("a")
    mirror.show(record(), is_held=True)
    assert (mirror.get("a"), mirror.snapshot(), mirror.holds("a"), mirror.hide("a")) == (None, [], False, False)
    mirror.drop("a")
    assert [mirror._records, mirror._held, mirror._leaving] == [{}, set(), set()], "nothing is left of it"
    mirror.show(record(), is_held=False)
    assert mirror.get("a") is not None
    assert not mirror.holds("a")
