"""The driver itself: goes on where it stopped, outlives its workers; the table counts what the file says."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.fuzz.__main__ import main
from tests.fuzz.driver import drive, pending, shard
from tests.fuzz.fake import calm, troubled
from tests.fuzz.page import BEGIN, END
from tests.fuzz.records import Record, append, latest, load
from tests.fuzz.table import reason, table


@pytest.mark.parametrize("workers", [1, 2])
def test_every_seed_gets_one_line(tmp_path: Path, workers: int) -> None:
    out = tmp_path / "folder" / "run.jsonl"
    drive(calm, range(10, 17), workers=workers, out=out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(r["seed"] for r in lines) == list(range(10, 17))
    assert len({r["pid"] for r in lines}) <= workers
    assert os.getpid() not in {r["pid"] for r in lines}


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    drive(calm, range(3), out=out)
    with out.open("a") as file:
        file.write('{"seed": 3, "verd')  # the machine went down
    assert pending(range(6), out) == [3, 4, 5]
    drive(calm, pending(range(6), out), out=out)
    assert [r["seed"] for r in load(out)] == list(range(6))
    assert pending(range(6), out) == []


def test_verdicts_may_be_run_again_and_the_last_one_counts(tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    append(out, {"seed": 1, "verdict": "wrong", "note": "wrong: sample 0 is 1e-2 above the optimum"})
    append(out, {"seed": 2, "verdict": "solved", "note": ""})
    assert pending([1, 2, 3], out, ["wrong"]) == [1, 3]
    drive(calm, pending([1, 2], out, ["wrong"]), out=out)
    assert [r["verdict"] for r in latest(load(out))] == ["solved", "solved"]
    assert "2 programs, 1 run again" in table(load(out))


def test_a_worker_that_dies_or_hangs_is_replaced() -> None:
    records = {r["seed"]: r for r in drive(troubled, range(1, 6), patience=1.0)}
    assert {s: r["verdict"] for s, r in records.items()} == {
        1: "solved",
        2: "crashed",
        3: "slow",
        4: "solved",
        5: "solved",
    }
    assert "exit code 7" in records[2]["note"]


def test_no_seed_is_begun_when_time_is_up() -> None:
    assert drive(calm, range(5), until=time.monotonic() - 1.0) == []


def test_shards_are_a_partition() -> None:
    parts = [list(shard(range(5, 25), f"{i}/3")) for i in (1, 2, 3)]
    assert sorted(s for part in parts for s in part) == list(range(5, 25))
    for text in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(ValueError, match="expected i/n"):
            shard(range(3), text)


RECORDS: list[Record] = [
    {"seed": 1, "verdict": "solved", "note": "", "splitting": "PDHG", "atoms": ["abs", "box"], "kind": "feasible"},
    {"seed": 2, "verdict": "solved", "note": "", "splitting": "PDHG", "atoms": ["abs"], "gradient": "right"},
    {"seed": 3, "verdict": "slow", "note": "", "splitting": "Davis–Yin", "atoms": []},
    {"seed": 4, "verdict": "not converged", "note": "not converged: sample 1 is MAX_STEPS, residual 2.3e-08; more"},
    {"seed": 5, "verdict": "not converged", "note": "not converged: sample 0 is MAX_STEPS, residual 4e-07"},
]


def test_the_table_counts_by_splitting_and_by_atom() -> None:
    rows = {line.split("  ")[0]: line.split()[-4:] for line in table(RECORDS).splitlines()}
    assert rows["all"] == ["5", "2", "2", "1"]
    assert rows["atom: abs"][-2:] == ["2", "2"]
    assert rows["splitting: Davis–Yin"][-2:] == ["1", "1"]
    assert rows["gradient: right"][-2:] == ["1", "1"]
    assert table(RECORDS).count("not converged: MAX_STEPS, residual #") == 1


def test_the_table_in_markdown_has_columns_of_one_length() -> None:
    first = table(RECORDS, markdown=True).split("\n\n")[0].splitlines()
    assert len({line.count("|") for line in first}) == 1


def test_reasons_leave_numbers_out() -> None:
    assert reason("wrong: sample 2 is 3.4e-05 above the optimum -1.5; more") == "# above the optimum #"


def test_the_command_prints_the_table_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.jsonl"
    for record in RECORDS:
        append(out, record)
    assert main(["--table", str(out)]) == 0
    said = capsys.readouterr().out
    assert "atom: abs" in said
    assert said.strip().splitlines()[-1].startswith("5 programs")


def test_the_tables_of_a_page_are_written_again(tmp_path: Path) -> None:
    out, page = tmp_path / "run.jsonl", tmp_path / "page.md"
    for record in RECORDS:
        append(out, record)
    page.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n", encoding="utf-8")
    for _ in range(2):
        assert main(["--table", str(out), "--page", str(page)]) == 0
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"Before.\n\n{BEGIN}\n")
        assert text.endswith(f"{END}\n\nAfter.\n")
        assert "old" not in text
        assert text.count("| all | 5 | 2 | 0 | 2 | 0 | 0 | 1 | 0 |") == 1
        assert "| `abs` | 2 |" in text
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="has no lines"):
        main(["--table", str(out), "--page", str(page)])
