"""Where a prox is flat, of a batch: what each row says by itself."""

import pytest
import torch

from opteq_cvx.atoms import atom


@pytest.mark.parametrize("batch", [(4,), (2, 3)], ids=str)
def test_kinks_of_hinges_in_a_batch_are_those_of_its_rows(batch: tuple[int, ...], generator: torch.Generator) -> None:
    """Three kinks for each of five entries: the axis along which they are sorted is none of the batch's."""
    draws = [torch.randn((*batch, 5), dtype=torch.float64, generator=generator) for _ in range(4)]
    v, places = draws[0], draws[1:]
    data = {f"c{k}": c for k, c in enumerate(places)} | {f"w{k}": torch.full_like(v, 0.5 + k) for k in range(3)}
    v[..., 0] = places[0][..., 0]  # on a kink
    step = torch.rand((*batch, 1), dtype=torch.float64, generator=generator)
    f = atom("hinges").from_static({"count": 3})
    whole = f.kinks(v, step, data)
    assert whole
    for i in range(v[..., 0].numel()):
        one = {k: d.reshape(-1, 5)[i] for k, d in data.items()}
        alone = f.kinks(v.reshape(-1, 5)[i], step.reshape(-1, 1)[i], one)
        for ours, theirs in zip(whole, alone, strict=True):
            torch.testing.assert_close(ours.reshape(-1, 5)[i], theirs, rtol=0, atol=0)
