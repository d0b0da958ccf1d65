"""The command `opteq`: start, explain, verify, train and time problem files, list the atoms, run the demonstration.

Exit codes: 0 done and every claim holds, 1 a claim failed, 2 a mistake in call or problem, 130 interrupted.
Heavy imports happen inside the commands: `opteq --help` needs neither torch nor CVXPY.
"""

import argparse
import json
import os
import shutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opteq_cvx import __version__
from opteq_cvx.errors import InputError, OpteqError, message
from opteq_cvx.folding import fold
from opteq_cvx.problem_file import ProblemFile, read_problem

if TYPE_CHECKING:
    from opteq_cvx.train import DeviceOptions, TrainOptions

DONE, CLAIM_FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
CODES = "Exit codes: 0 done and every claim holds, 1 a claim failed, 2 a mistake in call or problem, 130 interrupted."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with _watched(options):
            return int(options.command(options))
    except OpteqError as error:
        if options.traceback:
            raise
        print(f"opteq: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read us, `head` for example, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # of the problem file, or of a library under us
        if options.traceback:
            raise
        print(f"opteq: {_located(error)}. --traceback shows the way there", file=sys.stderr)
        return MISTAKE


def explain(options: argparse.Namespace) -> int:
    """Print what the compiler makes of a problem."""
    from opteq_cvx.compile import explain as explain_problem

    file, sizes = _problem(options)
    explanation = explain_problem(*file.declare(**sizes), trace=options.trace)
    if options.json:
        plan = explanation.plan
        _emit(
            {
                "problem": file.name,
                "source": file.source,
                "program": explanation.stages[0][1],
                "plan": plan.name,
                "latex": plan.latex,
                "lines": [*map(list, plan.lines)],
            }
        )
    else:
        head = fold(f"{file.name}: {file.summary}\nSource: {file.source}", _width())
        print(f"{head}\n\n{fold(str(explanation), _width())}")
    return DONE


def verify(options: argparse.Namespace) -> int:
    """Check equilibria and gradients of a problem against exact solvers."""
    import torch

    from opteq_cvx.compile import compile as compile_problem
    from opteq_cvx.verify import verify as verify_layer

    file, sizes = _problem(options)
    layer = compile_problem(*file.declare(**sizes))
    generator = torch.Generator().manual_seed(options.seed)
    inputs = file.sample(options.samples, generator, **sizes)
    gradients = not options.no_gradients
    report = verify_layer(layer, *inputs, gradients=gradients, tolerance=options.tolerance)
    if options.json:
        _emit({"problem": file.name, **report.to_dict()})
    else:
        print(f"{file.name}: {file.summary}\n\n{report}")
    return DONE if report.ok else CLAIM_FAILED


def train(options: argparse.Namespace) -> int:
    """Train a classifier around a problem; write weights and metrics."""
    import torch

    from opteq_cvx.compile import compile as compile_problem
    from opteq_cvx.train import Classifier, load_data
    from opteq_cvx.train import train as train_model

    file, sizes = _problem(options)
    data = load_data(options.data, options.data_dir, per_class=options.per_class)
    if options.mirror and data.image is None:
        found = f"--mirror and samples of {data.name}, which are not images"
        raise InputError(message(found, "images", "drop --mirror"))
    torch.manual_seed(options.seed)
    layer = compile_problem(*file.declare(**sizes), tolerance=options.tolerance)
    how = {"pool": options.pool, "normalize": options.normalize, "mirror": data.image if options.mirror else None}
    model = Classifier(layer, features=data.features, classes=data.classes, **how)
    model.standardize(data.train.x)
    run = train_model(
        model,
        data,
        options.out,
        options=_train_options(options, data.image),
        devices=_device_options(options),
        resume=options.resume,
        progress=not options.json,
    )
    if not run.interrupted:
        model.save(options.out)
    result = {"test_accuracy": run.test_accuracy, "epochs": len(run.rows), "interrupted": run.interrupted}
    if options.json:
        _emit({"problem": file.name, "data": data.name, "out": str(options.out), **result})
    elif run.interrupted:
        print(f"interrupted; go on with --resume --out {options.out}")
    else:
        print(f"{file.name} on {data.name}: {run.test_accuracy:.2%} of the test samples; see {options.out}")
    return INTERRUPTED if run.interrupted else DONE


def bench(options: argparse.Namespace) -> int:
    """Time a problem's layer at several batch sizes, beside an exact solver."""
    import torch

    from opteq_cvx.bench import bench as measure
    from opteq_cvx.compile import compile as compile_problem

    file, sizes = _problem(options)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    layer = compile_problem(*file.declare(**sizes), tolerance=options.tolerance)
    layer = layer.to(getattr(torch, options.dtype)).to(options.device)

    def draw(n: int) -> tuple[torch.Tensor, ...]:
        return file.sample(n, torch.Generator().manual_seed(options.seed), **sizes)

    found = measure(layer, draw, batches=options.batches, repeats=options.repeats)
    if options.json:
        _emit({"problem": file.name, **found.to_dict()})
    else:
        print(f"{file.name}: {file.summary}\n\n{found}")
    return DONE


def new(options: argparse.Namespace) -> int:
    """Write a problem file to start from; never over another file."""
    from opteq_cvx.scaffold import scaffold

    path = scaffold(options.path)
    if options.json:
        _emit({"path": str(path)})
    else:
        print(f"wrote {path}. Next:\n  opteq explain {path}\n  opteq verify {path}\n  opteq train {path}")
    return DONE


def atoms(options: argparse.Namespace) -> int:
    """List the functions with a prox of their own."""
    from opteq_cvx.atoms.table import markdown, rows

    if options.json:
        _emit([{"name": r.name, "formula": r.formula, "spellings": list(r.spellings)} for r in rows()])
    else:
        print(markdown(), end="")
    return DONE


def demo(options: argparse.Namespace) -> int:
    """Check the README's claims on this machine."""
    import torch

    from opteq_cvx.demo import demonstrate

    torch.set_num_threads(1)  # its matrices are small: more threads only wait for each other
    say = (lambda text: None) if options.json else print
    claims = demonstrate(read_problem(options.problem), options.out, say=say)
    held = all(claim.holds for claim in claims)
    if options.json:
        _emit({"ok": held, "claims": [{"text": c.text, "holds": c.holds} for c in claims]})
    return DONE if held else CLAIM_FAILED


def _problem(options: argparse.Namespace) -> tuple[ProblemFile, dict[str, int]]:
    """The problem file and the sizes given for it."""
    file = read_problem(options.problem)
    return file, file.checked(dict(options.size))


def _train_options(options: argparse.Namespace, image: tuple[int, int, int] | None) -> "TrainOptions":
    from opteq_cvx.train import Cosine, OneCycle, TrainOptions

    schedule = {"cosine": Cosine, "onecycle": OneCycle}[options.schedule](peak=options.rate)
    return TrainOptions(
        epochs=options.epochs,
        batch_size=options.batch_size,
        schedule=schedule,
        seed=options.seed,
        shift=options.shift,
        flip=options.flip,
        image=image,
    )


def _device_options(options: argparse.Namespace) -> "DeviceOptions":
    from opteq_cvx.train import DeviceOptions

    return DeviceOptions(accelerator=options.accelerator, devices=options.devices)


def _located(error: Exception) -> str:
    """An error with the file and the line that raised it."""
    words = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")
    if isinstance(error, SyntaxError):
        return words
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}, line {last.lineno}: {words}"


