"""Layout of a folder of images: which sub-folders are parts, which are classes, and which files are passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import TaskError
from ...wording import joined, plural
from .array_names import PARTS, part_named

__all__ = ["Layout", "read_layout"]

_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Files by part and class.

    Attributes:
        files: by part (`train`, perhaps `val` and `test`) and class, in the order of their names.
        notes: what was taken for what, and what was passed over.
    """

    files: Mapping[str, Mapping[str, Sequence[Path]]]
    notes: tuple[str, ...]


def read_layout(folder: Path, endings: Iterable[str]) -> Layout:
    """What the sub-folders of a folder are: classes, or the parts `train`, `val` and `test` with classes in them.

    Parts may have their usual other names (`valid`, `validation`, `testing`). Images in the sub-folders of a class are
    of that class. Names that begin with a dot or with two underscores are passed over, like files of other endings.

    Args:
        folder: the folder.
        endings: of the files that are images, in small letters.

    Raises:
        TaskError: the sub-folders are neither, or are both; a class has no image, or is not in the training part.
    """
    ending = frozenset(endings)
    subs = _sub_folders(folder)
    parts = _parts(folder, subs)
    notes: list[str] = []
    if "train" in parts and _sub_folders(parts["train"]):
        files = _parted(folder, subs, parts, ending, notes)
    else:
        _refuse_flat_parts(folder, subs, parts, ending)
        if parts:
            notes.append(f"the folder {joined([sub.name for sub in parts.values()])} is taken as a class")
        files = {"train": _classes(folder, ending, notes)}
    return Layout(files=files, notes=(*notes, *_passed_over(folder, files)))


