"""Numbers are read as their column is written, or refused with both readings; advice works when it is followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from .reading import read, refusal

COUNTS = "batch_size;steps_to_target\n"
TIMES = "batch_size;steps_to_target;step_time_s\n"


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (COUNTS + "16;1,458\n32;777\n", (1458, 777)),
        (COUNTS + "16;1,458,000\n32;1,458\n", (1_458_000, 1458)),
        (COUNTS + "16;1,458.50\n32;777.25\n", (1458.5, 777.25)),
        (COUNTS + "16;1.458,50\n32;777\n", (1458.5, 777)),
        (COUNTS + "16;1458,125\n32;344,250\n", (1458.125, 344.25)),
        (COUNTS + "16;1458.125\n32;344.250\n", (1458.125, 344.25)),
        (COUNTS + "16;1 458\n32;1\u00a0200\n64;1\u202f100\n", (1458, 1200, 1100)),
        (COUNTS + "16;1'458\n32;1’200\n", (1458, 1200)),  # noqa: RUF001 - an apostrophe of spreadsheets
        (COUNTS + "16;1_458\n32;1e3\n64;1.2E+3\n", (1458, 1000, 1200)),
        (COUNTS.replace(";", ",") + '16,"1,458"\n32,"1,200"\n', (1458, 1200)),
        (COUNTS.replace(";", ",") + '16,"1458,5"\n32,"777"\n', (1458.5, 777)),
        (COUNTS + "16;1,000\n32;1e3\n64;5\n", (1000, 1000, 5)),
    ],
)
def test_separators_of_one_column_are_read_alike(tmp_path: Path, text: str, steps: tuple[float, ...]) -> None:
    assert tuple(row.to_target for row in read(tmp_path, text).rows) == pytest.approx(steps)


def test_thousands_beside_decimal_commas_of_another_column(tmp_path: Path) -> None:
    table = read(tmp_path, TIMES + "16;1,458;0,004213\n128;354;0,005707\n")
    assert [(row.to_target, row.seconds) for row in table.rows] == [(1458, 0.004213), (354, 0.005707)]
    assert table.notes == ("steps_to_target: 1,458 in line 2 was read as 1458",)
    dotted = read(tmp_path, TIMES + "1.024;1.458;0,0123\n32;777;0,1\n")
    assert [(row.batch_size, row.to_target) for row in dotted.rows] == [(1024, 1458), (32, 777)]


def test_other_columns_tell_what_a_time_means(tmp_path: Path) -> None:
    comma = read(tmp_path, TIMES.replace("\n", ";lr\n") + "16;900;1,458;0,1\n32;500;1,500;0,2\n")
    point = read(tmp_path, TIMES.replace("\n", ";lr\n") + "16;900;1,458;0.1\n32;500;1,500;0.2\n")
    assert [row.seconds for row in comma.rows] == [1.458, 1.5]
    assert [row.seconds for row in point.rows] == [1458, 1500]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TIMES + "16;900;0,5\n32;700;0.4\n", ["line 2", "'0,5'", "'0.4' in line 3", "decimal comma"]),
        (TIMES + "16;900;0.5\n32;700;1,458\n", ["'0.5'", "'1,458' in line 3"]),
        (COUNTS + "16;1.458,5\n32;1,458.5\n", ["'1.458,5'", "'1,458.5' in line 3"]),
        (COUNTS + "16;1458,5\n32;777.5\n", ["'1458,5'", "'777.5' in line 3"]),
        (COUNTS + "16;1,458\n32;1,200\n", ["'1,458'", "may be 1458 or 1.458", "write 1458 or 1.4580"]),
        (TIMES + "16;900;1,458\n32;700;1,500\n", ["line 2", "may be 1458 or 1.458"]),
        (COUNTS + "16;1,45,8\n", ["steps_to_target is '1,45,8'"]),
        (COUNTS + "16;1,458,\n", ["steps_to_target is '1,458,'"]),
        (COUNTS + "32,5;10\n", ["batch_size is '32,5'", "whole number"]),
        (TIMES + "16;900;45%\n", ["step_time_s is '45%'", "not measured"]),
        (TIMES + "16;900;12 parsecs\n", ["step_time_s is '12 parsecs'"]),
        (TIMES + "16;900;1e-300\n", ["step_time_s is '1e-300'"]),
        (COUNTS + "16;1e308\n", ["steps_to_target is 1e+308"]),
        (COUNTS + "16;1e999\n", ["steps_to_target is '1e999'"]),
    ],
)
def test_what_could_be_two_numbers_is_refused(tmp_path: Path, text: str, said: list[str]) -> None:
    message = refusal(tmp_path, text)
    for part in said:
        assert part in message


def test_the_advice_on_an_open_number_works(tmp_path: Path) -> None:
    for written, meant in (("1458", 1458), ("1.4580", 1.458)):
        rows = COUNTS + f"16;{written}\n32;{written}\n"
        assert [row.to_target for row in read(tmp_path, rows).rows] == [meant, meant]


def test_units_of_time_in_cells_and_in_names(tmp_path: Path) -> None:
    cells = read(tmp_path, TIMES + "16;900;12 ms\n32;700;3.2s\n64;600;0.5 min\n128;500;250 µs\n256;400;2\n")
    assert [row.seconds for row in cells.rows] == pytest.approx([0.012, 3.2, 30, 2.5e-4, 2])
    for name, seconds in (("Step time (ms)", 0.012), ("step_time_us", 1.2e-5), ("sec_per_step", 12), ("s/it", 12)):
        (row,) = read(tmp_path, f"batch_size;steps_to_target;{name}\n16;900;12\n").rows
        assert row.seconds == pytest.approx(seconds)
    for name, seconds in (("steps_per_second", 0.01), ("samples_per_second", 0.16), ("it/s", 0.01)):
        (row,) = read(tmp_path, f"batch_size;steps_to_target;{name}\n16;900;100\n").rows
        assert row.seconds == pytest.approx(seconds)


def test_per_cent_is_a_share_in_the_whole_column(tmp_path: Path) -> None:
    head = "run,batch_size,step,val_accuracy\n"
    table = read(tmp_path, head + "a,32,100,45%\na,32,200,97 %\n", "val_accuracy>=0.9")
    assert table.rows[0].to_target is not None
    message = refusal(tmp_path, head + "a,32,100,45%\na,32,200,0.97\n", "val_accuracy>=0.9")
    assert "val_accuracy is '45%', and '0.97' in line 3" in message


def test_a_seed_keeps_all_its_digits(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "batch_size,steps_to_target,seed\n32,5,123456789012345678901\n").rows
    assert row.seed == 123456789012345678901


@pytest.mark.parametrize("cell", ["None", "null", "-", "—", "#N/A", "NaN", "inf", ""])
def test_cells_that_say_nothing(tmp_path: Path, cell: str) -> None:
    (row,) = read(tmp_path, f"batch_size,steps_to_target,lr\n32,{cell},{'' if cell == 'inf' else cell}\n").rows
    assert (row.to_target, row.lr) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nbatch_size;steps_to_target\r\n32;5\r\n",
        '"sep=|"\nbatch_size|steps_to_target\n32|5\n',
        "| batch_size | steps_to_target |\n|-----|----:|\n| 32 | 5 |\n",
        "batch_size   steps_to_target\n32   5\n",
        '\ufeff"batch_size";"steps_to_target";\n"32";"5";\n',
        "Größe\tbatch_size\tsteps_to_target\n1\t32\t5\n",
        "\n\nbatch_size,steps_to_target,,\n\n32,5,,\n,,,\n",
    ],
)
def test_separators_of_cells(tmp_path: Path, text: str) -> None:
    assert [(row.batch_size, row.to_target) for row in read(tmp_path, text).rows] == [(32, 5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("16,100\n32,50\n", "these are numbers, so a line of column names is missing"),
        ('{"batch_size": 32}\n', "holds JSON; fit reads CSV"),
        ("batch_size,steps_to_target,step_time_s\n16,100,0,5\n", "a number with a decimal comma stands in quotes"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)
