"""Examples joined to batches, by the task's `collate` or by torch's: which example cannot be had or joined, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, default_collate

from ..errors import TaskError
from ..hardware.device import is_out_of_memory
from ..hardware.random_state import preserved_random_state
from .batches import MicroBatchSampler
from .patience import patience
from .protocol import Batch
from .user_code import explained, raised_in_worker
from .values import in_training_data

__all__ = ["Collation", "joined"]

_LOOKED_AT, _LOOKING_S, _CHEAP_S = 20_000, 0.05, 1e-3
"""Examples that are looked through at most, seconds that it may take, and an example's above which none is."""


@dataclass(frozen=True, kw_only=True)
class Collation:
    """Data set whose examples are joined to batches.

    Attributes:
        data: map-style, or with `__getitems__`, as torch's `DataLoader` takes it.
        collate: the task's; `None`: torch's `default_collate`.
        name: of the data, for messages.
        numbers: index of each example in what the user knows by that name, shape `(examples,)`; `None`: as they come.
    """

    data: Dataset[Any]
    collate: Callable[[list[Any]], Batch] | None
    name: str = "train_data()"
    numbers: Tensor | None = None

    def examples(self, indices: Sequence[int]) -> list[Any]:
        """The examples at some indices.

        Raises:
            TaskError: one cannot be had; the message says which.
        """
        data: Any = self.data.dataset if type(self.data) is Subset else self.data  # a part has that method in any case
        many = getattr(self.data, "__getitems__", None)
        if not callable(many) or not callable(getattr(data, "__getitems__", None)):
            return self._one_by_one(indices)
        with explained(f"making a batch of {self.name}"):
            try:
                return list(cast(Any, many)(list(indices)))
            except Exception as error:
                if not is_out_of_memory(error):
                    self._one_by_one(indices)
                raise

    def batch(self, indices: Sequence[int]) -> Batch:
        """The examples at some indices, joined.

        Raises:
            TaskError: one cannot be had, or they cannot be joined; the message says which example, and what to write.
        """
        return joined(self.examples(indices), self.collate, lambda place: self._named(indices[place]))

    def loaded(self, next_batch: Callable[[], Batch], sampler: MicroBatchSampler, workers: int) -> Batch:
        """The next batch of a loader; where it failed, its examples are had once more, to say which one is to blame.

        Args:
            next_batch: of the loader.
            sampler: which the loader asks for indices.
            workers: of the loader. Where one died, or hangs, nothing is tried again.

        Raises:
            TaskError: it failed.
        """
        with explained(f"making a batch of {self.name}"):
            try:
                batch = next_batch()
            except Exception as error:
                if sampler.asked and not is_out_of_memory(error) and (not workers or raised_in_worker(error)):
                    self.batch(sampler.asked[0])
                raise
        sampler.asked.popleft()
        return batch

    def look_through(self, example_s: float) -> None:
        """Look for an example that torch's collation cannot join with others, where examples come fast.

        Args:
            example_s: seconds that an example takes to come; more than a millisecond, and none is looked at.

        Raises:
            TaskError: there is one.

        Cost: 0.05 s at most.
        """
        examples = len(cast(Any, self.data))
        if self.collate is not None or example_s > _CHEAP_S:
            return
        indices = Random(0).sample(range(examples), min(examples, _LOOKED_AT))
        stop = time.perf_counter() + _LOOKING_S
        with preserved_random_state(0):
            first = self.examples(indices[:1])[0]
            for start in range(1, len(indices), 32):
                part = indices[start : start + 32]
                examples = [first, *self.examples(part)]
                found = odd_one(examples)
                if found is not None and not _are_joined(first, examples[found.place]):
                    raise TaskError(_message(found, self._named((indices[0], *part)[found.place]), None))
                if time.perf_counter() > stop:
                    break

    def _one_by_one(self, indices: Sequence[int]) -> list[Any]:
        data, found = cast(Any, self.data), list[Any]()
        many = getattr(data, "__getitems__", None)
        with explained(f"making a batch of {self.name}", lambda: f"{self._named(indices[len(found)])} raises it"):
            for index in indices:
                found.append(cast(Any, many)([index])[0] if callable(many) else data[index])
                patience().signs += 1
        return found

    def _named(self, index: int) -> str:
        """An example by its number."""
        number = index if self.numbers is None else int(self.numbers[index])
        return f"example {in_training_data([number], self.name)},"


