"""Which rows a prox couples, of every atom, and what they share."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opteq_cvx.atoms import Atom, registry
from opteq_cvx.splitting.groups import Rows, least_of, mean_of, shared, top_of
from opteq_cvx.verify.law_tools import lead, normal, steps
from opteq_cvx.verify.spelled import cases

NUMPY = {top_of: np.max, least_of: np.min, mean_of: np.mean}


@pytest.mark.parametrize("cls", registry(), ids=lambda cls: cls.name)
def test_a_group_knows_no_other(cls: type[Atom]) -> None:
    """There is a group for each step that the contract has; it is the same whatever the others' steps and points."""
    for case in cases(cls):
        rows = Rows.of(case.atom, np.arange(np.prod(case.event, dtype=int)).reshape(case.event))
        assert rows.first.shape == tuple(case.reduced)
        v, step, data = normal(case, (1,)), steps(case, (1,)), lead(case.data, 1)
        mixed = case.atom.prox(v, step, data)
        groups, own = rows.grouped(torch.arange(v.numel()).reshape(case.event)), step.reshape(-1)
        assert groups.shape[0] == own.numel()
        for number in range(0, own.numel(), max(1, own.numel() // 4)):
            elsewhere = v.flatten() + torch.linspace(1.0, 2.0, v.numel(), dtype=v.dtype)
            elsewhere[groups[number]] = v.flatten()[groups[number]]
            alone = case.atom.prox(elsewhere.reshape(v.shape), 0.0 * step + own[number], data)
            torch.testing.assert_close(
                alone.flatten()[groups[number]], mixed.flatten()[groups[number]], rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("by", NUMPY, ids=lambda by: by.__name__)
@given(data=st.data())
def test_what_groups_share(by: object, data: st.DataObject) -> None:
    """Against a loop over groups, on rows in order and in any other."""
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    axes = tuple(a for a in range(-len(shape), 0) if data.draw(st.booleans()))
    count, rng = int(np.prod(shape)), np.random.default_rng(data.draw(st.integers(0, 99)))
    places = np.arange(count) + 2 if data.draw(st.booleans()) else rng.permutation(count + 3)[:count]
    rows = Rows(places.reshape(shape), axes)
    x = rng.normal(size=(2, count + 3))
    found = shared(torch.tensor(x), [rows] if rows.width > 1 else [], by).numpy()  # type: ignore[arg-type]
    expected = x.copy()
    for group in rows.grouped(torch.tensor(rows.index.copy())).numpy():
        expected[:, group] = NUMPY[by](x[:, group], axis=1, keepdims=True)  # type: ignore[call-overload]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert rows.first.size * rows.width == count
