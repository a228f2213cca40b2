"""What a figure is: a number that a clock, a bound or a bill can take."""

from __future__ import annotations

import sys


def is_figure(value: object) -> bool:
    """Tell whether this is a finite number, 0 or more; a truth value is none, nor is what no float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def is_positive(value: object) -> bool:
    """Tell whether this is a finite number above 0."""
    return is_figure(value) and value != 0
