"""Every public class of captum, grad-cam and torch-cam is in xcam, or named with the reason."""

import inspect

import captum.attr
import pytest
import torch
from nets import pictures
from test_bridges import Modules

import xcam
from xcam.methods.bridges import BRIDGES
from xcam.methods.bridges.counterparts import CAPTUM, GRAD_CAM, LEFT_OUT, TORCH_CAM
from xcam.registry import find_name


def list_classes(module, names):
    return {name for name in names if inspect.isclass(getattr(module, name))}


def test_every_class_of_captum_is_there_or_has_a_reason():
    known = list_classes(captum.attr, captum.attr.__all__)
    assert known - CAPTUM.keys() - LEFT_OUT.keys() == set()
    assert CAPTUM.keys() - known == set()


def test_every_class_of_grad_cam_is_there_or_has_a_reason():
    library = pytest.importorskip("pytorch_grad_cam")
    known = list_classes(library, dir(library))
    assert known - GRAD_CAM.keys() - LEFT_OUT.keys() == set()
    assert GRAD_CAM.keys() - known == set()


def test_every_method_of_torchcam_is_there_or_has_a_reason():
    library = pytest.importorskip("torchcam.methods")
    known = list_classes(library, dir(library))
    assert known - TORCH_CAM.keys() - LEFT_OUT.keys() == set()
    assert TORCH_CAM.keys() - known == set()


def test_every_counterpart_is_a_method_and_no_bridge_is_forgotten():
    named = {*CAPTUM.values(), *GRAD_CAM.values(), *TORCH_CAM.values()}
    assert named <= set(xcam.list_methods())
    assert {cls.spec.name for cls in BRIDGES} <= named
    assert all(reason.strip() for reason in LEFT_OUT.values())
    assert not LEFT_OUT.keys() & {*CAPTUM, *GRAD_CAM, *TORCH_CAM}
    own = {name.replace("_", "") for name in xcam.list_methods()}
    assert not own & {name.lower() for name in LEFT_OUT}


def test_the_names_of_the_libraries_are_understood():
    """But for those that are wrappers, or one setting of a method."""
    wrapped = {name for name in CAPTUM if name.startswith("Layer")} - {"LayerConductance"}
    wrapped |= {"NoiseTunnel", "GuidedBackpropReLUModel", "ShapleyValues"}
    for name, method in (CAPTUM | GRAD_CAM | TORCH_CAM).items():
        assert name in wrapped or find_name(name) == method, name


def test_bridges_keep_nearly_all_of_the_contract():
    excused = {(cls.spec.name, check) for cls in BRIDGES for check in cls.spec.exceptions}
    print(*sorted(excused), sep="\n")
    assert len(excused) <= 5


def test_a_unit_within_the_net_is_explained_by_a_target_of_a_part_of_it():
    """What captum has Neuron classes for."""
    net, images = Modules(), pictures(2, size=8)
    part = torch.nn.Sequential(net.max_pool, net.first, net.act1, net.second)

    def read(output, rows):
        return output[:, 1, 2, 0]

    theirs = captum.attr.NeuronIntegratedGradients(net, net.second)
    expected = theirs.attribute(images, (1, 2, 0), n_steps=5)
    got = xcam.explain(part, images, read, "integrated_gradients", n_steps=5).raw
    torch.testing.assert_close(got, expected.detach().float(), rtol=1e-4, atol=1e-6)