def joined(
    examples: list[Any], collate: Callable[[list[Any]], Batch] | None, named: Callable[[int], str] | None = None
) -> Batch:
    """A batch of a list of examples.

    Args:
        examples: as the data set has them.
        collate: the task's; `None`: torch's.
        named: what the example at a place in the list is called in a message; `None`: not known.

    Raises:
        TaskError: it cannot be made; the message says what is to blame, and what to write.
    """
    if collate is not None:
        with explained("collate(examples)"):
            batch = collate(examples)
        if batch is None:
            raise TaskError("collate(examples) returned None; end it with `return` and the batch")
        return batch
    try:
        return default_collate(examples)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        found = odd_one(examples)
        name = "an example of train_data()" if named is None or found is None else named(found.place)
        raise TaskError(_message(found, name, error)) from error


@dataclass(frozen=True, kw_only=True)
class OddOne:
    """Why examples cannot be joined.

    Attributes:
        place: of the example to blame, in their list.
        holds: what it holds, and where.
        advice: what to change beside writing a `collate`.
    """

    place: int
    holds: str
    advice: str


def odd_one(examples: Sequence[Any], at: str = "example") -> OddOne | None:
    """The first example that torch's collation cannot join with the others; `None`: it can, as far as is known here.

    Args:
        examples: all of a batch, or the same member of each.
        at: expression that reaches the member.
    """
    first = examples[0]
    for place, value in enumerate(examples):
        if value is None:
            whole = all(other is None for other in examples)
            where = "is None" if at == "example" else f"holds None in {at}"
            return OddOne(place=place, holds=where, advice="leave it out" if whole else "fill it, or leave it out")
        if (advice := _not_joined(value)) is not None:
            return OddOne(place=place, holds=_held(at, _kind(value)), advice=advice)
        if not _alike(value, first):
            holds = f"{_held(at, _kind(value))} where another has {_kind(first)}"
            return OddOne(place=place, holds=holds, advice=_advice_of_shape(value, first))
    members = _members(first, at)
    if isinstance(first, Mapping):
        for place, value in enumerate(examples):
            if value.keys() != first.keys():
                return OddOne(place=place, holds=_other_keys(value, first, at), advice="give all of them the same keys")
    found = (odd_one([value[key] for value in examples], name) for key, name in members)
    return next((odd for odd in found if odd is not None), None)


def _members(first: Any, at: str) -> list[tuple[Any, str]]:
    """Keys of what a mapping or sequence holds, each with the expression that reaches it; none for others."""
    if isinstance(first, Mapping):
        return [(key, f"{at}[{key!r}]") for key in cast("Mapping[Any, Any]", first)]
    if not isinstance(first, Sequence) or isinstance(first, str | bytes):
        return []
    fields: Any = getattr(cast(Any, first), "_fields", None)
    places = range(len(cast("Sequence[Any]", first)))
    return [(i, f"{at}.{fields[i]}" if fields else f"{at}[{i}]") for i in places]


def _are_joined(one: Any, other: Any) -> bool:
    """Whether torch's collation joins two examples, whichever comes first."""
    try:
        default_collate([one, other])
        default_collate([other, one])
    except Exception:  # it raises what it comes to
        return False
    return True


def _held(at: str, kind: str) -> str:
    return f"is {kind}" if at == "example" else f"holds {kind} in {at}"


