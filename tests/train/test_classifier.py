"""The classifier: how features become the layer's inputs and outputs become logits."""

from pathlib import Path

import cvxpy as cp
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import opteq_cvx as oc
from opteq_cvx.errors import InputError
from opteq_cvx.layer import EquilibriumLayer
from opteq_cvx.train import load_data
from opteq_cvx.train.classifier import LAYER, WEIGHTS, Classifier
from problems import conv_opteq


@pytest.fixture
def layer() -> EquilibriumLayer:
    """z* = max(a + D, 0) and its sum s* = Σ z*, with a (3,) and D (3,) two inputs: known in closed form."""
    a, d, z = oc.Input(3, name="a"), oc.Input((3,), name="d"), cp.Variable((3,), name="z")
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - a - d)), [z >= 0])
    return oc.compile(problem, outputs=[z, cp.sum(z)])


def test_features_are_dealt_to_the_inputs_in_order(layer: EquilibriumLayer) -> None:
    model = Classifier(layer, features=6, classes=2)
    assert isinstance(model.input_map, nn.Identity)
    x = torch.arange(12.0).reshape(2, 6)
    a, d = model.layer_inputs(x)
    assert a.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert d.tolist() == [[3, 4, 5], [9, 10, 11]]


def test_logits_read_all_outputs(layer: EquilibriumLayer) -> None:
    model = Classifier(layer, features=6, classes=2)
    x = torch.randn(5, 6)
    z = torch.relu(x[:, :3] + x[:, 3:])
    expected = torch.cat([z, z.sum(1, keepdim=True)], dim=1) @ model.read_out.weight.T + model.read_out.bias
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)


def test_another_number_of_features_gets_a_map(layer: EquilibriumLayer) -> None:
    model = Classifier(layer, features=9, classes=2)
    assert [tuple(p.shape) for p in model.input_map.parameters()] == [(6, 9), (6,)]
    model(torch.randn(4, 9)).sum().backward()
    assert float(model.input_map.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_standardizing_is_part_of_the_state(layer: EquilibriumLayer) -> None:
    model = Classifier(layer, features=6, classes=2)
    x = 5.0 + 2.0 * torch.randn(100, 6)
    model.standardize(x)
    seen = torch.cat(model.layer_inputs(x), dim=1)
    torch.testing.assert_close((seen.mean(), seen.std()), (torch.tensor(0.0), torch.tensor(1.0)), atol=1e-5, rtol=1e-5)
    assert {"mean", "scale"} <= set(model.state_dict())


def test_normalized_outputs_have_mean_zero_and_variance_one(layer: EquilibriumLayer) -> None:
    """Of each entry over the batch while training, the running statistics afterwards; the closed-form z*, s* apart."""
    model = Classifier(layer, features=6, classes=2, normalize=True)
    x = 3.0 * torch.randn(50, 6) + 1.0
    z = torch.relu(x[:, :3] + x[:, 3:])
    seen = torch.cat([z, z.sum(1, keepdim=True)], dim=1)
    deviation = seen.std(0, unbiased=False)

    def logits(features: torch.Tensor) -> torch.Tensor:
        return features @ model.read_out.weight.T + model.read_out.bias

    torch.testing.assert_close(model(x), logits((seen - seen.mean(0)) / deviation), atol=1e-4, rtol=1e-4)
    for _ in range(200):
        model(x)
    model.eval()
    whole = logits((seen - seen.mean(0)) / seen.std(0))
    torch.testing.assert_close(model(x[:1]), whole[:1], atol=1e-3, rtol=1e-3)


def test_channels_of_images_are_normalized_over_their_places() -> None:
    torch.manual_seed(0)
    layer = oc.compile(*conv_opteq.declare(pixels=8, channels=3), tolerance=1e-6)
    model, x = Classifier(layer, features=64, classes=2, pool=2, normalize=True), torch.randn(20, 64)
    (u,) = layer(x.reshape(20, 1, 8, 8))
    flat = u.detach().transpose(0, 1).reshape(3, -1)
    normal = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    images = normal.reshape(3, 20, 4, 4).transpose(0, 1)
    features = images.reshape(20, 3, 2, 2, 2, 2).mean((3, 5)).reshape(20, -1)
    expected = features @ model.read_out.weight.T + model.read_out.bias
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-4)


