"""Features that are read and changed in a pass: whose pass it is, and what others see of it."""

import copy
import pickle
import threading

import pytest
import torch
from nets import pictures
from torch import nn
from trained import run_head

import xcam
from xcam.core import Headed, find_headed
from xcam.errors import LayerError, NotFittedError
from xcam.methods import ABN, LFICAM, LCAMFm, LCAMImg
from xcam.methods.trainable.taps import Place, features, tapped
from xcam.models import Normalized
from xcam.models.toy import GapNet

METHODS = [LFICAM, ABN, LCAMFm, LCAMImg]


def attached(method=LFICAM, normalized=False, **settings):
    torch.manual_seed(0)
    net = GapNet()
    net = Normalized(net, (0.4,), (0.2,), input_size=16) if normalized else net
    return method(**settings).attach(net).eval()


class InPlace(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3, padding=1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


class TestTapped:
    @pytest.mark.parametrize("normalized", [False, True])
    def test_reads_and_changes_several_places(self, normalized):
        net, images, read = attached(normalized=normalized), pictures(size=16), {}
        classifier = find_headed(net).classifier
        changes = {
            Place("features"): lambda found: 2 * found,
            Place("features.2", "input"): lambda found: read.update(hidden=found),
            Place("fc", "input"): lambda found: read.update(pooled=found),
        }
        with torch.no_grad():
            logits = tapped(net, images, changes)
            given = (images - 0.4) / 0.2 if normalized else images
            hidden = classifier.features[:2](given)
            pooled = 2 * classifier.features(given).mean((2, 3))
            assert torch.equal(read["hidden"], hidden)
            assert torch.allclose(read["pooled"], pooled, atol=1e-6)
            assert torch.allclose(logits, classifier.fc(pooled), atol=1e-6)
            assert torch.equal(classifier(given), classifier.fc(pooled / 2))

    def test_who_reads_keeps_what_is_then_changed_in_place(self):
        torch.manual_seed(0)
        net = Headed(InPlace(), nn.Identity(), LCAMFm(layer="0"))
        images, read = pictures(), []
        logits = tapped(net, images, {Place("0"): read.append})
        assert torch.equal(read[0], net.classifier[0](images))
        assert (read[0] < 0).any()
        assert torch.equal(logits, net.classifier(images))
        logits.sum().backward()  # what was saved for the gradient has not changed either

    @pytest.mark.parametrize("name", ["fc", "features"])
    def test_features_stop_the_pass(self, name):
        net, images, passed = attached(), pictures(size=16), []
        net.classifier.fc.register_forward_hook(lambda *_: passed.append(1))
        found = features(net, images, Place(name, "input"))
        wanted = images if name == "features" else net.classifier.features(images).mean((2, 3))
        assert torch.equal(found, wanted)
        assert found.requires_grad == wanted.requires_grad
        assert not passed

    @pytest.mark.parametrize("run", [tapped, features])
    def test_place_that_is_not_passed_once(self, run):
        net = Headed(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), nn.ReLU(), LCAMFm())
        net.classifier.unused = nn.Identity()
        net.classifier.forward = lambda images: images.mean((2, 3))
        place = Place("unused")
        with pytest.raises(LayerError, match="'unused' is called 0 times in this forward pass"):
            run(net, pictures(), {place: lambda found: None} if run is tapped else place)

    def test_place_without_a_tensor(self):
        class Pairs(nn.Module):
            def forward(self, images):
                return images, images

        classifier = nn.Sequential(Pairs())
        classifier.forward = lambda images: classifier[0](images)[0].mean((2, 3))
        net = Headed(classifier, nn.ReLU(), LCAMFm())
        with pytest.raises(LayerError, match="output of layer '0' must be a tensor, got tuple"):
            tapped(net, pictures(), {Place("0"): lambda found: None})

    def test_net_without_a_head(self):
        with pytest.raises(
            TypeError, match=r"in a Headed, alone or in a Normalized .*, got GapNet"
        ):
            tapped(GapNet(), pictures(), {})
        with pytest.raises(NotFittedError, match="the GapNet carries no head"):
            find_headed(GapNet())

    def test_nothing_is_left_when_a_pass_fails(self):
        net = attached()

        def fail(found):
            raise KeyError("planned")

        with pytest.raises(KeyError, match="planned"):
            tapped(net, pictures(size=16), {Place("features"): fail})
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("method", METHODS)
class TestNet:
    def test_no_hook_is_left_on_it(self, method):
        net = attached(method)
        net(pictures(size=16))
        hooks = [m._forward_hooks or m._forward_pre_hooks for m in net.modules()]
        assert not any(hooks)

    @pytest.mark.parametrize("normalized", [False, True])
    def test_names_of_parameters(self, method, normalized):
        net = attached(method, normalized)
        prefix = "model." if normalized else ""
        kinds = {name.removeprefix(prefix).split(".")[0] for name in net.state_dict()}
        assert kinds == {"classifier", "head"}
        own = {f"{prefix}classifier.{name}" for name in GapNet().state_dict()}
        assert own == {name for name in net.state_dict() if "classifier." in name}

    def test_copies_run_for_themselves(self, method):
        net, images = attached(method), pictures(size=16)
        expected = net(images)
        for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(again(images), expected)
            assert again.method == net.method
            with torch.no_grad():
                for parameter in again.parameters():
                    parameter.zero_()
            assert torch.equal(net(images), expected)
            assert not again(images).any()

    # Torch's compiler looks at it where it takes a frame up again behind what is not compiled.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    @pytest.mark.parametrize("order", ["classifier", "net", "classifier first", "in place"])
    def test_compiled(self, method, order):
        """Also where what was compiled first has been run without the head."""
        net, images = attached(method), pictures(size=16)
        expected = net(images)
        try:
            if order == "in place":
                net.classifier.compile(backend="eager")
                net.compile(backend="eager")
            elif "classifier" in order:
                alone = net.classifier(images)
                net.classifier.compile(backend="eager")
                assert torch.equal(net.classifier(images), alone)
            compiled = torch.compile(net, backend="eager") if order != "classifier" else net
            for _ in range(2):
                assert torch.allclose(compiled(images), expected, atol=1e-6)
        finally:
            torch.compiler.reset()


