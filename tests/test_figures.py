"""A figure is what a clock, a bound or a bill can take."""

from __future__ import annotations

import math

import pytest

from o3pro_bg._figures import is_figure, is_positive


@pytest.mark.parametrize("value", [1, 0.001, 1e308, 10**300, 5e-324])
def test_figures(value: object) -> None:
    """Every finite number above 0 is a figure, and positive."""
    assert is_figure(value)
    assert is_positive(value)


@pytest.mark.parametrize("value", [0, 0.0, -0.0])
def test_nothing_is_a_figure(value: object) -> None:
    """0 is a figure, and not positive."""
    assert is_figure(value)
    assert not is_positive(value)


@pytest.mark.parametrize("value", [-1, False, True, math.inf, -math.inf, math.nan, 10**400, None, "1", 1j, b"1", [1]])
def test_no_figures(value: object) -> None:
    """Nothing else is: no truth value, no infinity, no text, and no number too large for a clock."""
    assert not is_figure(value)
    assert not is_positive(value)
