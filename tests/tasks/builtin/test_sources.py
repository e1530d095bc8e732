"""What a path stands for, and that a change in a folder makes another task of it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from batchscope.errors import TaskError
from batchscope.tasks.builtin.arrays import arrays
from batchscope.tasks.builtin.idx_files import FILES
from batchscope.tasks.loading import load_task


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, dimensions in FILES.values():
        shape = (12, 2, 2)[:dimensions]
        values = np.arange(np.prod(shape), dtype=np.uint8) % 3
        (folder / name).write_bytes(struct.pack(f">I{dimensions}I", 2048 + dimensions, *shape) + values.tobytes())
    return tmp_path / "data"


def test_a_change_in_a_folder_is_a_change_of_the_task(mnist: Path) -> None:
    def sha256() -> str:
        return load_task("arrays", {"path": mnist}).source_sha256

    images = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    first = sha256()
    os.utime(images, (0, 0))
    assert sha256() == first  # a copy of the data is the same data
    images.write_bytes(images.read_bytes()[:-1] + b"\7")
    second = sha256()
    assert second != first
    images.rename(images.with_name("train-images.idx3-ubyte"))
    assert sha256() not in (first, second)


def test_a_folder_of_another_task_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be where that task writes."""
    imports = "from pathlib import Path\nfrom batchscope.tasks.builtin.digits import digits\n\n"
    monkeypatch.chdir(tmp_path)
    Path("made_task.py").write_text(f"{imports}def made(out: Path):\n    return digits()\n")
    Path("out").mkdir()
    first = load_task("made_task.py:made", ["out=out"]).source_sha256
    Path("out", "log.txt").write_text("a line")
    assert load_task("made_task.py:made", ["out=out"]).source_sha256 == first


def test_a_size_is_for_images_in_a_folder(mnist: Path, tmp_path: Path) -> None:
    for path in (mnist, tmp_path / "no.npz", Path("torchvision:MNIST")):
        with pytest.raises(TaskError, match=r"size=64 is for a folder of images, which .* is not; leave it out"):
            arrays(path=path, size=64)


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"no file or folder .*mnist; write --set path=FILE.npz, a folder of IDX files"):
        arrays(path=tmp_path / "mnist")