def test_one_sample_is_normalized_by_running_statistics(layer: EquilibriumLayer) -> None:
    """The last batch of an epoch may hold one sample; the whole loop must not end there."""
    model, x = Classifier(layer, features=6, classes=2, normalize=True), torch.randn(9, 6)
    model(x)
    alone = model(x[:1])
    torch.testing.assert_close(alone, model.eval()(x[:1]))


def test_an_image_and_its_mirror_image_share_their_probabilities() -> None:
    """The mean of both, each by the model without `mirror`; in training each image is seen alone."""
    torch.manual_seed(0)
    layer = oc.compile(*conv_opteq.declare(inputs=3, pixels=6, channels=2), tolerance=1e-6)
    plain = Classifier(layer, features=108, classes=4)
    model = Classifier(layer, features=108, classes=4, mirror=(3, 6, 6))
    model.load_state_dict(plain.state_dict())
    x = torch.randn(5, 108)
    other = torch.stack([image[:, :, [5, 4, 3, 2, 1, 0]] for image in x.reshape(5, 3, 6, 6)]).reshape(5, 108)
    torch.testing.assert_close(model.train()(x), plain(x))
    probabilities = model.eval()(x).exp()
    torch.testing.assert_close(probabilities, (plain(x).softmax(1) + plain(other).softmax(1)) / 2)
    torch.testing.assert_close(probabilities, model(other).exp())


def test_the_shape_of_mirrored_images_is_checked(layer: EquilibriumLayer) -> None:
    with pytest.raises(InputError, match=r"mirror=\(1, 2, 2\), images of 4 numbers, and samples of 6"):
        Classifier(layer, features=6, classes=2, mirror=(1, 2, 2))


def test_constant_samples_do_not_divide_by_zero(layer: EquilibriumLayer) -> None:
    model = Classifier(layer, features=6, classes=2)
    model.standardize(torch.ones(10, 6))
    assert bool(torch.isfinite(model(torch.ones(2, 6))).all())


def test_a_program_without_inputs_is_refused() -> None:
    z = cp.Variable(2, name="z")
    layer = oc.compile(cp.Problem(cp.Minimize(cp.sum_squares(z - 1))))
    with pytest.raises(InputError, match="no input"):
        Classifier(layer, features=2, classes=2)


@pytest.mark.parametrize("normalize", [False, True])
def test_what_is_saved_is_the_whole_classifier(layer: EquilibriumLayer, tmp_path: Path, normalize: bool) -> None:
    model = Classifier(layer, features=6, classes=2, normalize=normalize)
    x = torch.randn(5, 6)
    model(2 * x)
    model.eval().save(tmp_path / "new")
    again = Classifier(oc.load(tmp_path / "new" / LAYER), features=6, classes=2, normalize=normalize).eval()
    again.load_state_dict(load_file(tmp_path / "new" / WEIGHTS), strict=True)
    torch.testing.assert_close(again(x), model(x))


def test_a_trained_convolutional_layer_is_still_the_exact_solution() -> None:
    """Trained in float32 at a loose tolerance, then held against the exact solver in float64, on images of a size of
    their own: a kernel knows no image size."""
    data, sizes = load_data("digits"), {"channels": 3}
    torch.manual_seed(0)
    layer = oc.compile(*conv_opteq.declare(pixels=8, **sizes), tolerance=1e-2)
    model = Classifier(layer, features=64, classes=10, pool=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = model.layer.weights.value("K").detach().clone()
    for rows in torch.arange(640).split(64):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(data.train.x[rows]), data.train.y[rows]).backward()
        optimizer.step()
    assert float((model.layer.weights.value("K") - before).detach().norm()) > 0.1
    checked = oc.compile(*conv_opteq.declare(pixels=7, **sizes), tolerance=1e-9)
    checked.load_state_dict(layer.state_dict())
    images = data.test.x[:4].reshape(4, 1, 8, 8)[:, :, 1:, 1:].double()
    report = oc.verify(checked.double(), images, gradients=False)
    assert report.ok
    assert report.max_error <= 1e-6
