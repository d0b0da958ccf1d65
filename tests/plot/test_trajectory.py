"""Trajectories and what is drawn of them, against the theory: energies fall, spectra are those of the map."""

import cvxpy as cp
import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import opteq_cvx as oc
from opteq_cvx.errors import InputError
from opteq_cvx.plot import active_sets, convergence, path, program_graph, spectrum, trajectory, verified_report

mpl.use("agg")
P = np.array([[0.9, 0.3], [0.3, 0.5]])


@pytest.fixture
def axes() -> Axes:
    """Axes outside pyplot's books."""
    return Figure().subplots()


def labelled(axes: Axes) -> dict[str, np.ndarray]:
    """The x and y data of the lines with a label, stacked."""
    return {str(line.get_label()): np.stack([line.get_xdata(), line.get_ydata()]) for line in axes.get_lines()}


def quadratic() -> oc.EquilibriumLayer:
    """min ½uᵀPu − xᵀu over u ≥ 0, by forward–backward."""
    x, u = oc.Input(2, name="x"), cp.Variable(2, nonneg=True, name="u")
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(u, P) - x @ u))
    return oc.compile(problem, [x], [u], splitting="forward-backward").double()


def test_a_trajectory_is_the_plain_iteration_and_ends_at_the_solution() -> None:
    layer = quadratic()
    x = torch.tensor([[1.0, 0.2], [-0.3, 0.8], [-1.0, -1.0]], dtype=torch.float64)
    found = trajectory(layer, x, steps=200)
    assert found.states.shape == (201, 3, 2)
    torch.testing.assert_close(found.variables[-1], layer(x, tolerance=1e-12)[0], atol=1e-9, rtol=0)
    torch.testing.assert_close(found.states[0], torch.zeros(3, 2, dtype=torch.float64))


def test_all_residuals_vanish_and_the_gap_bounds_the_energy() -> None:
    layer = quadratic()
    x = torch.tensor([[1.0, 0.2], [-0.3, 0.8]], dtype=torch.float64)
    found = trajectory(layer, x, steps=300)
    assert list(found.residuals) == ["fixed point", "primal", "dual", "gap"]
    assert all(r.shape == (301, 2) for r in found.residuals.values())
    assert all(float(r[-1].abs().max()) < 1e-10 for r in found.residuals.values())
    energies = torch.stack([found.energy(b)(found.variables[:, b]) for b in range(2)], dim=1)
    assert bool((energies.diff(dim=0) < 1e-12).all())
    after = energies[1:] - energies[-1]  # the gap of a step is that of the point the prox returned
    assert bool((found.residuals["gap"][:-1] >= after - 1e-9).all())


def test_the_energy_is_the_objective_and_infinite_outside() -> None:
    x = torch.tensor([1.0, 0.2], dtype=torch.float64)
    energy = trajectory(quadratic(), x, steps=1).energy()
    points = torch.tensor([[0.5, 0.25], [-0.5, 0.25]], dtype=torch.float64)
    u = points[0].numpy()
    assert float(energy(points)[0]) == pytest.approx(0.5 * u @ P @ u - x.numpy() @ u)
    assert float(energy(points)[1]) == float("inf")


def test_the_spectrum_is_that_of_i_minus_p_on_the_active_set() -> None:
    layer = quadratic()
    x = torch.tensor([[1.0, 0.9], [1.0, -5.0]], dtype=torch.float64)  # both active, one active
    found = trajectory(layer, x, steps=300)
    assert bool((found.variables[-1, 0] > 0).all())
    assert float(found.variables[-1, 1, 1]) == 0.0
    step = (1 - found.spectrum()[1, 0].real) / P[0, 0]
    expected = np.sort(np.abs(1 - float(step) * np.linalg.eigvalsh(P)))[::-1]
    np.testing.assert_allclose(np.sort(found.spectrum()[0].abs().numpy())[::-1], expected, atol=1e-12)
    assert float(found.spectrum()[1, 1].abs()) == 0.0


def test_the_spectrum_is_the_rate_that_is_seen() -> None:
    found = trajectory(quadratic(), torch.tensor([1.0, 0.9], dtype=torch.float64), steps=60)
    r = found.residuals["fixed point"][:, 0]
    assert float(r[30] / r[29]) == pytest.approx(float(found.spectrum()[0, 0].abs()), rel=1e-3)


def test_an_equilibrium_without_an_objective_has_no_energy() -> None:
    x = oc.Input(2, name="x")
    rotation = np.array([[0.0, 0.5], [-0.5, 0.0]])
    u, p = cp.Variable(2, name="u"), cp.Parameter(2, name="p")
    game = oc.tied(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(u) - (x + p) @ u), [u >= 0]), {p: rotation @ u})
    found = trajectory(oc.compile(game).double(), torch.ones(2, dtype=torch.float64), steps=40)
    assert list(found.residuals) == ["fixed point"]
    assert float(found.residuals["fixed point"][-1].max()) < 1e-6
    with pytest.raises(InputError, match="without an objective"):
        found.energy()


def test_a_trajectory_without_steps_is_refused() -> None:
    with pytest.raises(InputError, match="steps=0"):
        trajectory(quadratic(), torch.zeros(2, dtype=torch.float64), steps=0)


