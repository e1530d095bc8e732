"""Lightning: a task made from a module and a data module, and the noise monitor as a callback.

`batchscope find batchscope.integrations.lightning:task --set module=train.py:Model --set data=train.py:Data`

Both import names, `lightning` and `pytorch_lightning`, are taken; neither is imported before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .making import LightningTask, task

if TYPE_CHECKING:
    from .noise_callback import NoiseCallback

__all__ = ["LightningTask", "NoiseCallback", "task"]


def __getattr__(name: str) -> Any:
    """The callback, whose class is derived from one of Lightning's."""
    if name == "NoiseCallback":
        from .noise_callback import NoiseCallback

        return NoiseCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
