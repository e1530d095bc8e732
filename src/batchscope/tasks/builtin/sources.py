"""Sources that a path can name: an `.npz` file, MNIST's IDX files, a folder of images, or a data set of torchvision."""

from __future__ import annotations

from pathlib import Path

from ...errors import TaskError
from .array_file import Arrays, read_arrays
from .idx_files import find_idx_folder, read_idx_folder
from .image_folder import IMAGE_SIDE, read_image_folder
from .torchvision_data import PREFIX, read_torchvision

__all__ = ["read_source"]


def read_source(path: Path, size: int) -> Arrays:
    """The inputs and targets that a path names.

    Args:
        path: `torchvision:NAME`; or a folder, which is one of IDX files where it has any, else one of images; or an
            `.npz` file.
        size: height and width of the images of a folder.

    Raises:
        TaskError: they cannot be read or trained on, or a size is given for what is not a folder of images.
    """
    if not path.exists() and not path.suffix and not str(path).startswith(PREFIX):
        raise TaskError(
            f"there is no file or folder {path}; write --set path=FILE.npz, a folder of IDX files or of images, or "
            f"{PREFIX}NAME"
        )
    idx_folder = find_idx_folder(path) if path.is_dir() else None
    if path.is_dir() and not idx_folder:
        return read_image_folder(path, size)
    if size != IMAGE_SIDE:
        raise TaskError(f"size={size} is for a folder of images, which {path} is not; leave it out")
    if str(path).startswith(PREFIX):
        return read_torchvision(str(path).removeprefix(PREFIX))
    return read_idx_folder(idx_folder) if idx_folder else read_arrays(path)
