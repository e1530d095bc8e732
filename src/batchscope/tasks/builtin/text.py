"""A user's own text: the next code is predicted by a small causal transformer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from ...errors import TaskError
from ...wording import plural
from ..protocol import Batch
from .array_file import load_npz
from .encoding import read_characters
from .models import Transformer
from .supervised import OptimizerName, build_optimizer

__all__ = ["TextTask", "text"]

_TRAIN_SHARE, _VAL_SHARE = 0.9, 0.05
_EVALUATED_CODES = 8192
_CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class _Codes:
    """Codes by part, how many different ones there are, and what was taken for what."""

    parts: dict[str, Tensor]
    vocab: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TextTask:
    """Task to predict each code of a window from those before it; an example is a window of `context` + 1 codes.

    Attributes:
        parts: the codes of `train`, `val` and perhaps `test`, one dimension.
        vocab: number of different codes.
        context: codes that the model sees, and predicts, in a window.
        stride: codes from the start of one training window to the next.
        width: channels of the model.
        depth: blocks of the model.
        optimizer_name: `sgd` (momentum 0.9) or `adamw`.
        evaluate_at_most: windows of the validation part, and of the test part, in an evaluation.
        data_notes: what of the text was taken for what, in sentences.
    """

    parts: dict[str, Tensor]
    vocab: int
    context: int
    stride: int
    width: int
    depth: int
    optimizer_name: OptimizerName
    evaluate_at_most: int
    data_notes: tuple[str, ...] = ()
    _placed: dict[torch.device, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    def model(self) -> nn.Module:
        """A fresh transformer."""
        return Transformer(vocab=self.vocab, context=self.context, width=self.width, depth=self.depth)

    def train_data(self) -> TensorDataset:
        """The windows of the training part: views of its codes, not copies."""
        return TensorDataset(self.parts["train"].unfold(0, self.context + 1, self.stride))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy of the next code, in nats; all windows have equally many codes."""
        codes = batch[0].long()
        return F.cross_entropy(model(codes[:, :-1]).flatten(0, 1), codes[:, 1:].flatten())

    def optimizer(self, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """Optimizer: SGD with momentum, or AdamW."""
        return build_optimizer(self.optimizer_name, params, lr)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Mean loss and share of right predictions on the validation part and, where there is one, on the test part."""
        values: dict[str, float] = {}
        for part, windows in self._held_out(next(model.parameters()).device).items():
            values |= {f"{part}_{name}": value for name, value in self.metrics_on(model, [windows]).items()}
        return values

    @torch.no_grad()
    def metrics_on(self, model: nn.Module, batch: Batch) -> dict[str, float]:
        """Metrics on any windows: a study asks for those of the training part."""
        windows = batch[0].long()
        loss, right = torch.zeros((), device=windows.device), torch.zeros((), device=windows.device)
        for codes in windows.split(_CHUNK):
            scores, following = model(codes[:, :-1]).flatten(0, 1), codes[:, 1:].flatten()
            loss += F.cross_entropy(scores, following, reduction="sum")
            right += (scores.argmax(-1) == following).sum()
        predicted = windows.shape[0] * self.context
        return {"loss": float(loss) / predicted, "accuracy": float(right) / predicted}

    def _held_out(self, device: torch.device) -> dict[str, Tensor]:
        if device not in self._placed:
            self._placed[device] = {
                part: _spread(codes.unfold(0, self.context + 1, self.context), self.evaluate_at_most).long().to(device)
                for part, codes in self.parts.items()
                if part != "train"
            }
        return self._placed[device]


def text(
    *,
    path: Path,
    optimizer: OptimizerName = "adamw",
    context: int = 32,
    width: int = 64,
    depth: int = 2,
    stride: int | None = None,
    evaluate_at_most: int | None = None,
) -> TextTask:
    """Train a small causal transformer on the characters of a text file, or on the codes of an `.npz` file.

    A text is cut in its order: the first 90 % to train, 5 % to validate, 5 % to test. An `.npz` holds one-dimensional
    integer codes `train, val[, test]` and the symbols `vocab`, or their number.

    Args:
        path: a UTF-8 text, or an `.npz` file.
        optimizer: `sgd` (momentum 0.9) or `adamw`.
        context: codes in a window; an example is a window, its loss the mean over its codes.
        width: channels of the model.
        depth: blocks of the model.
        stride: codes from one training window to the next; as many as `context` unless given, so that an epoch predicts
            each code once.
        evaluate_at_most: windows of a part in an evaluation, spread evenly; 8,192 codes' worth unless given.

    Returns:
        A task with the metrics `val_loss` (nats a code) and `val_accuracy`, and the same for `test`.

    Raises:
        TaskError: the file cannot be read, or is too short.
    """
    sizes = {"context": context, "width": width, "depth": depth, "stride": stride, "evaluate_at_most": evaluate_at_most}
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise TaskError(f"{name}={value} must be at least 1")
    found = _codes_of_npz(Path(path)) if Path(path).suffix == ".npz" else _codes_of_text(Path(path))
    parts = found.parts
    for part, codes in parts.items():
        needed = 2 * context + 1 if part == "train" else context + 1
        if len(codes) < needed:
            raise TaskError(
                f"the {part} part of {path} has {len(codes)} codes, a window of context={context} needs {needed}; "
                "write a smaller --set context"
            )
    return TextTask(
        parts=parts,
        vocab=found.vocab,
        context=context,
        stride=stride or context,
        width=width,
        depth=depth,
        optimizer_name=optimizer,
        evaluate_at_most=evaluate_at_most or max(1, _EVALUATED_CODES // context),
        data_notes=found.notes,
    )


def _codes_of_text(path: Path) -> _Codes:
    characters, notes = read_characters(path)
    symbols = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    vocab, codes = np.unique(symbols, return_inverse=True)
    if len(vocab) < 2:
        what = f"nothing but {chr(vocab[0])!r}" if len(vocab) else "no character"
        raise TaskError(f"{path} holds {what}: there is nothing to learn")
    cuts = [round(len(codes) * share) for share in (_TRAIN_SHARE, _TRAIN_SHARE + _VAL_SHARE)]
    parts = dict(zip(("train", "val", "test"), np.split(codes, cuts), strict=True))
    said = f"a code is a character, {len(vocab)} different ones; the first 90 % train, then 5 % validate and 5 % test"
    if unseen := len(vocab) - len(np.unique(parts["train"])):
        said += f"; {plural(unseen, 'character')} {'does' if unseen == 1 else 'do'} not occur in training"
    compact = {part: _compact(values, len(vocab)) for part, values in parts.items()}
    return _Codes(parts=compact, vocab=len(vocab), notes=(*notes, said))


def _codes_of_npz(path: Path) -> _Codes:
    data = load_npz(path, partial(_arrays_of_codes, path))
    vocab = _vocabulary(data.pop("vocab"), path)
    for part, codes in data.items():
        if codes.ndim != 1 or codes.dtype.kind not in "iu":
            raise TaskError(
                f"{part} in {path} has shape {codes.shape}, dtype {codes.dtype}; codes are integers in a row"
            )
        if len(codes) and not 0 <= (lowest := int(codes.min())) <= (highest := int(codes.max())) < vocab:
            raise TaskError(
                f"{part} in {path} has codes from {lowest} to {highest}; vocab has {vocab}: 0 to {vocab - 1}"
            )
    return _Codes(parts={part: _compact(codes, vocab) for part, codes in data.items()}, vocab=vocab, notes=())


def _arrays_of_codes(path: Path, names: Sequence[str]) -> dict[str, str]:
    if missing := [name for name in ("train", "val", "vocab") if name not in names]:
        raise TaskError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(names) or 'no array'}")
    return {name: name for name in ("train", "val", "vocab", "test") if name in names}


def _vocabulary(vocab: np.ndarray, path: Path) -> int:
    """Number of symbols: those of the array, or the number that it is."""
    if vocab.size != 1:
        return len(vocab)
    if vocab.dtype.kind not in "iu" or (size := int(vocab.reshape(-1)[0])) < 2:
        raise TaskError(f"vocab in {path} has one symbol; give all symbols, or their number, 2 or more")
    return size


def _compact(codes: np.ndarray, vocab: int) -> Tensor:
    return torch.from_numpy(codes.astype(np.uint8 if vocab <= 256 else np.int32))


def _spread(windows: Tensor, most: int) -> Tensor:
    """Windows, all or `most` of them at even distances."""
    if len(windows) <= most:
        return windows
    return windows[torch.linspace(0, len(windows) - 1, most).long()]
