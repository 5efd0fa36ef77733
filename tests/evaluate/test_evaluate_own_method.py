"""Models with a head: which method a name, an object or None means, and missing heads."""

import json

import pytest
import torch
from evaluations import CONTROLS, Pictures, evaluate, loader, plain, rows
from safetensors.torch import load_file
from torch import nn

import xcam
from xcam._evaluate.comparison import NamedArguments, resolve_methods
from xcam.errors import NotFittedError
from xcam.methods import ABN, LCAMFm
from xcam.models import Normalized
from xcam.models.toy import GapNet


def headed(trained=True, **parameters):
    """Return a net with an untrained head of L-CAM that is marked as fitted."""
    torch.manual_seed(0)
    net = LCAMFm(**{"sigmoid": True, "mask_reg": "own_label", **parameters}).attach(GapNet())
    net.fitted = trained
    return net


def kept(folder):
    """Return the L-CAM maps of all images."""
    parts = [load_file(part) for part in sorted((folder / "maps" / "lcam_fm").iterdir())]
    return torch.cat([part["maps"] * part["scale"][:, None, None] for part in parts])


def parameters(folder, label="lcam_fm", model="GapNet"):
    said = json.loads((folder / "manifest.json").read_bytes())
    return said["methods"][label]["on"][model]["parameters"]


@pytest.mark.parametrize("methods", ["lcam_fm", None, NamedArguments("lcam_fm")])
def test_name_or_none_means_the_method_that_the_model_carries(tmp_path, methods):
    net, data = headed(), Pictures()
    evaluate(loader(data), methods, model=net, out=tmp_path, save_maps=True)
    assert {row["method"] for row in rows(tmp_path)} == {"lcam_fm", *CONTROLS}
    expected = xcam.explain(net, data.images, method="lcam_fm").raw
    torch.testing.assert_close(kept(tmp_path), expected, atol=1e-3, rtol=0)
    assert parameters(tmp_path)["sigmoid"]
    assert parameters(tmp_path)["mask_reg"] == "own_label"
    assert parameters(tmp_path)["layer"] == net.method.layer


def test_method_object_is_used_as_given(tmp_path):
    net, data = headed(), Pictures()
    evaluate(loader(data), LCAMFm(), model=net, out=tmp_path, save_maps=True)
    expected = xcam.explain(net, data.images, method=LCAMFm()).raw
    torch.testing.assert_close(kept(tmp_path), expected, atol=1e-3, rtol=0)
    assert float(kept(tmp_path).min()) < 0
    assert not parameters(tmp_path)["sigmoid"]


def test_named_arguments_replace_those_that_the_model_carries():
    asked = NamedArguments("lcam_fm", {"sigmoid": False})
    (method,) = resolve_methods(headed(), [asked], 0).values()
    assert (method.sigmoid, method.mask_reg) == (False, "own_label")
    asked = [NamedArguments("rise"), NamedArguments("smoothgrad", {"seed": 1})]
    drawn = resolve_methods(GapNet(), asked, 4)
    assert [method.seed for method in drawn.values()] == [4, 1]


def test_each_model_is_explained_by_its_own_method(tmp_path):
    """One model has a method, one has it with other parameters, one has none."""
    models = {"one": headed(), "other": headed(sigmoid=False), "base": GapNet()}
    settings = {"model": models, "out": tmp_path, "controls": False}
    results = xcam.evaluate(data=loader(Pictures(3)), metrics="sparseness", **settings)
    found = plain(rows(tmp_path), "index", "model", "method")
    own = {"base": "gradcam", "one": "lcam_fm", "other": "lcam_fm"}
    assert found == [(index, name, own[name]) for index in range(3) for name in sorted(own)]
    sigmoids = {name: parameters(tmp_path, model=name)["sigmoid"] for name in ("one", "other")}
    assert sigmoids == {"one": True, "other": False}
    between = results.compare(by="model")
    assert between[["method", "a", "b"]].values.tolist() == [["lcam_fm", "one", "other"]]
    assert results.errors().empty


def test_iterator_of_methods_serves_all_models(tmp_path):
    models = {"one": GapNet(), "other": GapNet(seed=1)}
    given = (name for name in ("gradcam", "saliency"))
    evaluate(loader(Pictures(1)), given, model=models, controls=False, out=tmp_path)
    assert plain(rows(tmp_path), "model", "method") == [
        (model, method) for model in models for method in ("gradcam", "saliency")
    ]


def test_folder_of_the_same_weights_with_another_method_is_refused(tmp_path):
    evaluate(loader(), "lcam_fm", model=headed(), out=tmp_path)
    evaluate(loader(), "lcam_fm", model=headed(), out=tmp_path)
    sentence = r"methods, lcam_fm: LCAMFm\(.*sigmoid=True\) on GapNet there, .*sigmoid=False\) on"
    with pytest.raises(ValueError, match=sentence):
        evaluate(loader(), "lcam_fm", model=headed(sigmoid=False), out=tmp_path)


def test_heads_explain_only_their_own_models(tmp_path):
    """In one call, beside methods that need no head."""
    attached = ABN().attach(xcam.models.load("xcam:cifar_resnet", depth=8, num_classes=5))
    attached.fitted = True
    models = {"one": headed(), "two": attached, "base": GapNet()}
    methods = ["lcam_fm", "gradcam", "abn"]
    evaluate(loader(Pictures(1)), methods, model=models, controls=False, out=tmp_path)
    assert plain(rows(tmp_path), "model", "method") == [
        ("base", "gradcam"),
        ("one", "gradcam"),
        ("one", "lcam_fm"),
        ("two", "abn"),
        ("two", "gradcam"),
    ]
    with pytest.raises(NotFittedError, match="model 'base': lcam_fm needs a model with its head"):
        evaluate(loader(Pictures(1)), ["lcam_fm", "abn"], model=models)


@pytest.mark.parametrize("methods", [["gradcam", "lcam_fm"], LCAMFm()])
@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        (GapNet(), "model 'GapNet': lcam_fm needs a model with its head, and this one has no"),
        (headed(trained=False), "model 'GapNet': the head of lcam_fm on this model is not trained"),
        (
            {"one": headed(), "other": headed(trained=False)},
            "model 'other': the head of lcam_fm on this model is not trained",
        ),
    ],
)
def test_missing_head_is_refused_before_any_image(tmp_path, methods, models, sentence):
    data = Pictures()
    with pytest.raises(NotFittedError, match=sentence):
        evaluate(loader(data), methods, model=models, out=tmp_path / "out")
    assert data.loaded == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inner", [GapNet(), Normalized(GapNet(), (0.5,), (0.5,))])
@pytest.mark.parametrize("wrapped", [False, True])
def test_model_is_named_by_its_classifier(tmp_path, inner, wrapped):
    net = LCAMFm().attach(inner)
    net.fitted = True
    model = nn.DataParallel(net) if wrapped else net
    evaluate(loader(Pictures(1)), model=model, controls=False, out=tmp_path)
    assert {row["model"] for row in rows(tmp_path)} == {"GapNet"}
