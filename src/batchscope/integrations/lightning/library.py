"""Lightning under either of its import names, `lightning` and `pytorch_lightning`: the one that a module comes from."""

from __future__ import annotations

import importlib
import inspect
import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...errors import TaskError

__all__ = ["Library", "library_of", "number_taken", "overridden", "silenced"]

_ROOTS = ("lightning.pytorch", "pytorch_lightning")


@dataclass(frozen=True)
class Library:
    """Lightning, as it was imported.

    Attributes:
        root: `lightning.pytorch` or `pytorch_lightning`.
    """

    root: str

    def get(self, module: str, name: str) -> Any:
        """Class or function of one of its modules.

        Raises:
            TaskError: this version has it elsewhere.
        """
        try:
            return getattr(importlib.import_module(f"{self.root}.{module}"), name)
        except (ImportError, AttributeError) as error:
            version = getattr(importlib.import_module(self.root), "__version__", "?")
            raise TaskError(
                f"{self.root} {version} has no {name} in {module}, which batchscope reads the logged metrics with; "
                "versions from 2.6 on have it"
            ) from error


def overridden(owner: Any, hook: str) -> bool:
    """Whether the class of a module or a data module defines a hook itself."""
    base = _base(owner)
    if base is None:
        return callable(getattr(owner, hook, None))
    return getattr(type(owner), hook, None) is not getattr(base, hook, None)


def _base(owner: Any) -> type | None:
    """Lightning's own class among those of an object; `None`: there is none."""
    named = (kind for kind in type(owner).__mro__ if kind.__name__ in ("LightningModule", "LightningDataModule"))
    return next((kind for kind in named if kind.__module__.startswith(tuple(f"{root}.core." for root in _ROOTS))), None)


def library_of(owner: Any) -> Library | None:
    """The library whose `LightningModule` or `LightningDataModule` it is; `None`: it is neither."""
    base = _base(owner)
    return (
        None if base is None else Library(next(root for root in _ROOTS if base.__module__.startswith(f"{root}.core.")))
    )


def number_taken(step: Callable[..., Any], number: int) -> int:
    """How many of so many positional arguments a function takes."""
    try:
        parameters = inspect.signature(step).parameters.values()
    except (TypeError, ValueError):
        return number
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return number
    return min(number, sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters))


@contextmanager
def silenced() -> Generator[None]:
    """Keep Lightning from writing to the terminal inside, where it says what it found of this machine."""
    loggers = [logging.getLogger(root) for root in (*_ROOTS, "lightning.fabric", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
