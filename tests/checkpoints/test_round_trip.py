"""What is saved comes back bit for bit, in a net of the same structure."""

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from nets import Pooled, mixed, pictures, unchanged
from safetensors import safe_open
from torch import nn

import xcam
from xcam.checkpoints.tensors import copy_to_own_memory
from xcam.models import Normalized

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "checkpoints.md"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


def drawn(net, seed=3):
    """The net with weights, statistics and counters that no constructor gives."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in net.state_dict().values():
        noise = torch.rand(tensor.shape, generator=generator)
        tensor.copy_(noise + 0.5 if tensor.is_floating_point() else (noise + 1) * 100)
    return net


def bits(tensor):
    return (
        tensor.dtype,
        tensor.shape,
        tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes(),
    )


def assert_same(got, expected):
    got, expected = got.state_dict(), expected.state_dict()
    assert list(got) == list(expected)
    for name in expected:
        assert bits(got[name]) == bits(expected[name].cpu()), name


def header(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["xcam.net"])


def own(**settings):
    return Normalized(Pooled(), [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], **settings)


class TestNamedNet:
    @pytest.mark.parametrize(
        ("name", "settings"),
        [
            ("xcam:gap_net", {"num_classes": 3}),
            ("xcam:small_cnn", {"widths": (4, 6, 8)}),
            ("xcam:token_net", {}),
            ("torchvision:resnet18", {"num_classes": 4}),
        ],
    )
    def test_named_net_is_rebuilt(self, path, name, settings):
        net = drawn(xcam.models.load(name, **settings))
        xcam.save(net, path)
        got = xcam.load(path)
        assert_same(got, net)
        assert not any(module.training for module in got.modules())
        assert got.source == net.source
        assert torch.equal(got(pictures(size=32)), net(pictures(size=32)))

    def test_normalization_and_classes_are_kept(self, path):
        net = xcam.models.load("xcam:gap_net", num_classes=2)
        net.mean, net.std = torch.tensor([[[0.3]]]), torch.tensor([[[1 / 3]]])
        net.categories, net.input_size = ("cat", "dög"), (20, 30)
        xcam.save(net, path)
        got = xcam.load(path)
        assert bits(got.mean) == bits(net.mean)
        assert bits(got.std) == bits(net.std)
        assert (got.categories, got.input_size) == (("cat", "dög"), (20, 30))
        assert torch.equal(got(pictures()), net(pictures()))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_precision_is_kept(self, path, dtype):
        net = drawn(xcam.models.load("xcam:small_cnn")).to(dtype)
        xcam.save(net, path)
        got = xcam.load(path)
        assert_same(got, net)
        assert got.mean.dtype == dtype
        assert torch.equal(got(pictures().to(dtype)), net(pictures().to(dtype)))

    def test_mixed_precision_is_kept(self, path):
        net = xcam.models.load("xcam:small_cnn").half()
        net.model.features[1].float()
        xcam.save(net, path)
        assert_same(xcam.load(path), net)

    def test_callers_defaults_make_no_difference(self, path):
        net = drawn(xcam.models.load("xcam:small_cnn"))
        xcam.save(net, path)
        torch.set_default_dtype(torch.float64)
        try:
            with torch.inference_mode(), torch.device("meta"):
                got = xcam.load(path)
        finally:
            torch.set_default_dtype(torch.float32)
        assert_same(got, net)
        assert got.mean.dtype == torch.float32
        assert not any(parameter.is_inference() for parameter in got.parameters())
        got(pictures()).sum().backward()

    def test_given_model_is_used_instead_of_the_name(self, path):
        net = drawn(xcam.models.load("xcam:gap_net"))
        xcam.save(net, path)
        model = xcam.models.load("xcam:gap_net")
        model.model.extra = 3
        assert xcam.load(path, model).model.extra == 3
        assert_same(xcam.load(path, model), net)

    @pytest.mark.parametrize(
        "change",
        [
            lambda net: setattr(net.model, "fc", nn.Linear(12, 9)),
            lambda net: net.model.features.__setitem__(1, nn.Tanh()),
            lambda net: setattr(net.model.features[2], "stride", (1, 1)),
        ],
        ids=["last layer", "activation", "stride"],
    )
    def test_changed_net_is_no_longer_named(self, path, change):
        net = xcam.models.load("xcam:gap_net")
        change(net)
        xcam.save(net, path)
        assert header(path)["backbone"] is None
        with pytest.raises(ValueError, match="pass one like it"):
            xcam.load(path)
        assert_same(xcam.load(path, net), net)

    def test_net_with_unwritable_argument_is_not_named(self, path):
        net = xcam.models.load("torchvision:resnet18", norm_layer=nn.InstanceNorm2d)
        xcam.save(net, path)
        assert header(path)["backbone"] is None
        assert_same(xcam.load(path, net), net)


class Versioned(nn.Linear):
    """Reads only what says that it is of its own version, as some nets of torchvision do."""

    _version = 3

    def _load_from_state_dict(self, state, prefix, metadata, *others):
        assert metadata.get("version") == 3
        super()._load_from_state_dict(state, prefix, metadata, *others)


class TestOwnNet:
    def test_structure_is_taken_from_the_model(self, path):
        net = drawn(own())
        xcam.save(net, path)
        model, images = mixed(own()), pictures()
        with unchanged(model, images):
            got = xcam.load(path, model)
        assert_same(got, net)
        assert not any(module.training for module in got.modules())
        assert torch.equal(got(images), net(images))

    def test_normalization_is_in_the_file(self, path):
        net = own(categories=list("abcdefghij"), input_size=8)
        xcam.save(net, path)
        got = xcam.load(path, Normalized(Pooled(), [0.0], [1.0], categories=["z"]))
        assert bits(got.mean) == bits(net.mean)
        assert bits(got.std) == bits(net.std)
        assert (got.categories, got.input_size) == (net.categories, (8, 8))

    def test_net_without_normalization(self, path):
        net = drawn(Pooled())
        xcam.save(net, path)
        assert_same(xcam.load(path, Pooled()), net)
        assert header(path)["normalization"] == {}

    @pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
    def test_wrappers_are_left_out(self, path, wrap):
        net = drawn(own())
        xcam.save(wrap(net), path)
        assert_same(xcam.load(path, wrap(own())), net)

    def test_state_dict_versions_reach_the_modules(self, path):
        net = drawn(nn.Sequential(Versioned(2, 3)))
        xcam.save(net, path)
        assert_same(xcam.load(path, nn.Sequential(Versioned(2, 3))), net)

    def test_buffers_outside_of_the_state_follow_the_precision(self, path):
        def made():
            net = nn.Linear(2, 2)
            net.register_buffer("scale", torch.ones(2), persistent=False)
            return net

        xcam.save(made().double(), path)
        assert xcam.load(path, made()).scale.dtype == torch.float64

    def test_special_values(self, path):
        net = Pooled()
        net.fc.bias.data[:5] = torch.tensor([torch.nan, -torch.inf, -0.0, 1e-45, 3.4e38])
        xcam.save(net, path)
        assert_same(xcam.load(path, Pooled()), net)

    def test_any_memory_layout(self, path):
        net = Pooled().to(memory_format=torch.channels_last)
        net.fc.weight = nn.Parameter(torch.rand(8, 10).T)
        net.register_buffer("spread", torch.rand(1).expand(7))
        net.register_buffer("nothing", torch.zeros(0, 3))
        net.register_buffer("count", torch.tensor(2**40))
        xcam.save(net, path)
        blank = copy.deepcopy(net)
        blank.count.zero_()
        assert_same(xcam.load(path, blank), net)

    def test_does_not_depend_on_the_file_any_more(self, path):
        net = drawn(Pooled())
        xcam.save(net, path)
        got = xcam.load(path, Pooled())
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
        assert_same(got, net)

    def test_saved_over_itself(self, path):
        net = drawn(Pooled())
        xcam.save(net, path)
        xcam.save(xcam.load(path, net), path)
        assert_same(xcam.load(path, Pooled()), net)


class Tied(nn.Module):
    """Two layers of one shape, with one weight if asked for."""

    def __init__(self, tie=False):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        if tie:
            self.two.weight = self.one.weight


class TestTiedTensors:
    @pytest.mark.parametrize("tie", [False, True])
    def test_tied_parameters_stay_tied(self, path, tie):
        net = drawn(Tied(tie=True))
        xcam.save(net, path)
        got = xcam.load(path, Tied(tie))
        assert got.one.weight is got.two.weight
        assert_same(got, net)
        with safe_open(path, "pt") as file:
            assert set(file.keys()) == {"one.weight", "one.bias", "two.bias"}

    def test_tied_buffers_stay_tied(self, path):
        def made():
            net = nn.Module()
            net.register_buffer("first", torch.arange(3.0))
            net.register_buffer("second", net.first)
            return net

        xcam.save(made(), path)
        apart = made()
        apart.second = torch.zeros(3)
        got = xcam.load(path, apart)
        assert got.first is got.second

    def test_only_tensors_over_exactly_the_same_memory_are_tied(self, path):
        """Parameters over parts of one storage: a part twice, and parts that overlap."""
        net, storage = Tied(), torch.rand(15)
        net.one.weight.data, net.two.weight.data = storage[:9].view(3, 3), storage[:9].view(3, 3)
        net.one.bias.data, net.two.bias.data = storage[8:11], storage[12:]
        xcam.save(net, path)
        assert header(path)["tied"] == {"two.weight": "one.weight"}
        got = xcam.load(path, Tied())
        assert_same(got, net)
        assert got.one.weight.data_ptr() == got.two.weight.data_ptr()

    def test_ties_that_the_file_does_not_have_are_refused(self, path):
        xcam.save(Tied(), path)
        with pytest.raises(
            xcam.errors.FileFormatError,
            match=r"two tensors for 'one\.weight' and 'two\.weight', which are one in the model",
        ):
            xcam.load(path, Tied(tie=True))


def test_header(path):
    net = xcam.models.load("xcam:gap_net", num_classes=3, seed=1).double()
    net.categories = ("a", "b", "c")
    xcam.save(net, path)
    told = header(path)
    assert isinstance(told.pop("checksum"), int)
    assert told == {
        "format": 2,
        "method": None,
        "fitted": False,
        "image_shape": None,
        "backbone": {"name": "xcam:gap_net", "parameters": {"dict": {"num_classes": 3, "seed": 1}}},
        "classes": {"number": 3, "names": ["a", "b", "c"]},
        "normalization": {
            "": {"mean": [0.5], "std": [0.5], "dtype": "float64", "input_size": None}
        },
        "dtype": "float64",
        "versions": {
            "xcam": xcam.__version__,
            "torch": torch.__version__,
            "torchvision": __import__("torchvision").__version__,
        },
        "tied": {},
    }


def test_number_of_classes_without_names(path):
    xcam.save(xcam.models.load("xcam:gap_net", num_classes=3), path)
    assert header(path)["classes"] == {"number": 3, "names": []}
    xcam.save(Pooled(), path)
    assert header(path)["classes"] == {"number": None, "names": []}


def test_saving_leaves_the_net_as_it_was(path):
    for net in (mixed(own()), mixed(xcam.models.load("torchvision:resnet18"))):
        with unchanged(net):
            xcam.save(net, path)


def test_loading_draws_nothing_from_the_callers_generator(path):
    xcam.save(xcam.models.load("torchvision:resnet18"), path)
    before = torch.get_rng_state()
    xcam.load(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_saving_copies_no_weights():
    net = Pooled()
    held = copy_to_own_memory(net.state_dict())
    for name, tensor in net.state_dict().items():
        assert held[name].data_ptr() == tensor.data_ptr()


def test_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    exec(compile("\n".join(blocks), PAGE, "exec"), names)
    assert torch.equal(names["again"](names["images"]), names["net"](names["images"]))
    assert (names["back"].mean.item(), names["back"].categories) == (0.5, tuple("abcd"))
