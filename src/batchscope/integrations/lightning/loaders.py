"""Data of a data module: the data set, collate, workers and order of its training loader; its validation loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, cast

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from ...errors import TaskError
from ...tasks.batches import tensors_of
from ...tasks.user_code import explained

__all__ = ["TrainingData", "training_data", "validation_batches", "validation_loaders"]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a training loader holds.

    Attributes:
        data: of single examples.
        batch_size: the loader's own; `None`: its batches have several sizes.
        batches: the loader's in an epoch; `None`: it does not know.
        collate: `None`: torch's own.
        options: of the loader.
        sampler: `(seed) -> indices`; `None`: a permutation drawn anew for each epoch.
        notes: what a reader should know.
    """

    data: Dataset[Any]
    batch_size: int | None
    batches: int | None
    collate: Callable[[list[Any]], Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sampler: Callable[[int], Iterable[int]] | None = None
    notes: tuple[str, ...] = ()


def training_data(datamodule: Any) -> TrainingData:
    """Take a training loader apart, which `train_dataloader()` makes.

    Args:
        datamodule: prepared and set up; or a module that makes loaders itself.

    Raises:
        TaskError: there are several loaders, or the loader alone knows its data.
    """
    with explained("train_dataloader()"):
        loader = datamodule.train_dataloader()
    loader = _only(loader)
    if not isinstance(loader, DataLoader):
        raise TaskError(
            f"train_dataloader() returned {type(loader).__name__}, which alone holds the data, and find cuts batches "
            "of any size out of a data set: return a torch.utils.data.DataLoader over it"
        )
    loader = cast("DataLoader[Any]", loader)
    if loader.batch_sampler is None:
        raise TaskError(
            f"train_dataloader() returned a DataLoader with batch_size=None: its {type(loader.dataset).__name__} "
            "yields whole batches, whose size find cannot vary; let the data set yield single examples, and give the "
            "loader a batch_size"
        )
    stream = isinstance(loader.dataset, IterableDataset)
    sampler, notes = (None, []) if stream else _order(loader)
    return TrainingData(
        data=loader.dataset,
        batch_size=loader.batch_size,
        batches=None if stream and not isinstance(loader.dataset, Sized) else len(loader),
        collate=None if loader.collate_fn is default_collate else loader.collate_fn,
        options=_options(loader),
        sampler=sampler,
        notes=tuple(notes),
    )


def _only(loader: Any) -> Any:
    """The loader, where there is one; `CombinedLoader`, dicts and lists may hold one."""
    held = _held(loader)
    if held is None:
        return loader
    if len(held) == 1:
        return held[0]
    kinds = f"{type(loader).__name__} of {len(held)} loaders"
    raise TaskError(
        f"train_dataloader() returned a {kinds}, each with a batch size of its own, and find varies one: return one "
        "DataLoader over a data set whose example holds one of each"
    )


def _held(loader: Any) -> list[Any] | None:
    """The loaders in a collection of them; `None`: it is none."""
    if hasattr(loader, "iterables") and not isinstance(loader, DataLoader):  # CombinedLoader
        loader = loader.iterables
        if isinstance(loader, DataLoader):
            return [loader]
    if isinstance(loader, Mapping):
        return list(cast("Mapping[str, Any]", loader).values())
    return [*loader] if isinstance(loader, list | tuple) else None


def _order(loader: DataLoader[Any]) -> tuple[Callable[[int], Iterable[int]] | None, list[str]]:
    """The order of the examples where it is no plain permutation, and what to say of it."""
    sampler, batches = loader.sampler, loader.batch_sampler
    if type(batches) is not BatchSampler:
        kind = type(batches).__name__
        return _Drawn(batches), [
            f"the batch sampler {kind} is taken for the order of the examples alone, its batches one after another: "
            "how many go into a batch is what find varies"
        ]
    examples = len(cast(Sized, loader.dataset))
    if isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples == examples:
        return None, []
    if isinstance(sampler, SequentialSampler):
        return None, ["the training loader does not shuffle; the runs draw a new order of the examples in each epoch"]
    if isinstance(sampler, DistributedSampler):
        return None, ["the DistributedSampler is not taken over: the runs draw from all examples, on one device"]
    return _Drawn(sampler), []


class _Drawn:
    """The indices of a sampler, or of a batch sampler, from a seed."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __call__(self, seed: int) -> list[int]:
        """The indices of one epoch. Global generators are seeded by the caller."""
        inner: Any = getattr(self.sampler, "sampler", self.sampler)
        for each in (self.sampler, inner):
            generator = getattr(each, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)
            if hasattr(each, "set_epoch"):
                each.set_epoch(seed)
        drawn = list(self.sampler)
        return list(chain.from_iterable(drawn)) if drawn and isinstance(drawn[0], list | tuple) else drawn


def _options(loader: DataLoader[Any]) -> dict[str, Any]:
    """Arguments of the loader that a task may set; those that are torch's defaults are left out."""
    options: dict[str, Any] = {"pin_memory": True} if loader.pin_memory else {}
    if loader.worker_init_fn is not None:
        options["worker_init_fn"] = loader.worker_init_fn
    if not loader.num_workers:
        return options
    options |= {"num_workers": loader.num_workers, "persistent_workers": loader.persistent_workers}
    for name in ("prefetch_factor", "timeout", "multiprocessing_context"):
        if value := getattr(loader, name, None):
            options[name] = value
    return options


def validation_loaders(datamodule: Any) -> list[Any]:
    """The validation loaders of a data module."""
    with explained("val_dataloader()"):
        loaders = datamodule.val_dataloader()
    held = _held(loaders)
    return [each for each in ([loaders] if held is None else held) if each is not None]


def validation_batches(loader: Any, limit: float) -> Iterator[Any]:
    """The batches of a validation loader, as Lightning takes them.

    Args:
        loader: whatever yields batches.
        limit: `limit_val_batches`: a whole number of batches, or a share of them.

    Batches of tensors in memory are cut from these.
    """
    batches = iter(loader) if not isinstance(loader, DataLoader) else _of_loader(cast("DataLoader[Any]", loader))
    if isinstance(limit, int):
        return islice(batches, limit)
    return batches if limit == 1.0 else islice(batches, int(len(loader) * limit))


def _of_loader(loader: DataLoader[Any]) -> Iterator[Any]:
    in_order = type(loader.sampler) is SequentialSampler and loader.collate_fn is default_collate and loader.batch_size
    tensors = tensors_of(loader.dataset) if in_order and type(loader.batch_sampler) is BatchSampler else None
    if tensors is None or loader.drop_last or not loader.batch_size:
        yield from loader
        return
    for part in zip(*(t.split(loader.batch_size) for t in tensors), strict=True):
        yield list(part)
