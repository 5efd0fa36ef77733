"""Inputs of our own of the kinds that once gave a wrong number, by the public names alone.

They import nothing that is newer than the faults, so that they run, and fail, on earlier versions.
"""

import warnings

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.testing import assert_close
from torchvision.transforms import ToTensor

import xcam

COLORS = {"ant": (220, 30, 30), "bee": (30, 220, 30), "cow": (30, 30, 220)}


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make_net(classes=5, width=16):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, width, 3, 2, 1)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
    return nn.Sequential(convolution, nn.ReLU(), *head).eval()


def write_folders(root, names, count=6):
    generator = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.array(COLORS[name]) + generator.normal(0, 15, (16, 16, 3))
            Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(root / name / f"{number}.png")


class TwoMeans(nn.Module):
    """The classifier reads the means of two stages."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(16, 4)

    def forward(self, images):
        first = self.first(images).relu()
        means = [stage.mean((2, 3)) for stage in (first, self.second(first).relu())]
        return self.fc(torch.cat(means, 1))


def test_score_of_two_stages_is_said_to_bypass_the_last():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        xcam.explain(TwoMeans().eval(), noise(1, 3, 32, 32), 1)
    assert ["bypasses" in str(one.message) and "'first'" in str(one.message) for one in seen] == [
        True
    ]


def test_cam_of_two_linear_layers_is_of_their_product():
    net, images = make_net(), noise(2, 3, 32, 32)
    net[4] = nn.Sequential(nn.Linear(16, 5), nn.Linear(5, 5))
    weights = (net[4][1].weight @ net[4][0].weight)[1]
    expected = torch.einsum("c,bchw->bhw", weights, net[:2](images)).detach()
    got = xcam.explain(net, images, 1, "cam").raw
    for maps in (got, expected):  # up to the bias
        maps -= maps.mean((1, 2), keepdim=True)
    assert_close(got, expected)


def test_list_of_images_and_scores_without_classes():
    with pytest.raises(TypeError, match=r"torch\.stack"):
        xcam.explain(make_net(), [noise(3, 32, 32), noise(3, 32, 32)], 1)
    net, images = make_net(1), noise(2, 3, 32, 32)
    flat = nn.Sequential(*net, nn.Flatten(0)).eval()
    assert_close(xcam.explain(flat, images, 0).raw, xcam.explain(net, images, 0).raw)


def test_accuracy_on_folders_that_lack_a_class(tmp_path):
    write_folders(tmp_path / "train", ["ant", "bee", "cow"])
    write_folders(tmp_path / "test", ["bee", "cow"])
    train, test = (xcam.data.folder(tmp_path / name, 16) for name in ("train", "test"))
    settings = {"epochs": 12, "batch_size": 6, "optimizer": {"name": "Adam", "lr": 0.03}, "seed": 1}
    net = xcam.fit(make_net(3, width=8), train, **settings)
    assert xcam.accuracy(net, test).iloc[-1].accuracy == 1


def test_infinite_logits_have_no_accuracy():
    class Infinite(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :3] * float("inf")

    with pytest.raises((ValueError, xcam.XcamError), match="finite"):
        xcam.accuracy(Infinite().eval(), [(noise(3, 4, 4, seed=seed), 0) for seed in range(4)])


def test_truncated_picture_of_torchvision_is_named(tmp_path):
    write_folders(tmp_path, ["ant", "bee"])
    damaged = tmp_path / "bee" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    data = torchvision.datasets.ImageFolder(tmp_path, ToTensor())
    with pytest.raises(Exception, match=r"3\.png"):
        xcam.accuracy(make_net(2), data)


def test_negative_label_of_the_test_set_is_named(tmp_path):
    data = [(noise(3, 16, 16, seed=seed), seed % 3) for seed in range(6)]
    with pytest.raises(ValueError, match=r"^image 5 of test: label -2"):
        xcam.fit(make_net(3), data, epochs=1, test=[*data[:5], (data[0][0], -2)], out=tmp_path)


def test_flipped_bit_of_a_saved_explanation_is_found(tmp_path):
    path = tmp_path / "map.safetensors"
    xcam.explain(make_net(), noise(1, 3, 32, 32), 1).save(path)
    content = bytearray(path.read_bytes())
    content[-9] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(xcam.XcamError, match="damaged"):
        xcam.load(path)


@pytest.mark.filterwarnings("ignore:.*the map is flat")
def test_flat_map_in_random_order_is_worth_a_random_map():
    net, images = make_net(), noise(4, 3, 32, 32)

    def delete(maps, **settings):
        given = xcam.Explanation.of(maps, images, target=1)
        return float(xcam.get_metric("deletion")(step=0.25, **settings)(net, images, given))

    flat = [delete(torch.zeros(4, 32, 32), ties="random", seed=seed) for seed in range(20)]
    drawn = [delete(noise(4, 32, 32, seed=seed + 9)) for seed in range(20)]
    spread = np.std(drawn) / len(drawn) ** 0.5
    assert abs(np.mean(flat) - np.mean(drawn)) < 4 * spread
    assert abs(delete(torch.zeros(4, 32, 32)) - np.mean(drawn)) > 4 * spread  # in scan order


def test_function_with_class_weights_is_one_step_in_three_parts():
    weights = torch.tensor([1.0, 30.0, 0.1])
    data = [(noise(3, 16, 16, seed=seed), seed % 3) for seed in range(12)]

    def criterion(logits, labels):
        return nn.functional.nll_loss(logits.log_softmax(1), labels, weights)

    settings = {"epochs": 2, "batch_size": 6, "optimizer": {"name": "SGD", "lr": 0.1}, "seed": 1}
    whole, parts = (
        xcam.fit(make_net(3), data, criterion=criterion, accumulate=accumulate, **settings)
        for accumulate in (1, 3)
    )
    assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=1e-5)
