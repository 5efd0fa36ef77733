"""Heads of L-CAM's published code: files as it writes them, with its names of the mechanism."""

import math

import pytest
import torch

import xcam
from xcam.checkpoints import import_lcam
from xcam.errors import FileFormatError, XcamWarning
from xcam.methods import LCAMImg
from xcam.models import Normalized
from xcam.models.toy import GapNet


def classifier(seed=0):
    return Normalized(GapNet(seed=seed), (0.4,), (0.2,), input_size=16)


def written(path, prefix="", net=None, **changes):
    """A checkpoint with an attention mechanism for 5 classes and 12 channels, and a classifier."""
    torch.manual_seed(3)
    weights = {"attnM.op.weight": torch.randn(5, 12, 1, 1), "attnM.op.bias": torch.randn(5)}
    frozen = {} if net is None else {f"features.{k}": v for k, v in net.model.state_dict().items()}
    state = {f"{prefix}{k}": v for k, v in (frozen | weights | changes).items() if v is not None}
    torch.save(
        {"epoch": 7, "arch": "resnet", "state_dict": state, "optimizer": {"state": {}}}, path
    )
    return weights


@pytest.mark.parametrize("prefix", ["", "module."])
def test_imported_net_explains_with_the_files_weights(tmp_path, prefix):
    model, path = classifier(), tmp_path / "a.pth.tar"
    weights = written(path, prefix, model)
    net, report = import_lcam(path, model, "lcam_img", mask_reg="batch_labels")
    assert net.method == LCAMImg(layer="features", mask_reg="batch_labels")
    images = torch.rand(2, 3, 16, 16)
    features = model.model.features((images - 0.4) / 0.2)
    c = torch.einsum("bchw,c->bhw", features, weights["attnM.op.weight"][3, :, 0, 0])
    found = xcam.explain(net, images, 3, method=None).raw
    assert torch.allclose(found, c + weights["attnM.op.bias"][3], atol=1e-5)
    assert torch.equal(net(images), model(images))
    names = dict(zip(report["file"], report["net"], strict=True))
    assert names["attnM.op.weight"] == "head.weight"
    assert names["attnM.op.bias"] == "head.bias"
    own = model.model.state_dict()
    assert all(names[f"features.{name}"] == f"classifier.{name}" for name in own)
    assert len(report) == len(own) + 2


def test_file_without_the_classifier(tmp_path):
    written(tmp_path / "a.pth.tar")
    _, report = import_lcam(tmp_path / "a.pth.tar", classifier(), "lcam_fm")
    assert list(report["file"]) == ["attnM.op.weight", "attnM.op.bias", *[""] * 6]


def test_file_of_another_classifier_warns(tmp_path):
    written(tmp_path / "a.pth.tar", net=classifier(seed=1))
    message = "trained for another classifier: 6 of 6 .* such as 'classifier.features.0.weight'"
    with pytest.warns(XcamWarning, match=message):
        _, report = import_lcam(tmp_path / "a.pth.tar", classifier(), "lcam_fm")
    assert (report["net"] == "").sum() == (report["file"] == "").sum() == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attnM.op.bias": None}, "they lack 'attnM.op.bias'"),
        ({"attnM.op.weight": torch.zeros(5, 9, 1, 1)}, r"shape in 'attnM.op.weight' .*9, 1, 1"),
    ],
)
def test_other_shapes_are_refused(tmp_path, changes, message):
    written(tmp_path / "a.pth.tar", **changes)
    with pytest.raises(FileFormatError, match=message):
        import_lcam(tmp_path / "a.pth.tar", classifier(), "lcam_fm")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["attnM.op.weight", "attnM.op.bias"])
def test_nan_and_infinite_weights_are_refused(tmp_path, name, value):
    path = tmp_path / "a.pth.tar"
    broken = written(path)[name].clone()
    broken.flatten()[[1, 3]] = value
    written(path, **{name: broken})
    sentence = f"2 of the {broken.numel()} values of '{name}' in .* are NaN or infinite in torch.f"
    with pytest.raises(FileFormatError, match=sentence):
        import_lcam(path, classifier(), "lcam_fm")


def test_weights_that_overflow_the_nets_dtype_are_refused(tmp_path):
    path = tmp_path / "a.pth.tar"
    written(path, **{"attnM.op.bias": torch.tensor([0.0, 0.0, 0.0, 0.0, 1e6])})
    import_lcam(path, classifier(), "lcam_fm")
    sentence = "1 of the 5 values of 'attnM.op.bias' .* infinite in torch.float16; .* a wider type"
    with pytest.raises(FileFormatError, match=sentence):
        import_lcam(path, classifier().half(), "lcam_fm")


def test_classifier_in_the_file_may_hold_nan(tmp_path):
    """The classifier in the file, which is compared with the model alone."""
    path = tmp_path / "a.pth.tar"
    written(path, **{"features.0.weight": torch.full((8, 3, 3, 3), math.nan)})
    with pytest.warns(XcamWarning, match="trained for another classifier"):
        assert import_lcam(path, classifier(), "lcam_fm")[0].fitted


def test_missing_file_and_unknown_method_are_refused(tmp_path):
    path = tmp_path / "a.pth.tar"
    with pytest.raises(FileNotFoundError, match=r"no file of weights at .*a\.pth\.tar"):
        import_lcam(path, classifier(), "lcam_fm")
    with pytest.raises(ValueError, match="method must be one of lcam_fm, lcam_img, got 'lcam'"):
        import_lcam(path, classifier(), "lcam")
    path.touch()
    with pytest.raises(FileFormatError, match="is damaged or is no file of weights"):
        import_lcam(path, classifier(), "lcam_fm")
    written(path)
    with pytest.raises(TypeError, match="lcam_fm has no parameter 'lyer': did you mean layer"):
        import_lcam(path, classifier(), "lcam_fm", lyer="features")
    with pytest.raises(TypeError, match="lcam_img: sigmoid must be True or False, got 1"):
        import_lcam(path, classifier(), "lcam_img", sigmoid=1)
