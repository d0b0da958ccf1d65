"""The command line: exit codes, JSON, errors without a traceback, and a start without heavy imports."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from opteq_cvx.cli import CLAIM_FAILED, DONE, MISTAKE, main
from opteq_cvx.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
UNIT = str(ROOT / "problems" / "opteq_unit.py")
SMALL = ["--size", "inputs=5", "--size", "hidden=6"]


def parsed(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Standard output, which must be one JSON document."""
    return json.loads(capsys.readouterr().out)


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom opteq_cvx.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'cvxpy', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage: opteq" in done.stdout


def test_the_module_runs_as_the_command_does() -> None:
    command = [sys.executable, "-m", "opteq_cvx.cli", "explain", "nowhere.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == MISTAKE
    assert "not a Python file" in done.stderr


def test_a_mistake_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "nowhere.py"]) == MISTAKE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("opteq: 'nowhere.py' is not a Python file. Expected: ")
    assert captured.err.count("\n") == 1


def test_traceback_raises_the_error() -> None:
    with pytest.raises(InputError):
        main(["explain", "nowhere.py", "--traceback"])


@pytest.mark.parametrize(
    "arguments",
    [[], ["paint"], ["explain"], ["train", UNIT, "--epochs", "0"], ["explain", UNIT, "--size", "hidden"],
     ["explain", UNIT, "--size", "hidden=-3"], ["verify", UNIT, "--tolerance", "-3"],
     ["verify", UNIT, "--tolerance", "small"]],
)  # fmt: skip
def test_a_wrong_call_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == MISTAKE
    assert "usage: opteq" in capsys.readouterr().err


BROKEN = {
    "import nosuchmodule": "No module named 'nosuchmodule'",
    "def declare(": "'(' was never closed",
    "SOURCE = ''\ndef declare(): return 1 / 0\ndef sample(n, g): return ()": "broken.py, line 2: ZeroDivisionError",
}


