"""Tables of curves: which rows are one run, and where it passed the target."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.search.table.fit import fit
from batchscope.search.table.runs import runs_of
from batchscope.store.records import Target

from .reading import read, refusal

GOAL = "val_loss<=0.3"


def test_the_first_passage_of_each_run(tmp_path: Path) -> None:
    rows = "a,32,100,0.9\na,32,1000,0.3\na,32,2000,0.2\nb,32,100,0.9\nb,32,1000,0.5\n"
    table = read(tmp_path, "run_id,batch_size,step,val_loss\n" + rows, GOAL)
    assert [(row.line, row.to_target, row.length) for row in table.rows] == [(2, 1000, 2000), (5, None, 1000)]
    assert any("5 rows are the curves of 2 runs" in note for note in table.notes)


@pytest.mark.parametrize(
    "names",
    [
        "run,batch_size,step,val_loss",
        "Name,config.batch_size,trainer/global_step,val/loss",
        "run_id,params.batch_size,step,metrics.val_loss",
        "number,params_batch_size,iteration,value",
        "name,bs,steps,eval_loss",
        "version,batch_size,step,validation_loss",
    ],
)
def test_names_of_loggers(tmp_path: Path, names: str) -> None:
    table = read(tmp_path, f"{names}\na,32,10,0.9\na,32,1000,0.3\n", GOAL)
    assert [(row.batch_size, row.to_target) for row in table.rows] == [(32, 1000)]


def test_rows_of_a_logger_that_say_nothing_of_the_metric(tmp_path: Path) -> None:
    rows = "32,0,9,0.1,1.0,\n32,0,9,0.1,,0.9\n32,1,19,0.1,0.5,\n32,1,19,0.1,,0.3\n32,2,29,0.1,,nan\n"
    table = read(tmp_path, "batch_size,epoch,step,lr-Adam,train_loss,val_loss\n" + rows, GOAL)
    assert [(row.to_target, row.lr, row.length) for row in table.rows] == [(19, 0.1, 29)]


def test_epochs_that_begin_at_0_are_counted_at_their_end(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,epoch,loss,val_loss\n32,0,1,0.9\n32,1,1,0.3\n64,0,1,0.9\n64,1,1,0.8\n", GOAL)
    assert [(row.to_target, row.length) for row in table.rows] == [(2, 2), (None, 2)]
    assert any("epochs begin at 0" in note for note in table.notes)
    parts = read(tmp_path, "batch_size,epoch,val_loss\n32,0,0.9\n32,0.5,0.3\n", GOAL)
    assert parts.rows[0].to_target == 0.5


def test_runs_without_names_are_told_by_what_they_were_run_with(tmp_path: Path) -> None:
    rows = "32,0.1,0,100,0.9\n32,0.1,0,200,0.3\n32,0.2,0,100,0.3\n32,0.1,1,100,0.3\n"
    table = read(tmp_path, "batch_size,lr,seed,step,val_loss\n" + rows, GOAL)
    assert [(row.lr, row.seed, row.to_target) for row in table.rows] == [(0.1, 0, 200), (0.2, 0, 100), (0.1, 1, 100)]


def test_a_schedule_is_one_run_at_its_largest_learning_rate(tmp_path: Path) -> None:
    rows = "".join(f"{b},{s},{lr},{v}\n" for b in (32, 64) for s, lr, v in ((10, 0.1, 2), (20, 0.2, 1), (30, 0.1, 0.3)))
    table = read(tmp_path, "batch_size,step,lr,val_loss\n" + rows, GOAL)
    assert [(row.lr, row.to_target) for row in table.rows] == [(0.2, 30), (0.2, 30)]
    assert any("learning rates change along runs" in note for note in table.notes)


@pytest.mark.parametrize(
    ("text", "target", "said"),
    [
        (
            "batch_size,step,val_loss\n32,100,0.5\n32,100,0.4\n",
            GOAL,
            "line 3: batch size 32 has another value at step 100",
        ),
        ("run,batch_size,step,val_loss\na,32,100,0.5\n", "", "--target 'val_loss<=0.3'"),
        ("run,batch_size,step,val_loss\na,32,100,0.5\n", "val_f1>=0.9", "--column val_f1=NAME"),
        ("run,batch_size,val_loss\na,32,0.5\n", GOAL, "one of step, examples, epoch is missing"),
        ("run,batch_size,step,val_loss\na,32,0,0.1\n", GOAL, "at step 0 already, before any training"),
        ("run,batch_size,step,val_loss\na,32,-5,0.1\n", GOAL, "step is -5; write a number from 0 on"),
        ("run,batch_size,step,val_loss\na,32,5,\n", GOAL, "no row has a value of val_loss"),
        (
            "run,batch_size,epoch,val_loss\na,32,9,0.1\nb,64,9,0.2\n",
            GOAL,
            "give the whole curves, one row an evaluation",
        ),
        ("run,batch_size,step,val/loss,val.loss\na,32,5,1,2\n", GOAL, "give --column val_loss=val/loss"),
    ],
)
def test_curves_that_cannot_be_read(tmp_path: Path, text: str, target: str, said: str) -> None:
    assert said in refusal(tmp_path, text, target)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("epoch<=2", "epoch is where in a run a row was evaluated, no metric; write for example --target"),
        ("lr<=0.1", "lr is the learning rate of a run, no metric"),
        ("state<=1", "state is how a run ended, no metric"),
        ("run<=1", "run is the name of a run, no metric"),
        ("step<=1", "no metric"),
        ("steps_to_target<=1", "steps_to_target is the way to a target, no metric"),
        ("learning_rate<=0.1", "learning_rate is taken for lr, and no column is left for learning_rate"),
        ("epochs<=2", "epochs is taken for epochs, and no column is left for epoch"),
    ],
)
def test_a_target_on_what_is_no_metric(tmp_path: Path, target: str, said: str) -> None:
    text = "run,batch_size,epochs,learning_rate,state,val_loss\na,32,1,0.1,ok,0.9\na,32,2,0.1,ok,0.3\n"
    assert said in refusal(tmp_path, text, target)


def test_curves_need_no_state(tmp_path: Path) -> None:
    rows = "a,32,1,0.9,running\na,32,2,0.3,finished\nb,64,1,0.3,crashed\nb,64,2,,crashed\n"
    table = read(tmp_path, "run,batch_size,step,val_loss,state\n" + rows, GOAL)
    assert [(row.to_target, row.length) for row in table.rows] == [(2, 2), (1, 2)]
    assert table.ignored == ("state",)


def test_a_run_that_was_stopped_early_says_nothing(tmp_path: Path) -> None:
    rows = "a,16,100,0.9\na,16,800,0.3\nb,64,100,0.9\nb,64,400,0.3\nc,256,10,0.9\nd,512,10,0.9\nd,512,600,0.8\n"
    table = read(tmp_path, "run,batch_size,step,val_loss\n" + rows, GOAL)
    runs = runs_of(table, None, Target.parse(GOAL))
    assert (sorted(runs.steps), runs.too_short) == ([16, 64, 512], 1)
    assert runs.stored[-1].config.max_steps == 600


def test_curves_give_the_plan_of_their_passages(tmp_path: Path) -> None:
    passed = ((16, 900), (64, 300), (256, 200), (1024, 180))
    whole, curves = tmp_path / "runs.csv", tmp_path / "curves.csv"
    whole.write_text(
        "batch_size,steps_to_target,step_time_s\n" + "".join(f"{b},{s},{1 + b / 200}\n" for b, s in passed)
    )
    lines = [f"{b},{at},{1 + b / 200},{v}" for b, s in passed for at, v in ((s / 10, 0.9), (s, 0.3), (2 * s, 0.1))]
    curves.write_text("batch_size,step,step_time_s,val_loss\n" + "\n".join(lines))
    one, other = fit(whole), fit(curves, target=Target.parse(GOAL))
    assert one.recipe is not None
    assert other.recipe is not None
    assert one.recipe.batch_size == other.recipe.batch_size
    assert one.recipe.steps == other.recipe.steps
    assert (other.search.runs, str(other.target)) == (4, GOAL)
