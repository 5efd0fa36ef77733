"""ABN's branch against its formulas, with batch norms that have statistics and weights."""

import pytest
import torch
from torch import nn

from xcam.methods.trainable.abn import AttentionBranch


def norms(module):
    return [part for part in module if isinstance(part, nn.BatchNorm2d)]


def drawn(norm, channels=6, classes=4):
    """A branch without a stage; no batch norm of it is the identity."""
    torch.manual_seed(0)
    branch = AttentionBranch(nn.Identity(), channels, classes, norm).double()
    with torch.no_grad():
        for part in (*norms(branch.responses), *norms(branch.attention)):
            for values in (part.weight, part.running_var):
                values.uniform_(0.5, 2)
            for values in (part.bias, part.running_mean):
                values.normal_()
    return branch


def normed(maps, norm, training):
    """Less the mean, over the deviation, times the weight, plus the bias; all by channel."""
    mean, variance = norm.running_mean, norm.running_var
    if training:
        mean = maps.mean((0, 2, 3))
        variance = (maps - mean[:, None, None]).square().mean((0, 2, 3))
    scale, mean, bias = (
        values[:, None, None]
        for values in (norm.weight / (variance + norm.eps).sqrt(), mean, norm.bias)
    )
    return (maps - mean) * scale + bias


def formulas(branch, features, training):
    """A and the auxiliary logits."""
    *first, last = norms(branch.responses)
    for norm in first:
        features = normed(features, norm, training)
    (weight,) = (part.weight for part in branch.responses if isinstance(part, nn.Conv2d))
    scores = torch.einsum("kc,bchw->bkhw", weight[:, :, 0, 0], features)
    responses = normed(scores, last, training).clamp(min=0)
    height, width = responses.shape[2:]
    padded = nn.functional.pad(responses, (1, 1, 1, 1))
    (weight,) = (part.weight for part in branch.attention if isinstance(part, nn.Conv2d))
    sums = 0
    for i in range(3):
        for j in range(3):
            shifted = padded[:, :, i : i + height, j : j + width]
            sums = sums + torch.einsum("k,bkhw->bhw", weight[0, :, i, j], shifted)
    attention = 1 / (1 + (-normed(sums[:, None], *norms(branch.attention), training)).exp())
    weight = branch.auxiliary.weight[:, :, 0, 0]
    return attention, torch.einsum("jk,bkhw->bjhw", weight, responses).mean((2, 3))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_values_and_gradients(norm, training):
    """In evaluation by the running statistics, in training by the batch's; with slopes in all."""
    branch = drawn(norm).train(training)
    features = torch.randn(3, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    wanted = formulas(branch, features, training)
    found = branch(features)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)
    assert found[0].min() > 0
    assert found[0].max() < 1
    leaves = [features, *branch.parameters()]
    ramp = torch.arange(20.0).view(4, 5)
    gradients = [
        torch.autograd.grad((attention * ramp).sum() + auxiliary.square().sum(), leaves)
        for attention, auxiliary in (found, wanted)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.abs().sum() > 0
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_statistics_are_kept_of_what_is_normed():
    """Of the sums before the sigmoid, and the scores before the ReLU: both have negative values."""
    branch = drawn(norm=True).train()
    last = [norms(branch.responses)[-1], *norms(branch.attention)]
    for norm in last:
        norm.running_mean.zero_()
    with torch.no_grad():
        branch.responses[1].weight.copy_(-branch.responses[1].weight.abs())
        branch.attention[0].weight.copy_(-branch.attention[0].weight.abs())
        norms(branch.responses)[0].bias.fill_(9)  # all scores are below zero
        branch(torch.rand(3, 6, 4, 5, dtype=torch.float64))
    assert all((norm.running_mean < 0).all() for norm in last)
