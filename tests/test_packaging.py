"""The wheel as a user gets it: its files, its metadata, and an import from another folder."""

import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("opteq_cvx", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that the checkout stays as it is; `problems/` must be left out."""
    source = tmp_path_factory.mktemp("source")
    for name in (*SHIPPED, "problems"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=IGNORED)
        else:
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deprecat" not in (done.stdout + done.stderr).lower()
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """The paths inside the wheel."""
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """METADATA, parsed as the mail header it is."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(path).decode())


def test_the_wheel_holds_every_module_and_nothing_else(names: set[str]) -> None:
    inside = {n for n in names if ".dist-info/" not in n}
    expected = {
        str(path.relative_to(ROOT)) for path in (ROOT / "opteq_cvx").rglob("*") if path.suffix in {".py", ".typed"}
    }
    assert inside == expected
    assert "opteq_cvx/py.typed" in inside


def test_every_room_is_a_package() -> None:
    rooms = {p.parent for p in (ROOT / "opteq_cvx").rglob("*.py")}
    assert [str(r.relative_to(ROOT)) for r in rooms if not (r / "__init__.py").exists()] == []


def test_the_license_and_the_entry_point_are_shipped(wheel: Path, names: set[str]) -> None:
    assert any(n.endswith("/licenses/LICENSE") for n in names)
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (n for n in names if n.endswith("/entry_points.txt"))
        assert "opteq = opteq_cvx.cli:main" in archive.read(path).decode()


def test_metadata_says_what_setup_cfg_means(metadata: Message) -> None:
    import opteq_cvx

    assert metadata["Name"] == "opteq_cvx"
    assert metadata["Version"] == opteq_cvx.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    required = metadata.get_all("Requires-Dist") or []
    assert "torch>=2.6" in required
    assert any(r.startswith("cvxpy<1.10,>=1.9.3") for r in required)
    assert set(metadata.get_all("Provides-Extra") or []) == {
        "reference", "train", "plot", "notebooks", "docs", "bench", "dev",
    }  # fmt: skip


def test_the_installed_wheel_imports_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*install, str(wheel)], check=True, timeout=120)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import opteq_cvx as oc\n"
        f"assert oc.__file__.startswith({str(target)!r}), oc.__file__\n"
        "assert issubclass(oc.CompileError, oc.OpteqError)\n"
        "from opteq_cvx.cli import main\n"
        "main(['--help'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "usage: opteq" in done.stdout
