"""Nets that run their layers in threads of their own."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nets import pictures
from torch import nn

import xcam
from xcam.engine.threads import calls_in_threads
from xcam.errors import LayerError
from xcam.models.toy import GapNet


class InPool(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = GapNet()

    def forward(self, images):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.net, images).result()


class InThread(InPool):
    """One that also needs values, which the meta device does not have."""

    def forward(self, images):
        found = []
        thread = threading.Thread(target=lambda: found.append(self.net(images)))
        thread.start()
        thread.join()
        return found[0] * (1 if images.sum().item() else 0)


@pytest.mark.parametrize("net", [InPool, InThread])
def test_net_in_a_thread_is_refused_in_a_true_sentence(net):
    model, images = net().eval(), pictures(2)
    for layer, what in ((None, "its layers"), ("net.features", "layer 'net.features'")):
        message = f"{net.__name__} runs {what} in a thread of its own, .* explain the module that"
        with pytest.raises(LayerError, match=message):
            xcam.explain(model, images, 1, layer=layer)
    expected = xcam.explain(model.net, images, 1, "rise", n_masks=8, seed=0)  # the remedy
    got = xcam.explain(model, images, 1, "rise", n_masks=8, seed=0)
    assert torch.equal(got.raw, expected.raw)


def test_net_of_this_thread_is_told_from_one_of_another():
    model, images = InPool().eval(), pictures(1)
    assert calls_in_threads(model, images)
    assert not calls_in_threads(model.net, images)
    assert not calls_in_threads(model, images, "net.none")