def _message(found: OddOne | None, name: str, error: Exception | None) -> str:
    collate = "give the task a method collate(examples) -> batch, which makes a batch of a list of examples"
    if found is None:
        raised = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return f"torch's collation of examples of train_data() to a batch raised {raised}; change them, or {collate}"
    return f"{name} {found.holds}, which torch's collation cannot join to a batch; {found.advice}, or {collate}"


def _not_joined(value: Any) -> str | None:
    """What to do with a value of a kind that torch never joins; `None`: it does."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_nested:
            return "make it dense (.to_dense())" if not value.is_nested else "pad it to a dense tensor"
        return None
    if isinstance(value, np.ndarray | np.generic):
        kinds = "OVMmSU" if isinstance(value, np.ndarray) else "OVMm"
        return "convert it to numbers (.astype('float32'))" if cast(Any, value).dtype.kind in kinds else None
    if isinstance(value, str | bytes | int | float | Mapping | Sequence):
        return None
    if hasattr(value, "getbands"):
        return "make it a tensor in the data set (torchvision.transforms.ToTensor() in its transform)"
    if hasattr(value, "__dataclass_fields__"):
        return "return a dict of its fields (dataclasses.asdict)"
    return "return tensors, arrays, real numbers, texts, or dicts, tuples and lists of them"


def _alike(value: Any, first: Any) -> bool:
    """Whether two members that torch can join with their like can be joined with each other."""
    if isinstance(first, Tensor):
        return isinstance(value, Tensor) and value.shape == first.shape
    if isinstance(first, np.ndarray):
        return isinstance(value, np.ndarray) and value.shape == cast("np.ndarray[Any, Any]", first).shape
    for kind in (Mapping, str, bytes):
        if isinstance(first, kind) or isinstance(value, kind):
            return isinstance(value, kind) and isinstance(first, kind)
    if isinstance(first, Sequence):
        return isinstance(value, Sequence) and len(cast(Any, value)) == len(cast(Any, first))
    return isinstance(value, int | float | np.generic) or (isinstance(value, Tensor) and value.numel() == 1)


def _advice_of_shape(value: Any, first: Any) -> str:
    if isinstance(first, Tensor | np.ndarray) and isinstance(value, type(first)):
        if value.ndim == first.ndim == 1 or (value.ndim == first.ndim and value.shape[1:] == first.shape[1:]):
            return "bring them to one length (torch.nn.utils.rnn.pad_sequence pads a list of tensors)"
        return "bring them to one size"
    if isinstance(first, list | tuple) and isinstance(value, list | tuple):
        return "bring them to one length"
    return "give every example the same kind of value there"


def _other_keys(value: Mapping[Any, Any], first: Mapping[Any, Any], at: str) -> str:
    """What keys a mapping has that another has not, or lacks."""
    lacks, more = ([key for key in a if key not in b] for a, b in ((first, value), (value, first)))
    of = "" if at == "example" else f" in {at}"
    parts = [f"has no {', '.join(map(repr, lacks))}"] if lacks else []
    parts += [f"has {', '.join(map(repr, more))} beside"] if more else []
    return f"{' and '.join(parts)}{of}, other than another"


def _kind(value: Any) -> str:
    """A value's type in words, with its shape."""
    if isinstance(value, Tensor) and value.is_nested:
        return "a nested tensor"
    if isinstance(value, Tensor) and value.layout is not torch.strided:
        return f"a sparse tensor of shape {tuple(value.shape)}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        return f"an array of shape {array.shape} and type {array.dtype}"
    if isinstance(value, list | tuple):
        return f"a {type(cast(Any, value)).__name__} of {len(cast(Any, value))}"
    if hasattr(value, "getbands"):
        return f"a picture ({type(value).__module__}.{type(value).__name__})"
    if isinstance(value, str | int | float):
        return repr(value)[:40]
    return f"an object of type {type(value).__name__}"
