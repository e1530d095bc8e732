"""A user's own arrays: how they are scaled and shaped, what is measured on them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from batchscope.errors import TaskError
from batchscope.store.records import RunConfig
from batchscope.tasks.builtin.arrays import arrays
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload
from batchscope.training.loop import train

Write = Callable[..., Path]


def parts(x: NDArray[Any], y: NDArray[Any], *, val: int = 10) -> dict[str, NDArray[Any]]:
    return {"x_train": x[val:], "y_train": y[val:], "x_val": x[:val], "y_val": y[:val]}


@pytest.fixture
def table() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    x = random.normal(5.0, 3.0, size=(60, 4))
    x[:, 3] = 7.0
    return parts(x, (x[:, 0] > 5.0).astype(np.int64))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(**data: NDArray[Any]) -> Path:
        np.savez(tmp_path / "data.npz", **data)  # pyright: ignore[reportArgumentType]
        return tmp_path / "data.npz"

    return write


def test_tables_are_standardised_by_the_training_part(write: Write, table: dict[str, NDArray[Any]]) -> None:
    task = arrays(path=write(**table))
    x, y = task.parts["train"]
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[:, :3].mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(x[:, :3].std(0, correction=0), torch.ones(3))
    assert not x[:, 3].any()  # a constant column becomes 0, not NaN
    mean, deviation = table["x_train"].mean(0)[:3], table["x_train"].std(0)[:3]
    np.testing.assert_allclose(task.parts["val"][0][:, :3], (table["x_val"][:, :3] - mean) / deviation, rtol=1e-5)
    np.testing.assert_array_equal(y, table["y_train"])
    assert task.model()(x).shape == (50, 2)


@pytest.mark.parametrize(
    ("shape", "model", "seen"),
    [
        ((6, 5), "mlp", (30,)),
        ((6, 5), "linear", (30,)),
        ((6, 5), "cnn", (1, 6, 5)),
        ((3, 6, 5), "cnn", (3, 6, 5)),
        ((6, 5, 3), "cnn", (3, 6, 5)),
        ((6, 5, 3), "mlp", (90,)),
        ((6, 5, 3), "vgg", (3, 6, 5)),
    ],
)
def test_images(write: Write, shape: tuple[int, ...], model: Any, seen: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, size=(30, *shape), dtype=np.uint8)
    task = arrays(path=write(**parts(x, np.arange(30) % 3)), model=model)
    inputs = task.parts["train"][0]
    assert inputs.shape[1:] == seen
    assert sorted(inputs.unique().mul(255).round().tolist()) == np.unique(x[10:]).tolist()
    if seen == (3, 6, 5) and shape != seen:
        np.testing.assert_allclose(inputs[0, 2], x[10, :, :, 2] / 255, rtol=1e-6)
    assert task.model()(inputs).shape == (20, 3)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (30,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_standard_images(write: Write, shape: tuple[int, ...], dtype: Any) -> None:
    """One mean and one deviation, over all values of the training part; bytes in a table count as pixels."""
    x = np.random.default_rng(0).integers(0, 256, size=(40, *shape)).astype(dtype)
    path = write(**parts(x, np.arange(40) % 3))
    task, unit = arrays(path=path, scale="standard"), arrays(path=path)
    train = task.parts["train"][0]
    if dtype == np.float32 and shape == (30,):
        assert torch.equal(train, unit.parts["train"][0])  # a table is standardised by column, and stays so
        return
    assert (train.mean().item(), train.std(correction=0).item()) == pytest.approx((0.0, 1.0), abs=1e-6)
    flat = x.reshape(40, -1).astype(np.float64)
    np.testing.assert_allclose(
        task.parts["val"][0], (flat[:10] - flat[10:].mean()) / flat[10:].std(), rtol=1e-4, atol=1e-6
    )


def test_standard_images_that_are_all_alike(write: Write) -> None:
    x = np.full((20, 6, 5), 200, dtype=np.uint8)
    assert not arrays(path=write(**parts(x, np.arange(20) % 2)), scale="standard").parts["train"][0].any()


def test_the_settings_reach_model_and_optimizer(write: Write, table: dict[str, NDArray[Any]]) -> None:
    task = arrays(path=write(**table), optimizer="sgd", momentum=0.0, dropout=0.25, init="xavier", depth=1)
    model = task.model()
    assert [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)] == [0.25]
    assert not [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer.bias.any()]
    assert task.optimizer(model.parameters(), 0.1).defaults["momentum"] == 0.0


def test_regression_is_standardised_and_reports_explained_variance(write: Write) -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(80, 3)), random.normal(100.0, 20.0, size=80).astype(np.float32)
    task = arrays(path=write(**parts(x, y)), model="linear")
    targets = task.parts["train"][1]
    assert targets.shape == (70, 1)
    assert (targets.mean().item(), targets.std(correction=0).item()) == pytest.approx((0.0, 1.0), abs=1e-6)
    model = task.model()
    metrics = task.evaluate(model)
    scaled = (y[:10].astype(np.float64) - y[10:].mean(dtype=np.float64)) / y[10:].std(dtype=np.float64)
    with torch.no_grad():
        errors = scaled - model(task.parts["val"][0]).double().numpy()[:, 0]
    assert metrics["val_loss"] == pytest.approx((errors**2).mean(), rel=1e-5)
    assert metrics["val_r2"] == pytest.approx(1 - (errors**2).mean() / scaled.var(), rel=1e-4)
    assert sorted(metrics) == ["val_loss", "val_r2"]  # no test part, no test metrics


def test_several_targets(write: Write) -> None:
    random = np.random.default_rng(1)
    task = arrays(path=write(**parts(random.normal(size=(40, 3)), random.normal(size=(40, 2)))))
    assert task.model()(torch.zeros(4, 3)).shape == (4, 2)


def test_a_bounded_part_is_always_the_same(write: Write, table: dict[str, NDArray[Any]]) -> None:
    data = {**table, "x_test": table["x_train"], "y_test": table["y_train"]}
    first, second = (arrays(path=write(**data), evaluate_at_most=20).parts["test"][0] for _ in range(2))
    assert len(first) == 20
    assert torch.equal(first, second)
    assert len(arrays(path=write(**data), evaluate_at_most=20).train_data()) == 50


def test_a_constant_validation_part_has_no_explained_variance(write: Write) -> None:
    """The variance of 100 equal numbers in float32 need not be 0."""
    random = np.random.default_rng(1)
    y = np.concatenate([np.full(100, 0.1), random.normal(size=200)])
    task = arrays(path=write(**parts(random.normal(size=(300, 3)), y, val=100)))
    assert sorted(task.evaluate(task.model())) == ["val_loss"]


def test_what_was_guessed_is_among_the_notes_of_the_preflight(write: Write, table: dict[str, NDArray[Any]]) -> None:
    task = arrays(path=write(**table, ids=np.arange(50)), evaluate_at_most=5)
    assert task.data_notes == (
        "1 array of data.npz passed over: ids",
        "classification: y holds integers, 2 classes (0, 1)",
        "inputs are taken as a table of 4 columns (float64), each standardised",
        "column 3 of x is constant in training, up to rounding, and set to 0",
        "an evaluation takes 5 of the 10 examples of the val part, always the same",
    )
    assert check(Workload(task)).notes[:5] == task.data_notes


def test_a_target_with_an_offset_trains_as_without(write: Write) -> None:
    """The signal is 40 s on a Unix time of 1.7e9 s, between whose neighbours in float32 lie 128 s."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 5))
    signal = 40.0 * (x[:, 0] * 2 + x[:, 1] * x[:, 2])
    config = RunConfig(task="arrays", batch_size=32, micro_batch_size=32, lr=0.01, max_steps=60)
    best = [
        train(Workload(arrays(path=write(**parts(x + shift, signal + shift, val=50)))), config).best["val_loss"]
        for shift in (0.0, 1.7e9)
    ]
    assert best[1] == pytest.approx(best[0], rel=1e-3)


