"""What is collected: a module that builds on a class of another library is left out where that library is missing."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = (
    []
    if find_spec("lightning") or find_spec("pytorch_lightning")
    else ["src/batchscope/integrations/lightning/noise_callback.py"]
)
