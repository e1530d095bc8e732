"""Reason why there is no measurement: one record, one form in the files, one reader. No torch.

Whatever is measured on a model or a task may not apply to it. The measurement then is a `NotApplicable`; in files it is
`{"not_applicable": reason}`, by itself or beside the names of what was to be measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

__all__ = ["NotApplicable", "not_applicable"]

_MEMBER = "not_applicable"


@dataclass(frozen=True, kw_only=True)
class NotApplicable:
    """Reason why a probe measures nothing on this model or task; it stands where the measurement would.

    >>> from batchscope.store.codec import encode
    >>> encode(NotApplicable(reason="the model has no bias"))
    {'not_applicable': 'the model has no bias'}
    """

    reason: str = field(metadata={"member": _MEMBER})


def not_applicable(found: object) -> str | None:
    """Reason why a note or row that was read from a file holds no measurement; `None` where it holds one.

    >>> not_applicable({"not_applicable": "the model has no bias"}), not_applicable([1.0]), not_applicable(None)
    ('the model has no bias', None, None)
    """
    if not isinstance(found, Mapping):
        return None
    return cast(Mapping[str, Any], found).get(_MEMBER)