def test_four_threads_at_once():
    """Each pass is changed by its own head, whoever else runs the net, or the classifier alone."""
    net = attached(LFICAM)
    batches = [torch.rand(2, 3, 16, 16) for _ in range(4)]
    runs = [(net, net.classifier)[number % 2] for number in range(4)]
    with torch.no_grad():
        expected = [run(images) for run, images in zip(runs, batches, strict=True)]
        assert not torch.equal(net(batches[1]), expected[1])
    wrong = []

    def run(number):
        with torch.no_grad():
            for _ in range(150):
                found = runs[number](batches[number])
                wrong.extend([number] * (not torch.equal(found, expected[number])))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("normalized", [False, True])
def test_gradcam_at_a_tapped_layer_reads_the_features_before_the_change(normalized):
    """Σ_k mean_ij(∂z/∂F_k) F_k, the slopes through the attention, too, of F before F (1 + A)."""
    net = attached(LFICAM, normalized).double()
    headed, images = find_headed(net), pictures(size=16).double()
    given = (images - 0.4) / 0.2 if normalized else images
    found = headed.classifier.features(given).detach().requires_grad_()
    attention = headed.head(found, given.mean(1, keepdim=True))
    logits = headed.classifier.fc((found * (1 + attention)).mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), found)
    wanted = (gradient.mean((2, 3), keepdim=True) * found).sum(1)
    layer = "model.classifier.features" if normalized else "classifier.features"
    for chosen in (layer, None):
        e = xcam.explain(net, images, 2, "gradcam", layer=chosen, relu=False)
        assert e.method.layer == layer
        assert torch.allclose(e.raw.double(), wanted, atol=1e-7)
        assert torch.allclose(e.logits, logits, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_default_layer_is_not_in_the_head(method):
    """Not even where it gives the only maps, behind all features."""
    net = attached(method)
    found = xcam.explain(net, pictures(size=16), 1, "gradcam").method.layer
    assert found.startswith("classifier.")


def test_frozen_parts_stay_as_they_are():
    classifier = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(768, 4))
    net = Headed(classifier.train(), nn.Dropout(0.5), LCAMFm(), frozen=["classifier"])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for outer in (net, nn.Sequential(net), copy.deepcopy(net), nn.DataParallel(net)):
        outer.train()
        inner = find_headed(outer)
        assert inner.training
        assert inner.head.training
        assert not any(part.training for part in inner.classifier.modules())
        inner.classifier(pictures(4, size=16))
        assert all(torch.equal(inner.state_dict()[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in net.classifier.parameters())


def test_head_reads_the_features_of_its_own_pass():
    net, images = attached(ABN), pictures(4, size=16)
    logits, (attention, _) = run_head(net, images)
    for index in range(4):
        one, (own, _) = run_head(net, images[index : index + 1])
        assert torch.allclose(one, logits[index : index + 1], atol=1e-6)
        assert torch.allclose(own, attention[index : index + 1], atol=1e-6)


class TestWrappedNets:
    """A head is found in whatever a user wraps around its net."""

    def test_explained_by_the_head_inside(self):
        net, images = attached(), pictures(size=16)
        find_headed(net).fitted = True
        inside, outside = xcam.explain(net, images), xcam.explain(nn.Sequential(net), images)
        assert outside.method == inside.method
        assert outside.raw.equal(inside.raw)

    @pytest.mark.parametrize("method", METHODS)
    def test_takes_no_second_head(self, method):
        with pytest.raises(ValueError, match=r"carries the head of LFICAM.* already"):
            method().attach(nn.Sequential(attached()))
