"""A compiled model runs compiled wherever no hook has to be called inside it."""

import pytest
import torch

import xcam
from xcam.models.toy import SmallCNN

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def compiled():
    """A compiled net, and how many images went through its compiled code, chunk by chunk."""
    sizes = []

    def count(graph, _example):
        def run(*inputs):
            images = (t for t in inputs if isinstance(t, torch.Tensor) and t.shape[-1] == 16)
            sizes.append(len(next(images)))
            return graph.forward(*inputs)

        return run

    torch.compiler.reset()
    yield torch.compile(SmallCNN().requires_grad_(False), backend=count, dynamic=True), sizes
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("method", "params", "passes"),
    [
        ("rise", {"n_masks": 12}, 2 * 13),
        ("sobel", {}, 2),
    ],
)
def test_methods_without_layers_and_gradients_run_compiled_code_alone(
    compiled, method, params, passes
):
    model, sizes = compiled
    found = xcam.explain(model, IMAGES, 1, method, **params)
    assert sum(sizes) == passes
    plain = xcam.explain(SmallCNN(), IMAGES, 1, method, **params)
    torch.testing.assert_close(found.raw, plain.raw, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", ["insertion", "average_drop", "irof"])
def test_metrics_run_compiled_code_alone(compiled, metric):
    model, sizes = compiled
    explanation = xcam.explain(SmallCNN(), IMAGES, 1, "gradcam")
    score = xcam.get_metric(metric)()
    expected = score(SmallCNN(), IMAGES, explanation)
    sizes.clear()
    torch.testing.assert_close(score(model, IMAGES, explanation), expected, rtol=1e-4, atol=1e-5)
    assert sum(sizes) >= 2


@pytest.mark.parametrize("method", ["gradcam", "eigencam", "saliency", "smoothgrad"])
def test_layers_and_gradients_are_read_eagerly(compiled, method):
    """Compiled code calls no hooks, and its backward pass would first be compiled, for minutes."""
    model, sizes = compiled
    found = xcam.explain(model, IMAGES, 1, method)
    assert sum(sizes) <= len(IMAGES)  # the clean pass of methods that add noise
    torch.testing.assert_close(found.raw, xcam.explain(SmallCNN(), IMAGES, 1, method).raw)