@pytest.mark.parametrize("code", BROKEN)
def test_an_error_inside_a_problem_file_is_one_line(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(code)
    assert main(["explain", str(path)]) == MISTAKE
    captured = capsys.readouterr()
    assert BROKEN[code] in captured.err
    assert "--traceback" in captured.err
    assert captured.err.count("\n") == 1
    with pytest.raises((ImportError, SyntaxError, ZeroDivisionError)):
        main(["explain", str(path), "--traceback"])


@pytest.mark.parametrize("command", ["explain", "verify", "train", "bench", "new", "atoms", "demo"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == DONE
    text = capsys.readouterr().out
    assert f"Example: opteq {command}" in " ".join(text.split())
    assert "--json" in text


def test_a_reader_that_stops_early_is_no_error() -> None:
    """`opteq atoms | head -1`."""
    command = f"{sys.executable} -m opteq_cvx.cli atoms | head -n 1"
    done = subprocess.run(command, cwd=ROOT, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("| atom |")


def test_an_unknown_size_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", UNIT, "--size", "depth=2"]) == MISTAKE
    assert "inputs, hidden" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_explain_prints_program_and_plan(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["explain", UNIT, *SMALL]) == DONE
    text = capsys.readouterr().out
    assert "arXiv 2105.13228" in " ".join(text.split())  # wherever the line was folded
    assert "plan: forward–backward" in text
    assert main(["explain", UNIT, *SMALL, "--json"]) == DONE
    found = parsed(capsys)
    assert found["plan"] == "forward–backward"
    assert r"\mathrm{relu}" in str(found["latex"])
    assert "quad_form" in str(found["program"])


def test_verify_holds_a_problem_to_its_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", UNIT, *SMALL, "--samples", "2", "--json"]) == DONE
    assert parsed(capsys)["ok"] is True


def test_verify_fails_where_the_error_is_above_the_tolerance(capsys: pytest.CaptureFixture[str]) -> None:
    loose = ["verify", UNIT, *SMALL, "--samples", "2", "--no-gradients", "--tolerance", "1e-17", "--json"]
    assert main(loose) == CLAIM_FAILED
    assert parsed(capsys)["ok"] is False


def test_atoms_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["atoms"]) == DONE
    assert "| `abs` |" in capsys.readouterr().out
    assert main(["atoms", "--json"]) == DONE
    assert "abs" in {row["name"] for row in json.loads(capsys.readouterr().out)}


def test_train_writes_weights_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = random.normal(size=(60, 5)) + 3.0 * np.eye(3, 5)[y]
    np.savez(tmp_path / "clouds.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    out = tmp_path / "out"
    call = ["train", UNIT, *SMALL, "--data", "clouds.npz", "--data-dir", str(tmp_path), "--out", str(out)]
    assert (
        main([*call, "--epochs", "8", "--batch-size", "10", "--rate", "0.02", "--accelerator", "cpu", "--json"]) == DONE
    )
    result = parsed(capsys)
    assert result["epochs"] == 8
    assert result["test_accuracy"] >= 0.9
    assert {"metrics.jsonl", "checkpoint.safetensors", "layer.opteq"} <= {p.name for p in out.iterdir()}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train_solver_failed"] == 0.0
    assert rows[-1]["train_solver_steps"] > 0
    assert main([*call, "--mirror"]) == MISTAKE
    assert "--mirror and samples of clouds, which are not images" in capsys.readouterr().err


def test_train_without_its_data_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", UNIT, "--data", "mnist"]) == MISTAKE
    assert "--data-dir" in capsys.readouterr().err


def test_a_new_problem_file_passes_the_law_of_the_gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my_layer.py"
    assert main(["new", str(path)]) == DONE
    assert f"opteq verify {path}" in capsys.readouterr().out
    small = ["--size", "inputs=4", "--size", "units=5"]
    assert main(["verify", str(path), *small, "--samples", "2"]) == DONE
    assert main(["explain", str(path), *small]) == DONE
    assert "My layer: u* = argmin" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"), [("mine.txt", "not a Python file name"), ("there.py", "exists"), ("no/where.py", "no folder")]
)
def test_new_never_writes_over_a_file(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.py").write_text("precious")
    assert main(["new", str(tmp_path / name)]) == MISTAKE
    assert words in capsys.readouterr().err
    assert (tmp_path / "there.py").read_text() == "precious"


def test_bench_reports_times_and_accuracy_at_each_batch(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["bench", UNIT, *SMALL, "--batches", "1", "3", "--repeats", "2", "--json"])
    assert code == DONE
    found = parsed(capsys)
    assert [row["batch"] for row in found["rows"]] == [1, 3]  # type: ignore[index]
    assert all(row["converged"] == 1.0 and row["forward"][0] > 0 for row in found["rows"])  # type: ignore[index]
    assert found["error"] < 1e-6  # type: ignore[operator]
    assert found["solver"] > 0  # type: ignore[operator]


def test_bench_leaves_the_problem_as_it_was() -> None:
    from opteq_cvx.bench import bench
    from opteq_cvx.compile import compile as compile_problem
    from opteq_cvx.problem_file import read_problem

    file = read_problem(UNIT)
    problem, inputs, outputs = file.declare(inputs=4, hidden=5)
    layer = compile_problem(problem, inputs, outputs)
    before = {p.name(): None if p.value is None else np.array(p.value) for p in problem.parameters()}
    state = {k: v.clone() for k, v in layer.state_dict().items()}
    import torch

    bench(
        layer,
        lambda n: file.sample(n, torch.Generator().manual_seed(0), inputs=4, hidden=5),
        batches=[2],
        repeats=1,
        checked=1,
    )
    for parameter in problem.parameters():
        old = before[parameter.name()]
        assert parameter.value is None if old is None else np.array_equal(parameter.value, old)
    assert all((state[k] == v).all() for k, v in layer.state_dict().items())
    assert all(p.grad is None for p in layer.parameters())