def _parts(folder: Path, subs: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for sub in subs:
        part = part_named(sub.name)
        if part in found:
            raise TaskError(
                f"{folder} has the sub-folders {found[part].name} and {sub.name}, which both may be the {part} part; "
                "move one of them elsewhere"
            )
        if part:
            found[part] = sub
    return {part: found[part] for part in PARTS if part in found}


def _parted(
    folder: Path, subs: Sequence[Path], parts: Mapping[str, Path], ending: frozenset[str], notes: list[str]
) -> dict[str, dict[str, list[Path]]]:
    if strange := [sub.name for sub in subs if sub not in parts.values()]:
        raise TaskError(
            f"{folder} has the sub-folders {', '.join(sub.name for sub in subs)}; beside train only val and test are "
            f"read: rename or move {', '.join(strange)}"
        )
    files = {"train": _classes(parts["train"], ending, notes)}
    for part in PARTS[1:]:
        if part not in parts:
            continue
        if part == "test" and not any(_images(sub, ending) for sub in _sub_folders(parts[part])):
            images = plural(len(_images(parts[part], ending)), "image")
            notes.append(f"{parts[part].name} holds {images} and no classes: there is no test part")
            continue
        files[part] = _classes(parts[part], ending, notes, of=files["train"], train=parts["train"])
    if renamed := [f"{path.name} as the {part} part" for part, path in parts.items() if path.name != part]:
        notes.append(
            f"the folder{'s' * (len(renamed) > 1)} {joined(renamed)} {'are' if len(renamed) > 1 else 'is'} read"
        )
    return files


def _refuse_flat_parts(folder: Path, subs: Sequence[Path], parts: Mapping[str, Path], ending: frozenset[str]) -> None:
    """Refuse parts without classes: images at the wrong level, or a training part that is missing."""
    if not parts or (len(parts) == 1 and len(subs) > 1):
        return
    names = joined([path.name for path in parts.values()])
    hold = "holds" if len(parts) == 1 else "hold"
    direct = [image for path in parts.values() for image in _direct(path, ending)]
    if not direct and "train" not in parts:
        raise TaskError(f"{folder} has {names} and no folder train; the training images stand in train/CLASS/")
    if not direct:
        raise TaskError(f"{parts['train']} holds {_some_names(parts['train'])}, and no folder of images for each class")
    raise TaskError(
        f"{names} in {folder} {hold} images ({direct[0].parent.name}/{direct[0].name}), and no folder for each class: "
        "they are parts, not classes; make train/CLASS/*.jpg of them, also where the names of the files begin with it"
    )


def _classes(
    folder: Path,
    ending: frozenset[str],
    notes: list[str],
    *,
    of: Mapping[str, Sequence[Path]] | None = None,
    train: Path | None = None,
) -> dict[str, list[Path]]:
    """Images by class; of a part beside `train`, whose classes are known, some may be missing."""
    subs = _sub_folders(folder)
    _refuse_wrappers(folder, subs, ending)
    classes = {sub.name: _images(sub, ending) for sub in subs}
    if not any(classes.values()):
        raise TaskError(
            f"{folder} holds {_some_names(folder)}: neither MNIST's IDX files (train-images-idx3-ubyte and so on) nor "
            f"images in a sub-folder for each class (CLASS/*.png, .jpg, .webp and others){_hint(folder)}"
        )
    empty = [name for name, images in classes.items() if not images]
    if of is None and empty:
        raise TaskError(
            f"no image that is read here in {plural(len(empty), 'class folder')} of {folder} ({_few(empty)}): "
            f"{empty[0]} holds {_some_names(folder / empty[0])}; convert the images, or move the folder elsewhere"
        )
    if of is not None:
        if unknown := [name for name in classes if name not in of]:
            raise TaskError(
                f"{folder} has the class {unknown[0]}, which {train} lacks; its classes are {', '.join(of)}"
            )
        if lacking := [name for name in of if not classes.get(name)]:
            notes.append(f"{folder.name} has no image of {plural(len(lacking), 'class', 'classes')}: {_few(lacking)}")
    classes = {name: images for name, images in classes.items() if images}
    nested = [image for sub in subs for image in classes.get(sub.name, ()) if image.parent != sub]
    if nested:
        where = nested[0].parent.relative_to(folder)
        notes.append(f"{plural(len(nested), 'image')} in folders within those of the classes count too ({where}, ...)")
    return classes


def _refuse_wrappers(folder: Path, subs: Sequence[Path], ending: frozenset[str]) -> None:
    """Refuse sub-folders that hold the classes, and no image of their own."""
    inner = [_sub_folders(sub) for sub in subs if not _direct(sub, ending)]
    if not subs or len(inner) < len(subs) or not all(inner):
        return
    names = [[path.name for path in each] for each in inner]
    if len(subs) == 1:
        raise TaskError(
            f"{folder} holds one folder, {subs[0].name}, and the classes seem to lie in that one ({_few(names[0])}); "
            f"write --set path={subs[0]}"
        )
    if set(names[0]).intersection(*names[1:]):
        raise TaskError(
            f"{folder} has the sub-folders {_few([sub.name for sub in subs])}, each with {_few(names[0])} in it: where "
            f"those are the classes, move them up, or write --set path={subs[0]}; parts are called train, val and test"
        )


def _sub_folders(folder: Path) -> list[Path]:
    there = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    return sorted(there, key=lambda path: path.name)


def _images(folder: Path, ending: frozenset[str]) -> list[Path]:
    """Images of a folder and of those in it, by name, its own ones first."""
    return [*_direct(folder, ending), *(image for sub in _sub_folders(folder) for image in _images(sub, ending))]


def _direct(folder: Path, ending: frozenset[str]) -> list[Path]:
    there = (path for path in folder.iterdir() if path.suffix.lower() in ending and not path.name.startswith("."))
    return sorted((path for path in there if path.is_file()), key=lambda path: path.name)


def _passed_over(folder: Path, files: Mapping[str, Mapping[str, Sequence[Path]]]) -> list[str]:
    """How many files of the folder are not read, by their endings, and the first of each."""
    taken = {image for classes in files.values() for images in classes.values() for image in images}
    there = sorted(path for path in folder.rglob("*") if path.is_file())
    others = [path for path in there if path not in taken]
    if not others:
        return []
    kind_of = {path: _kind(path.relative_to(folder)) for path in others}
    kinds = Counter(kind_of.values())
    first = {kind: next(path for path in others if kind_of[path] == kind) for kind in kinds}
    named = [f"{number} {kind} ({first[kind].relative_to(folder)})" for kind, number in kinds.most_common(_NAMED)]
    more = " and others" if len(kinds) > _NAMED else ""
    return [f"{len(others):,} of {plural(len(there), 'file')} passed over: {', '.join(named)}{more}"]


def _kind(path: Path) -> str:
    hidden = any(name.startswith((".", "__")) for name in path.parts)
    return "hidden" if hidden else path.suffix.lower() or "without ending"


def _hint(folder: Path) -> str:
    arrays = sorted(path for path in folder.iterdir() if path.suffix == ".npz")
    return f"; for the arrays in it write --set path={arrays[0]}" if arrays else ""


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _some_names(folder: Path) -> str:
    return _few(sorted(path.name for path in folder.iterdir())) or "nothing"
