"""A Trainer that leaves nothing behind: no folder, no repository on a hub, no progress bar, no line of its log."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from .library import transformers

__all__ = ["quiet", "without_traces"]


@contextmanager
def quiet() -> Generator[None]:
    """Of the library, only errors are logged inside, and no progress bar is drawn."""
    logging = transformers().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def without_traces() -> Generator[None]:
    """A Trainer that is made inside makes neither its `output_dir` nor, for `push_to_hub`, a repository."""
    arguments, trainer = transformers().TrainingArguments, transformers().Trainer
    should_save, init_repo = arguments.should_save, trainer.init_hf_repo
    arguments.should_save = property(_no)
    trainer.init_hf_repo = _nothing
    try:
        with quiet():
            yield
    finally:
        arguments.should_save, trainer.init_hf_repo = should_save, init_repo


def _no(_: Any) -> bool:
    return False


def _nothing(*_: Any, **__: Any) -> None:
    return None
