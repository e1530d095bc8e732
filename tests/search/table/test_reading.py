"""Tables as people have them: read whatever separates the cells, refused with the line and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchscope.errors import TableError
from batchscope.search.table.reading import Measurement, Table, read_table

GOOD = "batch_size,steps_to_target,step_time_s,lr,seed\n32,1000,0.01,0.1,1\n64,,0.012,0.1,2\n"


def read(folder: Path, text: str | bytes) -> Table:
    path = folder / "runs.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path)


def refused(folder: Path, text: str | bytes) -> str:
    with pytest.raises(TableError) as error:
        read(folder, text)
    return str(error.value)


def test_a_row_is_a_run(tmp_path: Path) -> None:
    table = read(tmp_path, GOOD)
    assert (table.name, table.unit, table.time_of, table.ignored) == ("runs.csv", "steps", "step", ())
    assert table.rows == (
        Measurement(line=2, batch_size=32, to_target=1000.0, seconds=0.01, lr=0.1, seed=1),
        Measurement(line=3, batch_size=64, to_target=None, seconds=0.012, lr=0.1, seed=2),
    )


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        "\n" + GOOD.replace("\n", "\n\n"),
        GOOD.replace(",", " , "),
        GOOD.replace("batch_size", "Batch Size").replace("lr", '"LR"'),
        GOOD.replace("32,", '"32",').replace("64,", "64.0,"),
        GOOD.replace(",", ";").replace("0.1", "0,1").replace("0.0", "0,0"),
        GOOD.replace("64,,", "64,nan,"),
        GOOD.replace("64,,", "64,inf,"),
        GOOD.replace("64,,", "64, None ,"),
        GOOD.replace("2\n", "2,\n"),
    ],
)
def test_what_separates_and_surrounds_cells_does_not_matter(tmp_path: Path, text: str) -> None:
    def values(table: Table) -> list[tuple[object, ...]]:
        return [(r.batch_size, r.to_target, r.seconds, r.lr, r.seed) for r in table.rows]

    assert values(read(tmp_path, text)) == values(read(tmp_path, GOOD))


@pytest.mark.parametrize(
    "text",
    [
        "batch_size|lr|step_time_s|steps_to_target\n256|0.1|0.03|\n64|0.1|0.02|90\n",
        "steps_to_target|batch_size|lr\n|256|0.1\n90|64|0.1\n",
        "| batch_size | steps_to_target |\n|---|---|\n| 256 | |\n| 64 | 90 |\n",
        "|batch_size|steps_to_target|\n|256||\n64|90\n",
        "|batch_size|steps_to_target\n0|256|\n1|64|90\n",
    ],
)
def test_an_empty_cell_between_bars_is_none_of_their_border(tmp_path: Path, text: str) -> None:
    assert [(row.batch_size, row.to_target) for row in read(tmp_path, text).rows] == [(256, None), (64, 90)]


def test_utf_16_with_its_mark_is_read(tmp_path: Path) -> None:
    assert len(read(tmp_path, GOOD.encode("utf-16")).rows) == 2


def test_further_columns_are_named_and_not_read(tmp_path: Path) -> None:
    table = read(tmp_path, "name,batch_size,examples_to_target,Val Loss\nx,32,1e5,\ny,64,2e5,0.3\n")
    assert table.ignored == ("name", "val_loss")
    assert (table.unit, table.time_of) == ("examples", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["runs.csv is empty", "batch_size,steps_to_target"]),
        ("\n \n", ["is empty"]),
        ("batch_size,steps_to_target\n", ["no row"]),
        ("steps_to_target\n5\n", ["line 1", "batch_size is missing"]),
        ("b,steps_to_target\n5,5\n", ["line 1", "the column names are b, steps_to_target", "batch_size is missing"]),
        ("batch_sice,steps_to_target\n5,5\n", ["write batch_size for batch_sice", "--column batch_size=batch_sice"]),
        ("batch_size,steps\n5,5\n", ["one of steps_to_target, epochs_to_target, examples_to_target", "for steps"]),
        ("batch_size,loss\n5,5\n", ["line 1", "is missing", "write for example batch_size,steps_to_target"]),
        ("32,1000\n64,500\n", ["the column names are 32, 1000", "batch_size is missing"]),
        ("batch_size,batch_size,steps_to_target\n5,5,5\n", ["batch_size is there 2 times"]),
        (
            "batch_size,steps_to_target,epochs_to_target\n5,5,5\n",
            ["steps_to_target and epochs_to_target", "keep one", "--column"],
        ),
        ("batch_size,steps_to_target,step_time_s,epoch_time_s\n5,5,5,5\n", ["step_time_s and epoch_time_s"]),
        ("batch_size,steps_to_target\n5,5\n5\n", ["line 3", "1 cell under 2 column names"]),
        ("batch_size,steps_to_target\n5,5,7\n", ["line 2", "3 cells under 2 column names"]),
        ("batch_size,steps_to_target\n,5\n", ["line 2", "batch_size is empty", "whole number"]),
        ("batch_size,steps_to_target\n32.5,5\n", ["batch_size is '32.5'", "whole number"]),
        ("batch_size,steps_to_target\n0,5\n", ["batch_size is '0'"]),
        ("batch_size,steps_to_target\n-8,5\n", ["batch_size is '-8'"]),
        ("batch_size,steps_to_target\nnan,5\n", ["batch_size is 'nan'"]),
        ("batch_size,steps_to_target\n1e12,5\n", ["batch_size is 1e+12", "from 1 to"]),
        ("batch_size,steps_to_target\n\n8,5\n16,-5\n", ["line 4", "steps_to_target is '-5'", "above 0"]),
        ("batch_size,steps_to_target\n8,0\n", ["steps_to_target is '0'", "or nothing: never reached"]),
        ("batch_size,steps_to_target\n8,many\n", ["steps_to_target is 'many'"]),
        ("batch_size,steps_to_target\n8,-inf\n", ["steps_to_target is '-inf'"]),
        ("batch_size,steps_to_target,step_time_s\n8,5,inf\n", ["step_time_s is 'inf'"]),
        ("batch_size,steps_to_target,step_time_s\n8,5,0\n", ["step_time_s is '0'", "or nothing: not measured"]),
        ("batch_size,steps_to_target,epoch_time_s\n8,5,-1\n", ["epoch_time_s is '-1'"]),
        ("batch_size,steps_to_target,lr\n8,5,0\n", ["lr is '0'", "or nothing: not known"]),
        ("batch_size,steps_to_target,lr\n8,5,fast\n", ["lr is 'fast'"]),
        ("batch_size,steps_to_target,seed\n8,5,a\n", ["seed is 'a'"]),
        (b"batch_size,steps_to_target\n\xff\xff,5\n", ["not UTF-8", "save it as CSV"]),
        (b"PK\x03\x04\x00\x00", ["not text", "save it as CSV"]),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_place(tmp_path: Path, text: str | bytes, said: list[str]) -> None:
    message = refused(tmp_path, text)
    assert "runs.csv" in message
    for part in said:
        assert part in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(TableError, match="give the path of a table"):
            read_table(path)


def test_epochs_need_the_size_of_the_training_set(tmp_path: Path) -> None:
    table = read(tmp_path, "batch_size,epochs_to_target\n32,4\n64,5\n")
    assert table.counts_whole_epochs
    with pytest.raises(TableError, match=r"epochs_to_target.*add --examples N"):
        table.check_examples(None)
    with pytest.raises(TableError, match="line 3: batch_size 64 is larger than the training set of 50"):
        table.check_examples(50)
    table.check_examples(64)
    timed = read(tmp_path, "batch_size,steps_to_target,epoch_time_s\n32,4,1\n")
    with pytest.raises(TableError, match=r"epoch_time_s.*add --examples N"):
        timed.check_examples(None)


def test_steps_and_seconds_of_a_step_follow_from_any_unit(tmp_path: Path) -> None:
    of_steps = read(tmp_path, "batch_size,steps_to_target,step_time_s\n50,40,0.01\n")
    of_examples = read(tmp_path, "batch_size,examples_to_target,step_time_s\n50,2000,0.01\n")
    of_epochs = read(tmp_path, "batch_size,epochs_to_target,epoch_time_s\n50,2.5,0.16\n")
    for table in (of_steps, of_examples, of_epochs):
        (row,) = table.rows
        assert table.steps(row, 800) == pytest.approx(40)
        assert table.step_time(row, 800) == pytest.approx(0.01)
        assert not table.counts_whole_epochs
