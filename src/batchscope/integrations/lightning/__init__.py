"""Lightning: a task made from a module and a data module, and the noise monitor as a callback.

`batchscope find batchscope.integrations.lightning:task --set module=train.py:Model --set data=train.py:Data`

Both import names, `lightning` and `pytorch_lightning`, are taken; neither is imported before it is needed.
"""

from __future__ import annotations

from .making import LightningTask, task

__all__ = ["LightningTask", "task"]
