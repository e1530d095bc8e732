"""Targets of a data set: classes or numbers, which of them is meant, and in one line why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import TaskError
from ...wording import number, plural
from .column_notes import notes_on_columns
from .scaling import standard_columns

__all__ = ["Problem", "Targets", "read_targets"]

Problem = Literal["auto", "classification", "regression"]

_NAMED = 5
_FEW_CLASSES = 20
"""Up to so many, every example may be of a class of its own."""
_MANY_CLASSES = 30
"""From so many on, whole numbers may well be amounts."""
_COUNTED_AT_MOST = 100
"""Different whole numbers, stored as floats, up to which they may well be classes."""
_LARGEST_LABEL = 1e6
"""Size up to which a whole number, stored as a float, may well be a label."""
_LONGEST = 24
_UNSEEN_AT_MOST = 0.5
_MARKS = (-1, 255)
"""Labels that often mark an example without one."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Targets as a model is trained on them.

    Attributes:
        values: by part; int64 classes from 0, of shape (examples,), or float32 numbers, (examples, outputs), in
            standard deviations from the mean of the training part.
        classes: number of classes; 0 for regression.
        notes: what was taken for what, and why.
    """

    values: Mapping[str, NDArray[Any]]
    classes: int
    notes: tuple[str, ...]


def read_targets(
    y: Mapping[str, NDArray[Any]], problem: Problem, source: str, labels: str = "y holds texts"
) -> Targets:
    """Targets, as classes where they are integers, booleans, texts or one-hot rows, else as numbers.

    Args:
        y: by part, one of them `train`; examples first.
        problem: what they are, where it is known.
        source: what messages call the data.
        labels: where targets that are texts come from, in words.

    Raises:
        TaskError: they cannot be taken so, or there is nothing to learn, since they are all the same.
    """
    kinds = {part: v.dtype.kind for part, v in y.items()}
    texts = [part for part, kind in kinds.items() if kind in "US"]
    if texts and (len(texts) < len(y) or problem == "regression"):
        raise TaskError(
            f"y_{texts[0]} in {source} holds texts{'' if problem == 'regression' else ', the other parts do not'}; "
            f"store numbers, for example y_{texts[0]}.astype(float), or texts in every part for classes"
        )
    if problem != "regression" and not texts and all(map(_is_one_hot, y.values())):
        return _of_one_hot(y, source)
    if problem == "classification" or (problem == "auto" and kinds["train"] in "iubUS"):
        return _classes(y, problem, source, labels)
    return _numbers(y, problem, source)


def _is_one_hot(y: NDArray[Any]) -> bool:
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind == "c":
        return False
    return bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _of_one_hot(y: Mapping[str, NDArray[Any]], source: str) -> Targets:
    columns = y["train"].shape[1]
    _check_shapes(y, source)
    labels = {part: v.argmax(1).astype(np.int64) for part, v in y.items()}
    _refuse_one_class(labels["train"], labels["train"][:1].tolist(), source)
    note = (
        f"classification: each row of y has a single 1 among {columns} columns, which is its class; to predict the "
        "columns as numbers, write --set problem=regression"
    )
    return Targets(values=labels, classes=columns, notes=(note,))


def _classes(y: Mapping[str, NDArray[Any]], problem: Problem, source: str, labels: str) -> Targets:
    flat = {part: _one_label_each(v, part, source) for part, v in y.items()}
    found, places = dict[str, list[Any]](), dict[str, NDArray[np.intp]]()
    for part, each in flat.items():
        unique, places[part] = np.unique(each, return_inverse=True)
        found[part] = [_plain(value) for value in unique.tolist()]
    every = sorted({value for values in found.values() for value in values})
    _refuse_one_class(flat["train"], found["train"], source)
    _refuse_own_class_each(found["train"], len(flat["train"]), problem, source)
    order = {value: place for place, value in enumerate(every)}
    values = {part: np.array([order[value] for value in found[part]], dtype=np.int64)[places[part]] for part in flat}
    notes = [_classes_in_words(every, y["train"], problem, labels), _mark_in_words(every)]
    known = set(found["train"])
    for part in flat:
        unseen = [value for value in found[part] if value not in known]
        examples = int(np.isin(values[part], [order[value] for value in unseen]).sum()) if unseen else 0
        if examples > _UNSEEN_AT_MOST * len(values[part]):
            raise TaskError(
                f"{examples} of {len(values[part])} examples of y_{part} in {source} have labels that y_train lacks "
                f"({_some(unseen)}): no model can learn them; draw the parts from the same examples"
            )
        if unseen:
            lacking = "a label" if len(unseen) == 1 else "labels"
            notes.append(
                f"{plural(examples, 'example')} of y_{part} with {lacking} that y_train lacks: {_some(unseen)}"
            )
    return Targets(values=values, classes=len(every), notes=tuple(filter(None, notes)))


def _one_label_each(y: NDArray[Any], part: str, source: str) -> NDArray[Any]:
    if y.size != len(y):
        kind = {"U": "text", "S": "text", "f": "float"}.get(y.dtype.kind, "integer")
        raise TaskError(
            f"{kind} y_{part} in {source} has shape {y.shape}; one label an example is needed: ({len(y)},), or --set "
            "problem=regression for several numbers an example"
        )
    labels = y.reshape(-1)
    if labels.dtype.kind == "f" and (odd := np.flatnonzero(labels != np.rint(labels))).size:
        raise TaskError(
            f"y_{part} in {source} holds {number(float(labels[odd[0]]))} (example {odd[0]}), and classes are whole "
            "numbers; round them, or write --set problem=regression"
        )
    return labels


def _plain(value: Any) -> Any:
    """Label as text or as a whole number of any size."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else int(value)


