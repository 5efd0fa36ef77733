"""Nets of CA-Stream's published code: files in the form that it saves."""

import pytest
import torch
import torchvision
from nets import pictures

import xcam
from xcam.checkpoints import import_castream
from xcam.errors import FileFormatError
from xcam.methods import CAStream

zoo = torchvision.models
IMAGES = pictures(2, size=64)
RESNET = ("base", "l1", "l2", "l3", "l4")


def published_name(name, variant, is_resnet):
    """The name of a net's tensor in the published code, written down from its modules."""
    if name == "head.token":
        return "cls_token"
    if not name.startswith("head."):
        return name.removeprefix("classifier.")
    _, _, number, part, rest = name.split(".", 4)
    if part == "feedforward":
        layer, kind = rest.split(".")
        first = 3 if variant == "v2" else 0
        return f"ff{'b1234'[int(number) + first]}.mlp.{'3' if layer == '2' else '0'}.{kind}"
    if variant == "final":
        block = "cls_surrogate" if is_resnet else "cls_stream"
    else:
        names = RESNET[3:] if variant == "v2" else RESNET
        block = names[int(number)] if is_resnet else f"cls_stream.{number}"
    if part in ("key", "value"):
        return f"{block}.to_{part[0]}.1.{rest}"
    if variant == "v3":
        return f"{block}.to_out.0.{rest}"
    normed = variant == "v4" or (variant == "final" and not is_resnet)
    return f"{block}.to_out.{rest}" if normed else f"{block}.to_out.1.{rest}"


def make_file(path, name, variant=None):
    """Save a net with new weights as the published code does; return it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = CAStream(placement="released", variant=variant).attach(getattr(zoo, name)().eval())
    state = {
        published_name(own, variant, name.startswith("resnet")): tensor
        for own, tensor in net.state_dict().items()
    }
    torch.save(state, path)
    net.fitted = True
    return net, state


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *(("resnet18", variant) for variant in (None, "final", "shared", "v2", "v3", "v4")),
        *(("convnext_tiny", variant) for variant in (None, "final")),
        ("mobilenet_v2", None),
        ("efficientnet_b0", None),
    ],
)
def test_every_tensor_of_a_file_goes_to_its_place(name, variant, tmp_path):
    """By names written down from the published modules; what they compute is not compared here."""
    file = tmp_path / "best_model.pth"
    published, state = make_file(file, name, variant)
    model = getattr(zoo, name)()
    net, report = import_castream(file, model, **({"variant": variant} if variant else {}))
    assert not net.training
    assert torch.equal(net(IMAGES), published(IMAGES))
    maps = [xcam.explain(each, IMAGES, 0, map="scores").raw for each in (net, published)]
    assert torch.equal(*maps)
    assert set(report["file"]) == set(state)
    assert "head.token" in set(report["net"])


def test_names_are_those_of_the_published_modules(tmp_path):
    _, state = make_file(tmp_path / "net.pth", "resnet18")
    assert {"cls_token", "base.to_out.1.weight", "l4.to_out.1.bias", "layer4.1.bn2.bias"} < set(
        state
    )
    _, state = make_file(tmp_path / "net.pth", "convnext_tiny")
    assert state["cls_stream.3.to_out.1.weight"].shape == (768, 768)
    assert "cls_stream.4.to_out.1.weight" not in state


def test_saved_net_of_processes_is_read(tmp_path):
    published, state = make_file(tmp_path / "net.pth", "resnet18")
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "net.pth")
    net, _ = import_castream(tmp_path / "net.pth", zoo.resnet18())
    assert torch.equal(net(IMAGES), published(IMAGES))


def test_heads_leave_no_trace_in_the_file(tmp_path):
    """So that they must be given, as the guides say."""
    make_file(tmp_path / "net.pth", "resnet18", "final")
    settings = ({"variant": "final"}, {"variant": "final", "heads": 2})
    one, two = (import_castream(tmp_path / "net.pth", zoo.resnet18(), **s)[0] for s in settings)
    assert not torch.allclose(one(IMAGES), two(IMAGES))


def test_other_nets_and_placements_are_refused(tmp_path):
    file = tmp_path / "net.pth"
    make_file(file, "convnext_tiny")
    with pytest.raises(FileFormatError, match="are no CA-Stream of this ConvNeXt"):
        import_castream(file, zoo.convnext_tiny(), placement="stages")
    with pytest.raises(FileFormatError, match="are no CA-Stream of this ResNet"):
        import_castream(file, zoo.resnet18())
    with pytest.raises(TypeError, match="castream has no parameter 'places'"):
        import_castream(file, zoo.resnet18(), places=3)


def test_imported_net_is_saved_and_loaded(tmp_path):
    make_file(tmp_path / "net.pth", "resnet18")
    net, _ = import_castream(tmp_path / "net.pth", zoo.resnet18())
    xcam.save(net, tmp_path / "net.safetensors")
    again = xcam.load(tmp_path / "net.safetensors", zoo.resnet18()).eval()
    assert again.method == net.method
    assert torch.equal(again(IMAGES), net(IMAGES))
