"""TF32 is off while a solve on a CUDA device runs, and the flags come back; the device itself is feigned here."""

import threading
from collections.abc import Iterator

import cvxpy as cp
import pytest
import torch

import opteq_cvx as oc
from opteq_cvx import precision


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def feigned(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[bool, bool]]:
    """Every device counts as a CUDA device; both flags are on."""
    old = flags()
    monkeypatch.setattr(precision, "needed", lambda device, dtype, tolerance: tolerance < precision.LOOSE)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield flags()
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = old


@pytest.mark.parametrize(
    ("device", "dtype", "tolerance", "wanted"),
    [
        ("cuda", torch.float32, 1e-4, True),
        ("cuda", torch.float32, 1e-2, False),
        ("cuda", torch.float64, 1e-4, False),
        ("cpu", torch.float32, 1e-4, False),
    ],
)
def test_where_it_is_needed(device: str, dtype: torch.dtype, tolerance: float, wanted: bool) -> None:
    assert precision.needed(torch.device(device), dtype, tolerance) is wanted


def layer() -> oc.EquilibriumLayer:
    x, W, u = oc.Input(3, name="x"), oc.Weight((3, 3), name="W", norm=0.9), cp.Variable(3, name="u")
    cost = 0.5 * cp.quad_form(u, cp.psd_wrap(torch.eye(3).numpy() - W @ W.T)) - x @ u
    return oc.compile(cp.Problem(cp.Minimize(cost), [u >= 0]))


def test_flags_are_off_in_forward_and_backward(feigned: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []
    product = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *a, **k: seen.append(flags()) or product(*a, **k))
    tight = layer()
    x = torch.randn(4, 3, requires_grad=True)
    (u,) = tight(x)
    assert (False, False) in seen
    assert flags() == feigned
    seen.clear()
    solve = torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a, **k: seen.append(flags()) or solve(*a, **k))
    u.square().sum().backward()
    assert (False, False) in seen
    assert flags() == feigned
    seen.clear()
    tight(x, tolerance=1e-2)
    assert set(seen) <= {feigned}


def test_an_error_inside_puts_them_back(feigned: tuple[bool, bool]) -> None:
    def inside() -> None:
        with precision.full_precision(torch.ones(1), 1e-6):
            assert flags() == (False, False)
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        inside()
    assert flags() == feigned


def test_the_last_thread_out_puts_them_back(feigned: tuple[bool, bool]) -> None:
    """Two threads whose solves overlap: when the first leaves, the other is still inside."""
    entered, leave, found = threading.Event(), threading.Event(), []

    def other() -> None:
        with precision.full_precision(torch.ones(1), 1e-6):
            entered.set()
            leave.wait(10)
            found.append(flags())

    with precision.full_precision(torch.ones(1), 1e-6):
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
    assert flags() == (False, False)
    leave.set()
    thread.join(10)
    assert found == [(False, False)]
    assert flags() == feigned


def test_flags_set_by_name_are_kept(feigned: tuple[bool, bool]) -> None:
    """torch refuses a mix of its two ways to set them: those of the user decide."""
    kinds = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    old = [kind.fp32_precision for kind in kinds]
    try:
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        torch.backends.cudnn.rnn.fp32_precision = "ieee"
        with pytest.raises(RuntimeError, match="different TF32 flags"):
            flags()
        with precision.full_precision(torch.ones(1), 1e-6):
            assert [kind.fp32_precision for kind in kinds] == ["ieee", "ieee"]
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    finally:
        for kind, value in zip(kinds, old, strict=True):
            kind.fp32_precision = value
        torch.backends.cudnn.rnn.fp32_precision = "tf32"
        torch.backends.cudnn.allow_tf32 = True


@pytest.mark.gpu
def test_a_convolution_converges_below_tf32_on_a_device() -> None:
    x, K, u = (
        oc.Input((2, 8, 8), name="x"),
        oc.Weight((2, 2, 3, 3), name="K", norm=0.9),
        cp.Variable((2, 8, 8), name="u"),
    )
    cost = 0.5 * cp.sum_squares(oc.conv2d(u, K, padding="same") - x) + 0.05 * cp.sum_squares(u) + 0.01 * cp.norm1(u)
    exact = oc.compile(cp.Problem(cp.Minimize(cost)), tolerance=1e-10).double()
    data = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fast = oc.compile(cp.Problem(cp.Minimize(cost)), tolerance=1e-5)
    fast.load_state_dict(exact.state_dict())
    solution = fast.float().cuda().solve(data.float().cuda())
    assert solution.status.all_converged
    torch.testing.assert_close(solution.values[0].double().cpu(), exact(data)[0], rtol=1e-3, atol=1e-3)