def test_convergence_draws_every_residual_and_names_zeros(axes: Axes) -> None:
    rows = {"fixed point": np.array([[1.0, 4.0, 2.0], [0.0, 0.0, 0.0]]), "primal": np.zeros((2, 3)), "gap": [1.0, 0.5]}
    assert convergence(rows, tolerance=0.1, axes=axes) is axes
    drawn = labelled(axes)
    np.testing.assert_allclose(drawn["fixed point"], [[0, 1], [2.0, np.nan]])
    assert drawn["primal: zero"].size == 0
    np.testing.assert_allclose(drawn["gap"][1], [1.0, 0.5])
    assert axes.get_yscale() == "log"
    assert len(axes.collections) == 1
    with pytest.raises(InputError, match=r"'gap' has shape \(1, 1, 1\)"):
        convergence({"gap": np.ones((1, 1, 1))}, axes=axes)
    with pytest.raises(InputError, match="no residuals"):
        convergence({}, axes=axes)


def test_a_path_lies_on_level_sets(axes: Axes) -> None:
    points = np.array([[0.0, 0.0], [0.5, 0.2], [0.6, 0.3]])
    path(points, lambda p: torch.where(p[:, 0] < 0, torch.inf, p.square().sum(1)), names=("a", "b"), axes=axes)
    np.testing.assert_allclose(labelled(axes)["iterates"], points.T)
    np.testing.assert_allclose(labelled(axes)["end"][:, 0], points[-1])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")
    assert len(axes.collections) == 2  # the ground outside, and the levels
    assert axes.get_xlim()[0] < 0 < 0.6 < axes.get_xlim()[1]


def test_several_paths_and_none_without_two_entries(axes: Axes) -> None:
    path(np.zeros((4, 2, 2)) + np.arange(4.0)[:, None, None], axes=axes)
    assert {"iterates, sample 0", "iterates, sample 1"} <= set(labelled(axes))
    with pytest.raises(InputError, match=r"\(4, 3\)"):
        path(np.zeros((4, 3)), axes=axes)


def test_real_spectra_are_ordered_and_complex_ones_in_the_plane() -> None:
    ordered = spectrum({"J": [0.2, 0.8, 0.5]}, bound=0.9, axes=Figure().subplots())
    np.testing.assert_allclose(labelled(ordered)["J"], [[1, 2, 3], [0.8, 0.5, 0.2]])
    assert "certified bound" in labelled(ordered)
    plane = spectrum({"J": np.array([0.5j, -0.5j])}, axes=Figure().subplots())
    np.testing.assert_allclose(labelled(plane)["J"], [[0, 0], [0.5, -0.5]])
    np.testing.assert_allclose(np.hypot(*labelled(plane)["unit circle"]), 1.0)
    with pytest.raises(InputError, match=r"\(2, 2\)"):
        spectrum({"J": np.ones((2, 2))})
    with pytest.raises(InputError, match="no eigenvalues"):
        spectrum({})


def test_active_sets_show_shares_sorted_by_the_end(axes: Axes) -> None:
    history = np.zeros((2, 4, 3))
    history[1, :2, 1], history[1, :, 2] = 5.0, -1.0
    assert active_sets(history, axes=axes) is axes
    np.testing.assert_allclose(axes.images[0].get_array(), [[0, 1], [0, 0.5], [0, 0]])
    assert active_sets(np.eye(3), axes=Figure().subplots()).images[0].get_array().shape == (3, 3)
    with pytest.raises(InputError, match=r"\(3,\)"):
        active_sets(np.ones(3), axes=axes)


def test_a_program_graph_names_everything_and_draws_ties_back(axes: Axes) -> None:
    x, W = oc.Input(3, name="x"), oc.Weight((4, 4), name="W", norm=0.9)
    unit = oc.unit(W, np.ones((4, 3)) @ x, "relu", name="u")
    shown = oc.explain(unit)
    program_graph(shown.plan.source, axes=axes)
    texts = {t.get_text() for t in axes.texts}
    assert {"x", "W", "u", *(t.atom for t in shown.plan.source.terms)} <= texts
    assert sum(t.arrow_patch is not None for t in axes.texts if hasattr(t, "arrow_patch")) == 2  # from u and from W
    legend = axes.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["weight", "input", "term", "variable", "tied"]


def test_a_graph_without_axes_is_as_high_as_it_must_be() -> None:
    import matplotlib.pyplot as plt

    u = cp.Variable(2, name="u")
    few = program_graph(oc.explain(cp.Problem(cp.Minimize(cp.norm1(u)))).program)
    many = program_graph(oc.explain(cp.Problem(cp.Minimize(sum(cp.norm1(u - k) for k in range(12))))).program)
    assert few.figure.get_figheight() < many.figure.get_figheight()
    plt.close("all")


def test_a_report_is_drawn_with_both_references(axes: Axes) -> None:
    x = torch.tensor([[1.0, 0.9], [0.4, 0.3]], dtype=torch.float64)
    report = oc.verify(quadratic(), x)
    verified_report(report, axes)
    drawn = labelled(axes)
    np.testing.assert_allclose(drawn["values"][1], [max(r.distance, 1e-17) for r in report.samples])
    assert "gradients, by differences" in drawn
