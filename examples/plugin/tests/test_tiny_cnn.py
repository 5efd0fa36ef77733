"""The package's net by its name."""

import torch
from xcam_example import TinyCNN

import xcam


def test_net_is_loaded_and_explained_by_its_name():
    net = xcam.models.load("example:tiny_cnn", num_classes=4)
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    assert type(net.model) is TinyCNN
    explanation = xcam.explain(net, images, 1, method="cam")
    with torch.no_grad():
        logits = net(images)
        assert torch.equal(logits, net.model(images))  # pixels as they are
    biased = explanation.raw.mean((1, 2)) + net.model.fc.bias[1].detach()
    torch.testing.assert_close(biased, logits[:, 1])