def change(table: dict[str, NDArray[Any]], name: str, value: Any) -> dict[str, NDArray[Any]]:
    return {**table, name: value(table[name])}


def with_nan(x: NDArray[Any]) -> NDArray[Any]:
    x = x.copy()
    x[17, 2] = x[30, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x_train", lambda x: x[:-3], r"x_train .* has 47 examples, y_train has 50"),
        ("x_train", with_nan, r"x_train .* holds 2 NaN or infinite values of 200, the first in example 17"),
        ("x_val", lambda x: x[:, :3], r"an example in x_val .* has shape \(3,\), in x_train \(4,\)"),
        ("x_val", lambda x: x.astype(str), r"x_val .* has dtype <U\d+; it must hold numbers"),
        ("x_train", lambda x: x[:, 0], r"x_train .* has shape \(50,\)"),
        ("y_val", lambda y: y + 5, r"10 of 10 examples of y_val .* have labels that y_train lacks \(5, 6\)"),
        (
            "y_train",
            lambda y: y * 0 + 3,
            r"all 50 labels of y_train .* are 3: with one class there is nothing to learn",
        ),
        ("y_train", lambda y: np.stack([y, y], 1), r"integer y_train .* has shape \(50, 2\)"),
        ("x_val", lambda x: x.astype(object), r"x_val .* holds Python objects; give it .*: x_val.astype\(float\)"),
    ],
)
def test_bad_arrays(write: Write, table: dict[str, NDArray[Any]], name: str, value: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        arrays(path=write(**change(table, name, value)))


def test_an_empty_part(write: Write, table: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(TaskError, match=r"x_val in .* has no examples"):
        arrays(path=write(**{**table, "x_val": table["x_val"][:0], "y_val": table["y_val"][:0]}))


def test_missing_arrays_are_named(write: Write, table: dict[str, NDArray[Any]]) -> None:
    del table["y_val"]
    with pytest.raises(TaskError, match="lacks y_val; it holds x_train, y_train, x_val"):
        arrays(path=write(**table))
    with pytest.raises(TaskError, match="has x_test alone"):
        arrays(path=write(**table, y_val=np.zeros(10, dtype=np.int64), x_test=table["x_val"]))


def test_a_file_that_is_none(tmp_path: Path, write: Write, table: dict[str, NDArray[Any]]) -> None:
    write(**table)
    with pytest.raises(TaskError, match=r"no file .*date.npz; in that folder stand data.npz"):
        arrays(path=tmp_path / "date.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "data.npz").read_bytes()[:300])
    with pytest.raises(TaskError, match=r"broken.npz cannot be read as an .npz"):
        arrays(path=tmp_path / "broken.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "empty.npz").touch()
    for name in ("single.npy", "empty.npz"):
        with pytest.raises(TaskError, match=f"{name} cannot be read as an .npz"):
            arrays(path=tmp_path / name)


def test_bad_settings(write: Write, table: dict[str, NDArray[Any]]) -> None:
    path = write(**table)
    with pytest.raises(TaskError, match=r"model=cnn needs images.*x_train has shape \(50, 4\)"):
        arrays(path=path, model="cnn")
    with pytest.raises(TaskError, match="model=vgg needs images"):
        arrays(path=path, model="vgg")
    with pytest.raises(TaskError, match="norm=group needs model=cnn or model=vgg; model=mlp"):
        arrays(path=path, norm="group")
    with pytest.raises(TaskError, match="depth=0 must be at least 1"):
        arrays(path=path, depth=0)
    for name in ("size", "evaluate_at_most"):
        with pytest.raises(TaskError, match=f"{name}=0 must be at least 1"):
            arrays(path=path, **{name: 0})
    with pytest.raises(TaskError, match=r"momentum=0.5 is of optimizer=sgd; optimizer=adamw has its own"):
        arrays(path=path, momentum=0.5)


@pytest.mark.shared
def test_fashion_mnist_is_scaled_by_its_published_mean_and_deviation(shared: Path) -> None:
    """0.2860 and 0.3530 of all 60,000 training images; here they are those of a part of them."""
    path = shared / "data" / "fashion_mnist" / "fashion_mnist.npz"
    unit = arrays(path=path, model="linear").parts["train"][0][:1000]
    standard = arrays(path=path, model="linear", scale="standard").parts["train"][0][:1000]
    torch.testing.assert_close(standard, (unit - 0.2860) / 0.3530, atol=0.02, rtol=0)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "settings", "lr", "metric", "least"),
    [
        ("letter", {"hidden": 256, "depth": 1, "optimizer": "adamw"}, 0.005, "accuracy", 0.85),
        ("bike_sharing", {"optimizer": "adamw"}, 0.005, "r2", 0.75),
        ("fashion_mnist", {"hidden": 128, "depth": 1, "optimizer": "sgd"}, 0.03, "accuracy", 0.80),
    ],
)
def test_real_data_is_learnt(shared: Path, name: str, settings: Any, lr: float, metric: str, least: float) -> None:
    """Far above what inputs and labels that do not belong together would give (0.04, 0, 0.1)."""
    workload = Workload(arrays(path=shared / "data" / name / f"{name}.npz", **settings))
    config = RunConfig(task=name, batch_size=64, micro_batch_size=64, lr=lr, max_steps=700, evaluation_growth=1.3)
    result = train(workload, config)
    assert result.best[f"val_{metric}"] > least
    assert result.best[f"test_{metric}"] > least
