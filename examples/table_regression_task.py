"""Task of `table_regression.py`; early stopping is what a search does by itself.

batchscope find examples/table_regression_task.py --target "ema_val_rmse<=1.2"
batchscope find examples/table_regression_task.py --within 20epochs --metric ema_val_rmse:min
"""

from pathlib import Path

import batchscope
from table_regression import EMA_DECAY, Table, make_model, make_optimizer, rmse, squared_error


def task(table: Path | None = None):
    data = Table(table)
    return batchscope.task(
        model=lambda: make_model(data.columns),
        train=data.train,
        loss=squared_error,
        optimizer=make_optimizer,
        ema_decay=EMA_DECAY,
        evaluate=lambda model: {"val_rmse": rmse(model, data)},
    )
