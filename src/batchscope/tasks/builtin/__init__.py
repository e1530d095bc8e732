"""The tasks that come with the package, and what they share; a file that defines a function of its own name is a task.

From here: `BUILT_IN`, without torch. `load_task` of the room above makes the tasks.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["BUILT_IN"]


def _is_task(path: Path) -> bool:
    return f"\ndef {path.stem}(" in path.read_text(encoding="utf-8")


BUILT_IN = ("digits", *sorted({p.stem for p in Path(__file__).parent.glob("*.py") if _is_task(p)} - {"digits"}))
"""The names of the built-in tasks, the embedded one first."""