def _watched(options: argparse.Namespace) -> AbstractContextManager[None]:
    """A line about long solves, for people at a terminal."""
    if options.command not in (verify, bench) or options.json or not sys.stderr.isatty():
        return nullcontext()
    from opteq_cvx.progress import progress

    return progress()


def _width() -> int:
    """Columns of the terminal, within what is pleasant to read; 120 where there is none."""
    return min(max(shutil.get_terminal_size((120, 24)).columns, 60), 160)


def _emit(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2))


def _size(text: str) -> tuple[str, int]:
    """`name=number`, as argparse types it."""
    name, _, number = text.partition("=")
    if not name.isidentifier() or not number.isdigit() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=NUMBER with a positive number")
    return name, int(number)


def _accuracy(text: str) -> float:
    """A number between 0 and 1, as argparse types it."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value


def _positive(text: str) -> int:
    """A positive integer, as argparse types it."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive integer")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="opteq",
        description="Network layers declared as convex programs: explain, verify, train.",
        epilog=CODES + " `opteq COMMAND --help` has the options and an example of each command.",
    )
    parser.add_argument("--version", action="version", version=f"opteq_cvx {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    common.add_argument("--traceback", action="store_true", help="show where an error was raised")
    problem = argparse.ArgumentParser(add_help=False)
    problem.add_argument("problem", type=Path, metavar="PROBLEM", help="a problem file, for example problems/box_qp.py")
    problem.add_argument(
        "--size", type=_size, action="append", default=[], metavar="NAME=NUMBER", help="a size of the problem"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "explain",
        parents=[problem, common],
        help="show the program and its plan",
        description="Show the program as it was read, and the plan: which splitting, why it converges, what it costs.",
        epilog="Example: opteq explain problems/opteq_unit.py --size hidden=20 --trace",
    )
    command.add_argument("--trace", action="store_true", help="show the program after each pass")
    command.set_defaults(command=explain)

    command = commands.add_parser(
        "verify",
        parents=[problem, common],
        help="check against exact solvers",
        description="Compare equilibria and gradients at random inputs with exact solvers; exit code 1 if one differs.",
        epilog="Example: opteq verify problems/sparse_coding.py --samples 16",
    )
    command.add_argument("--samples", type=_positive, default=8, help="random inputs (default 8)")
    command.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    command.add_argument("--tolerance", type=_accuracy, default=1e-6, help="relative error that passes (default 1e-6)")
    command.add_argument("--no-gradients", action="store_true", help="check values only")
    command.set_defaults(command=verify)

    command = commands.add_parser(
        "train",
        parents=[problem, common],
        help="train a classifier around the layer",
        description="Train a classifier with the layer inside; write weights, metrics and a checkpoint to --out.",
        epilog="Example: opteq train problems/opteq_unit.py --data digits --out runs/digits",
    )
    names = "digits, mnist, fashion_mnist, cifar10 or NAME.npz (default digits)"
    command.add_argument("--data", default="digits", help=names)
    command.add_argument("--data-dir", type=Path, help="the folder with the files of --data")
    command.add_argument("--per-class", type=_positive, help="keep the first so many training samples of each class")
    command.add_argument("--out", type=Path, default=Path("runs"), help="folder of results (default runs)")
    command.add_argument("--epochs", type=_positive, default=20)
    command.add_argument("--batch-size", type=_positive, default=64)
    command.add_argument("--rate", type=float, default=3e-3, help="peak learning rate (default 0.003)")
    command.add_argument("--schedule", choices=("cosine", "onecycle"), default="cosine")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--tolerance", type=_accuracy, help="of the layer (default 1e-4; 1e-2 serves for training)")
    command.add_argument("--normalize", action="store_true", help="batch normalization of what the read-out sees")
    command.add_argument("--pool", type=_positive, help="average image outputs to POOL × POOL before the read-out")
    command.add_argument("--shift", type=int, default=0, help="move training images by up to SHIFT pixels (default 0)")
    command.add_argument("--flip", action="store_true", help="mirror half of the training images")
    command.add_argument("--mirror", action="store_true", help="in evaluation, average an image and its mirror image")
    command.add_argument("--accelerator", default="auto", help="auto, cpu or cuda, as Lightning Fabric has it")
    command.add_argument("--devices", type=_positive, default=1)
    command.add_argument("--resume", action="store_true", help="go on with the interrupted run in --out")
    command.set_defaults(command=train)

    command = commands.add_parser(
        "bench",
        parents=[problem, common],
        help="time the layer beside an exact solver",
        description="Time forward and backward at several batch sizes, and an exact solver for one sample.",
        epilog="Example: opteq bench problems/portfolio.py --batches 1 32 128",
    )
    command.add_argument("--batches", type=_positive, nargs="+", default=[1, 32, 128], help="samples in one call")
    command.add_argument("--repeats", type=_positive, default=15, help="timed calls for each (default 15)")
    command.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    command.add_argument("--device", default="cpu", help="cpu, cuda or another device of torch (default cpu)")
    command.add_argument("--threads", type=_positive, help="threads of torch (default its own choice)")
    command.add_argument("--tolerance", type=_accuracy, help="of the layer (default 1e-6 in float64, 1e-4 in float32)")
    command.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    command.set_defaults(command=bench)

    command = commands.add_parser(
        "new",
        parents=[common],
        help="write a problem file to start from",
        description="Write a small, complete problem file; never over another file.",
        epilog="Example: opteq new my_layer.py",
    )
    command.add_argument("path", type=Path, metavar="PATH", help="the file to write, for example problems/mine.py")
    command.set_defaults(command=new)

    command = commands.add_parser(
        "atoms",
        parents=[common],
        help="list the functions with a prox of their own",
        description="List the functions with a proximal map of their own, as a Markdown table.",
        epilog="Example: opteq atoms --json",
    )
    command.set_defaults(command=atoms)

    command = commands.add_parser(
        "demo",
        parents=[common],
        help="check the README's claims on this machine",
        description="Explain, verify, train on digits and verify again; say for each claim whether it holds here.",
        epilog="Example: opteq demo --out demo_out",
    )
    command.add_argument("problem", type=Path, nargs="?", default=Path("problems/opteq_unit.py"), metavar="PROBLEM")
    command.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of results (default demo_out)")
    command.set_defaults(command=demo)
    return parser


if __name__ == "__main__":
    sys.exit(main())