def _refuse_one_class(labels: NDArray[Any], found: Sequence[Any], source: str) -> None:
    if (labels == labels[0]).all():
        raise TaskError(
            f"all {len(labels)} labels of y_train in {source} are {_short(found[0])}: with one class there is nothing "
            "to learn"
        )


def _refuse_own_class_each(found: Sequence[Any], examples: int, problem: Problem, source: str) -> None:
    if problem != "auto" or len(found) <= max(_FEW_CLASSES, examples // 2):
        return
    texts = isinstance(found[0], str)
    what = "texts" if texts else "whole numbers"
    instead = "store numbers as floats: y.astype(float)" if texts else "for numbers write --set problem=regression"
    raise TaskError(
        f"y_train in {source} holds {len(found)} different {what} in {examples} examples, too many for classes; "
        f"{instead}, for classes --set problem=classification"
    )


def _classes_in_words(every: Sequence[Any], train: NDArray[Any], problem: Problem, labels: str) -> str:
    if train.dtype.kind in "US":
        return f"classification: {labels}, {len(every)} classes ({_some(every)})"
    kind = {"b": "booleans", "f": "whole numbers"}.get(train.dtype.kind, "integers")
    said = f"classification: y holds {kind}, {len(every)} classes"
    first, last = int(every[0]), int(every[-1])
    gaps = last - first + 1 != len(every)
    said += f" ({_some(every)})" if gaps or len(every) <= _NAMED else f" ({first} to {last})"
    if first or gaps:
        said += f", numbered from 0 to {len(every) - 1} in this order"
    many = len(every) > _MANY_CLASSES and problem == "auto"
    return said + ("; if they are amounts, write --set problem=regression" if many else "")


def _mark_in_words(every: Sequence[Any]) -> str:
    """Whether a label stands apart that often means that there is none."""
    for mark in _MARKS:
        others = [value for value in every if value != mark]
        if mark in every and len(others) > 2 and others == [*range(len(others))]:
            return f"label {mark} counts as a class; where it marks examples without a label, drop them"
    return ""


def _numbers(y: Mapping[str, NDArray[Any]], problem: Problem, source: str) -> Targets:
    _check_shapes(y, source)
    columns = standard_columns(y, "y")
    outputs = len(columns.sd)
    if columns.constant.all():
        what = f"is {columns.mean[0]:.9g}" if outputs == 1 else f"has {outputs} columns, each with one value"
        raise TaskError(
            f"y_train in {source} {what} in all {len(y['train'])} examples, up to rounding in {y['train'].dtype}: "
            "there is nothing to learn"
        )
    said = f"regression: y holds {y['train'].dtype} numbers"
    if (whole := _few_whole(y["train"])) and problem == "auto":
        said += f", all of them whole ({_some(whole)}); for classes write --set problem=classification"
    scale = f"the {outputs} columns of y are standardised by the training part"
    if outputs == 1:
        mean, sd = float(columns.mean[0]), float(columns.sd[0])
        scale = f"y is standardised (mean {number(mean)}, standard deviation {number(sd)})"
    notes = (said, f"{scale}: predicting the mean has a loss of about 1", *notes_on_columns(y, columns, "y"))
    return Targets(values=columns.values, classes=0, notes=notes)


def _few_whole(train: NDArray[Any]) -> list[int]:
    """The different numbers, where all are whole, and they are few and small enough to be labels."""
    if train.size != len(train) or train.dtype.kind != "f" or not (train == np.rint(train)).all():
        return []
    unique = np.unique(train)
    few = (
        len(unique) <= min(_COUNTED_AT_MOST, max(2, len(train) // 2)) and float(np.abs(unique).max()) <= _LARGEST_LABEL
    )
    return [int(value) for value in unique] if few else []


def _check_shapes(y: Mapping[str, NDArray[Any]], source: str) -> None:
    train = y["train"]
    for part, v in y.items():
        if v.size // len(v) != train.size // len(train):
            raise TaskError(
                f"a target in y_{part} of {source} has shape {v.shape[1:]}, in y_train {train.shape[1:]}; they must be "
                "equal"
            )


def _some(values: Sequence[Any]) -> str:
    if len(values) > _NAMED:
        return f"{', '.join(map(_short, values[: _NAMED - 1]))}, ... {_short(values[-1])}"
    return ", ".join(map(_short, values))


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
