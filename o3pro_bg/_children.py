"""What a process of ours needs that another one starts."""

from __future__ import annotations

import os
from pathlib import Path


def import_path() -> dict[str, str]:
    """Answer what the environment of a child needs, so that it imports the package that this module is of."""
    root = Path(__file__).resolve().parents[1]
    if root.name in ("site-packages", "dist-packages"):
        return {}  # found anyway, and put first it could hide the standard library behind an old backport
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
