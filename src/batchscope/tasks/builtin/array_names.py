"""Names under which people keep the arrays of a data set, and what is meant by each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...errors import TaskError
from ...wording import joined

__all__ = ["PARTS", "found_names", "part_named", "renamed_in_words"]

PARTS = ("train", "val", "test")

_PART_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
_SHORT_PARTS = {"tr": "train", "trn": "train", "te": "test", "tst": "test"}
"""Parts in the names of arrays alone: a folder may be called so after something else."""
_ROLE_WORDS = {
    "x": ("x", "input", "inputs", "image", "images", "img", "imgs", "data", "feature", "features"),
    "y": ("y", "label", "labels", "target", "targets"),
}
_POSITIONS = {"arr_0": "x", "arr_1": "y"}
"""Names that NumPy gives to the arrays of `savez(FILE, x, y)`."""


def part_named(word: str) -> str | None:
    """Part that a word names.

    >>> part_named("Validation"), part_named("cats")
    ('val', None)
    """
    return next((part for part, words in _PART_WORDS.items() if word.lower() in words), None)


def found_names(names: Sequence[str], source: str) -> dict[str, str]:
    """Arrays of a file by what they are: `x_train` and so on; `x` and `y` where the part is not named.

    A name that is written as here comes before another one of the same meaning.

    Args:
        names: of the arrays in the file.
        source: what a message calls the file.

    Raises:
        TaskError: two arrays have the same meaning.

    >>> found_names(["train_images", "train_labels", "Xval", "ids"], "FILE")
    {'x_train': 'train_images', 'y_train': 'train_labels', 'x_val': 'Xval'}
    """
    if sorted(names) == sorted(_POSITIONS):
        return {role: name for name, role in _POSITIONS.items()}
    found: dict[str, str] = {}
    for name in names:
        meaning = _meaning(name)
        if meaning is None or found.get(meaning) == meaning:
            continue
        if meaning in found and name != meaning:
            raise TaskError(
                f"{source} holds {found[meaning]} and {name}, which both may be {meaning}; call the right one {meaning}"
            )
        found[meaning] = name
    return found


def renamed_in_words(found: Mapping[str, str]) -> str:
    """Which arrays are taken for which, where they have other names; empty where all are called so."""
    others = [f"{meaning} is {name}" for meaning, name in found.items() if name != meaning]
    return joined(others) if others else ""


def _meaning(name: str) -> str | None:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    words = [word for word in re.split(r"[^a-z0-9]+", spaced) if word]
    if len(words) == 1 and _role(words[0]) is None:
        words = _cut(words[0])
    roles = [role for word in words if (role := _role(word))]
    parts = [part for word in words if (part := _part(word))]
    if len(roles) != 1 or len(parts) > 1 or len(roles) + len(parts) != len(words):
        return None
    return "_".join(roles + parts)


def _role(word: str) -> str | None:
    return next((role for role, words in _ROLE_WORDS.items() if word in words), None)


def _part(word: str) -> str | None:
    return part_named(word) or _SHORT_PARTS.get(word)


def _cut(word: str) -> list[str]:
    """The two words of `xtrain` or `trainx`."""
    for role in ("x", "y"):
        if word.startswith(role) and _part(word[1:]):
            return [role, word[1:]]
        if word.endswith(role) and _part(word[:-1]):
            return [role, word[:-1]]
    return [word]
