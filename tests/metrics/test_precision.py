"""Metrics on a device that has no float64."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import xcam
from xcam.metrics import precision
from xcam.metrics.precision import find_finest_dtype, to_finest, to_result
from xcam.models.toy import LinearNet
from xcam.testing import quick
from xcam.testing.metric_subject import MetricSubject

# Their kernel is made on the host, in float64, and moved to the device as what the images are.
ON_THE_HOST = ["deletion", "insertion"]


class NoFloat64(TorchDispatchMode):
    """Refuses every tensor of doubles, as Apple's Metal does."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64:
                raise TypeError(f"{function} made a tensor in float64, which this device lacks")
        return found


def test_float64_wherever_there_is_any():
    kinds = {name: find_finest_dtype(torch.device(name)) for name in ("cpu", "cuda", "xpu", "mps")}
    assert kinds.pop("mps") == torch.float32
    assert set(kinds.values()) == {torch.float64}
    assert to_finest(torch.ones(2)).dtype == torch.float64


@pytest.mark.parametrize("name", [n for n in xcam.list_metrics() if n not in ON_THE_HOST])
def test_no_metric_needs_it(name, monkeypatch):
    metric = quick(xcam.get_metric(name)())
    subject = MetricSubject(metric)
    case = subject.build_case()
    expected = subject.run(case)
    monkeypatch.setattr(precision, "find_finest_dtype", lambda device: torch.float32)
    with NoFloat64():
        with pytest.raises(TypeError, match="which this device lacks"):
            torch.ones(2).double()
        rows = subject.run(case)
        result = metric.finish(rows.mean(0))
        metric.curve(rows.mean(0))
    assert rows.dtype == result.dtype == torch.float32
    size = expected.abs().amax().item() if expected.numel() else 0
    assert_close(rows, expected.float(), atol=1e-5 * max(1, size), rtol=1e-4)


def test_results_are_no_coarser_than_float32():
    net, images = LinearNet((1, 8, 8)).bfloat16(), torch.rand(2, 1, 8, 8).bfloat16()
    explanation = xcam.explain(net, images, 1, "saliency")
    correlations = ("faithfulness_correlation", "sensitivity_n", "faithfulness_estimate")
    for name in (*correlations, "sic", "completeness", "non_sensitivity", "monotonicity"):
        rows = quick(xcam.get_metric(name)()).score(net, images, explanation)
        assert rows.dtype == torch.float32
    assert to_result(torch.ones(1), images.double()).dtype == torch.float64
