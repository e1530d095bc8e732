"""The library `transformers`, imported when it is needed."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import TaskError

__all__ = ["transformers"]


def transformers() -> Any:
    """The library.

    Raises:
        TaskError: it is not installed, or does not work here.
    """
    try:
        library: Any = importlib.import_module("transformers")
        _ = library.Trainer  # parts of it are imported when they are asked for
    except ImportError as error:
        said = " ".join(str(error).split())
        raise TaskError(
            f"a task of a Trainer needs the libraries transformers (5 or newer) and accelerate, and they cannot be "
            f"imported ({said}); install them: pip install -c constraints.txt -e '.[integrations]'"
        ) from error
    return library
