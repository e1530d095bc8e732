"""Columns are found under the names that trackers give them; what could be two is asked for, and the advice works."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.errors import TableError
from batchscope.search.table.fit import fit
from batchscope.search.table.names import chosen_of

from .reading import read, refusal

FOUND = (32, 100.0, 0.01, 0.1, 3)


@pytest.mark.parametrize(
    "names",
    [
        "batch_size,steps_to_target,step_time_s,lr,seed",
        "config.batch_size,summary.steps_to_target,summary.step_time_s,config.lr,config.seed",
        "config.data.batch_size,steps_to_target,step_time_s,config.optimizer.learning_rate,config.seed",
        "config/train/batch_size,summary/steps_to_target,summary/step_time_s,config/lr,config/random_seed",
        "params_batch_size,user_attrs_steps_to_target,user_attrs_step_time_s,params_lr,params_seed",
        "params.batch_size,metrics.steps_to_target,metrics.step_time_s,params.learning_rate,params.seed",
        "Batch Size,Steps To Target,Seconds per step,Learning Rate,Random Seed",
        "batchSize,stepsToTarget,stepTime,learningRate,seed",
        "bs,iterations_to_target,sec/it,lr-Adam,manual_seed",
        "global_batch_size,steps_to_target,step_time,base_lr,seed",
    ],
)
def test_names_of_trackers(tmp_path: Path, names: str) -> None:
    table = read(tmp_path, f"{names}\n32,100,0.01,0.1,3\n")
    (row,) = table.rows
    assert (row.batch_size, row.to_target, row.seconds, row.lr, row.seed) == FOUND
    own = names.lower().startswith("batch")
    assert any("columns as they were found: batch_size is " in note for note in table.notes) is not own


def test_an_own_name_is_preferred_and_twins_are_one(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,config.batch_size,steps_to_target\n32,64,100\n")
    assert (table.rows[0].batch_size, table.ignored) == (32, ("config.batch_size",))
    twins = read(tmp_path, "params.batch_size,config.batch_size,steps_to_target\n32,32,100\n")
    assert twins.rows[0].batch_size == 32


@pytest.mark.parametrize(
    ("names", "role", "columns"),
    [
        ("config.train.batch_size,config.eval.batch_size,steps_to_target", "batch_size", "config.train.batch_size"),
        ("batch_size,steps_to_target,learning_rate,base_lr", "lr", "learning_rate"),
        ("batch_size,summary.steps_to_target,metrics.steps_to_target", "steps_to_target", "summary.steps_to_target"),
        ("batch_size,steps_to_target,step_time,ms_per_step", "step_time_s", "ms_per_step"),
        ("batch_size,steps_to_target,epochs_to_target", "steps_to_target", "steps_to_target"),
    ],
)
def test_what_could_be_two_columns_is_asked_for(tmp_path: Path, names: str, role: str, columns: str) -> None:
    text = f"{names}\n{','.join(str(i + 32) for i in range(len(names.split(','))))}\n"
    message = refusal(tmp_path, text)
    assert f"--column {role}=" in message
    assert read(tmp_path, text, columns={role: columns}).rows[0].batch_size in (32, 33)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    text = "batch_size,steps_to_target\n32,10\n"
    assert "there is no such column; the names are batch_size, steps" in refusal(tmp_path, text, columns={"lr": "eta0"})
    assert "a column may be taken for batch_size" in refusal(tmp_path, text, columns={"size": "batch_size"})
    for words in (["lr"], ["lr="], ["lr=a", "lr=b"]):
        with pytest.raises(TableError, match="--column lr"):
            chosen_of(words)


def test_a_column_that_was_given_is_taken_from_what_it_would_have_been(tmp_path: Path) -> None:
    text = "batch_size,steps_to_target,step_time_s\n32,10,0.5\n"
    table = read(tmp_path, text, columns={"lr": "step_time_s"})
    assert [(row.lr, row.seconds) for row in table.rows] == [(0.5, None)]
    step = read(tmp_path, "batch_size,epoch,val_loss\n32,1,9\n32,2,1\n", "val_loss<=1", {"step": "epoch"})
    assert (step.unit, step.rows[0].to_target) == ("steps", 2)
    named = read(tmp_path, "batch_size,step,val_loss\n32,1,1\n64,2,1\n", "val_loss<=1", {"run": "step"})
    assert len(named.rows) == 2
    unread = read(tmp_path, text, columns={"step": "step_time_s", "run": "batch_size"}).notes
    assert "not needed where each row is a run: --column step=step_time_s and --column run=batch_size" in unread


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"lr": "batch_size"}, "batch_size is taken for lr, and no column is left for batch_size"),
        ({"lr": "steps_to_target"}, "give --column steps_to_target=NAME, or another for lr"),
        ({"lr": "more", "seed": "more"}, "--column lr=more and --column seed=more are one column"),
        ({"steps_to_target": "more", "epochs_to_target": "steps_to_target"}, "give only --column steps_to_target=more"),
    ],
)
def test_columns_that_cannot_be_given(tmp_path: Path, columns: dict[str, str], said: str) -> None:
    assert said in refusal(tmp_path, "batch_size,steps_to_target,more\n32,10,1\n", columns=columns)


def test_the_objective_of_a_study_is_what_the_caller_says(tmp_path: Path) -> None:
    text = (
        "number,value,params_batch_size,params_lr,user_attrs_steps,state\n0,100,16,0.1,90,COMPLETE\n"
        "1,80,32,0.1,90,PRUNED\n2,,32,0.1,,FAIL\n3,60,64,0.1,50,TrialState.COMPLETE\n"
    )
    message = refusal(tmp_path, text)
    assert "--column steps_to_target=value" in message
    table = read(tmp_path, text, columns={"steps_to_target": "value"})
    assert [(row.batch_size, row.to_target) for row in table.rows] == [(16, 100), (64, 60)]
    assert any("2 rows left out" in note and "1 fail and 1 pruned" in note for note in table.notes)
    metric = read(tmp_path, text, "val_loss<=100")
    assert ["val_loss is value" in note for note in metric.notes] == [True, False]
    given = {"val_loss": "value", "batch_size": "params_batch_size", "lr": "params_lr", "step": "user_attrs_steps"}
    (found, _) = read(tmp_path, text, "val_loss<=100", given).notes
    assert found == "columns as they were found: run is number; --column run=NAME takes another"


def test_a_crashed_run_is_no_run_that_never_got_there(tmp_path: Path) -> None:
    rows = "16,finished,100\n32,crashed,\n64,failed,50\n128,running,\n256,finished,\n"
    text = "config.batch_size,State,steps_to_target\n" + rows
    table = read(tmp_path, text)
    assert [(row.batch_size, row.to_target) for row in table.rows] == [(16, 100), (64, 50), (256, None)]
    other = read(tmp_path, "batch_size,state,steps_to_target\n16,CA,100\n32,NY,\n")
    assert (len(other.rows), other.ignored) == (2, ("state",))


def test_thousands_of_columns_that_are_not_read_take_one_line(tmp_path: Path) -> None:
    more = [f"config.c{i}" for i in range(3000)]
    lines = [",".join(["batch_size", "steps_to_target", *more])]
    lines += [",".join([str(b), str(s), *["x"] * len(more)]) for b, s in ((16, 900), (64, 300), (256, 200))]
    path = tmp_path / "wide.csv"
    path.write_text("\n".join(lines))
    plan = fit(path, objective="examples")
    (note,) = [note for note in plan.notes if "not read" in note]
    assert note.startswith("not read: 3,000 columns, among them config.c0, ")
    assert len(note) < 120
    path.write_text(",".join(more) + "\n" + ",".join("x" for _ in more))
    with pytest.raises(TableError, match=r"and 2,992 more, and batch_size is missing"):
        fit(path)
