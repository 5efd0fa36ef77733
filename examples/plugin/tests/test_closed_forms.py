"""The example's methods and metrics where the answer is known."""

import torch
from xcam_example import ElementwiseGradCAM, Gate, HalfKept

import xcam
from xcam.models.toy import GapNet

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_elementwise_gradcam_is_what_the_weights_of_the_class_let_pass():
    """Behind average pooling each cell's gradient is the class's weight over the cells."""
    net = GapNet()
    explanation = xcam.explain(net, IMAGES, 1, ElementwiseGradCAM(layer="features"))
    with torch.no_grad():
        features = net.features(IMAGES)
    wanted = (features * net.fc.weight[1, :, None, None].detach() / 64).relu().sum(1)
    torch.testing.assert_close(explanation.raw, wanted, rtol=1e-4, atol=1e-6)


def test_half_kept_is_the_difference_of_two_masked_images():
    net, maps = GapNet(), torch.zeros(3, 16, 16)
    maps[:, :, :8] = 1.0  # the left half
    explanation = xcam.Explanation.of(maps, IMAGES, target=2)
    left, right = IMAGES * maps[:, None], IMAGES * (1 - maps[:, None])
    with torch.no_grad():
        wanted = net(left).softmax(1)[:, 2] - net(right).softmax(1)[:, 2]
    torch.testing.assert_close(HalfKept().score(net, IMAGES, explanation), wanted)


def test_gate_multiplies_the_features_and_is_the_map():
    net = Gate(layer="features").attach(GapNet())
    net.fitted = True
    with torch.no_grad():
        features = net.classifier.features(IMAGES)
        gate = net.head(features)
        wanted = net.classifier.fc((features * gate).mean((2, 3)))
        torch.testing.assert_close(net(IMAGES), wanted)
    torch.testing.assert_close(xcam.explain(net, IMAGES).raw, gate[:, 0])


def test_gate_learns_by_fit():
    labels = torch.tensor([0, 1, 2])
    data = torch.utils.data.TensorDataset(IMAGES, labels)
    net = xcam.fit(GapNet(), data, method=Gate(), epochs=5)
    explanation = xcam.explain(net, IMAGES)  # the net's own method
    assert repr(explanation.method).startswith("Gate(layer=")
    before, after = (model(IMAGES) for model in (GapNet(), net.eval()))
    losses = [torch.nn.functional.cross_entropy(logits, labels) for logits in (before, after)]
    assert losses[1] < losses[0]
