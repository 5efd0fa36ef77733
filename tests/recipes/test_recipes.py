import functools
import inspect
import itertools
import re
import shlex
from pathlib import Path

import pytest
import recipe_pages
import torch
from commands import run
from small_mnist import write_mnist
from torchvision.models import get_model_weights

import xcam
from xcam import recipes
from xcam.cli import fitting
from xcam.data.transforms import make_pipeline
from xcam.errors import FileFormatError

ROOT = Path(__file__).parents[2]
NAMES = recipes.names()
METHODS = ("abn", "calm", "castream", "lcam_fm", "lcam_img", "lficam")
CROP = [{"name": "RandomCrop", "size": 32, "padding": 4}, {"name": "RandomHorizontalFlip"}]
CROP_224 = [{"name": "RandomResizedCrop", "size": 224}, {"name": "RandomHorizontalFlip"}]
CUT_224 = [
    {"name": "Resize", "size": 256}, {"name": "RandomCrop", "size": 224},
    {"name": "RandomHorizontalFlip"},
]  # fmt: skip
CENTRE_224 = [{"name": "Resize", "size": 256}, {"name": "CenterCrop", "size": 224}]
SQUARE_224 = [{"name": "Resize", "size": [224, 224]}]
JITTER_224 = [*SQUARE_224, *CROP_224, {"name": "ColorJitter", "brightness": 0.4}]
CIFAR = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])

# What the papers' repositories say, written down by hand. Of the images: mean and deviation,
# transforms of training and of testing, what validates.
WHITE_BOX = {"fraction": 0.2, "seed": 223}
ATTENTION = ("simple_cnn_cam", "simple_cnn_cbam", "ran", "warn")
SMALL = (CIFAR, CROP, None, None)
LARGE = (None, CROP_224, CENTRE_224, None)
CUT = (None, CUT_224, CENTRE_224, None)
CUT_SQUARE = (None, [{**CUT_224[0], "size": [256, 256]}, *CUT_224[1:]], SQUARE_224, None)
SQUARE = (None, JITTER_224, SQUARE_224, {"fraction": 1 / 6, "seed": 0})
PUBLISHED = {  # epochs, batch, rate, weight decay, drops, their factor, classes, images
    "mnist_simple_cnn": (
        30, 128, 0.01, 5e-4, None, None, 10, ([0.1307], [0.3081]), None, None, WHITE_BOX
    ),
    "cifar10_simple_cnn": (100, 128, 0.01, 5e-4, None, None, 10, CIFAR, CROP, None, WHITE_BOX),
    "fashion_mnist_simple_cnn": (
        30, 128, 0.01, 5e-4, None, None, 10, ([0.2860], [0.3530]), None, None, WHITE_BOX
    ),
    **{
        f"whitebox_mnist_{net}": (
            30, 128, 0.01, 5e-4, None, None, 10, ([0.1307], [0.3081]), None, None, WHITE_BOX
        )
        for net in ATTENTION
    },
    **{
        f"whitebox_cifar10_{net}": (
            100, 128, 0.01, 5e-4, None, None, 10, CIFAR, CROP, None, WHITE_BOX
        )
        for net in ATTENTION
    },
    "cifar10_resnet110": (300, 128, 0.1, 1e-4, [150, 225], 0.1, 10, *SMALL),
    "cifar100_resnet110": (300, 128, 0.1, 1e-4, [150, 225], 0.1, 100, *SMALL),
    "cifar10_densenet_bc_100_12": (300, 64, 0.1, 1e-4, [150, 225], 0.1, 10, *SMALL),
    "cifar100_densenet_bc_100_12": (300, 64, 0.1, 1e-4, [150, 225], 0.1, 100, *SMALL),
    "cifar10_resnext29_8x64d": (300, 128, 0.1, 5e-4, [150, 225], 0.1, 10, *SMALL),
    "cifar100_resnext29_8x64d": (300, 128, 0.1, 5e-4, [150, 225], 0.1, 100, *SMALL),
    "cifar10_wrn_28_10": (200, 128, 0.1, 5e-4, [60, 120, 160], 0.2, 10, *SMALL),
    "cifar100_wrn_28_10": (200, 128, 0.1, 5e-4, [60, 120, 160], 0.2, 100, *SMALL),
    "stl10_resnet18": (300, 256, 0.1, 1e-4, [150, 225], 0.1, 10, CIFAR, *LARGE[1:]),
    "catdog_resnet18": (300, 256, 0.1, 1e-4, [150, 225], 0.1, 2, *LARGE),
    "imagenet_resnet50_300_epochs": (300, 256, 0.1, 1e-4, [150, 225], 0.1, 1000, *LARGE),
    "imagenet_resnet50_90_epochs": (90, 256, 0.1, 1e-4, [31, 61], 0.1, 1000, *LARGE),
    "imagenet_resnet50_resnet_orig": (90, 256, 0.1, 1e-4, [30, 60, 90], 0.1, 1000, *SQUARE),
    "imagenet_resnet50_vit_mod": (90, 256, 9e-3, 0.3, None, None, 1000, *SQUARE),
    "lficam_cifar10_resnet110": (300, 128, 0.1, 1e-4, [150, 225], 0.1, 10, *SMALL),
    "lficam_cifar100_resnet110": (300, 128, 0.1, 1e-4, [150, 225], 0.1, 100, *SMALL),
    "lficam_stl10_resnet18": (300, 256, 0.1, 1e-4, [150, 225], 0.1, 10, CIFAR, *LARGE[1:]),
    "lficam_catdog_resnet18": (300, 256, 0.1, 1e-4, [150, 225], 0.1, 2, *LARGE),
    "lficam_imagenet_resnet50": (300, 256, 0.1, 1e-4, [150, 225], 0.1, 1000, *LARGE),
    "abn_cifar10_resnet110": (300, 128, 0.1, 1e-4, [150, 225], 0.1, 10, *SMALL),
    "abn_cifar100_resnet110": (300, 128, 0.1, 1e-4, [150, 225], 0.1, 100, *SMALL),
    "abn_cifar100_densenet_bc_100_12": (300, 64, 0.1, 1e-4, [150, 225], 0.1, 100, *SMALL),
    "abn_cifar100_resnext29_8x64d": (300, 128, 0.1, 5e-4, [150, 225], 0.1, 100, *SMALL),
    "abn_cifar100_wrn_28_10": (200, 128, 0.1, 5e-4, [60, 120, 160], 0.2, 100, *SMALL),
    "abn_stl10_resnet18": (300, 256, 0.1, 1e-4, [150, 225], 0.1, 10, CIFAR, *LARGE[1:]),
    "abn_catdog_resnet18": (300, 256, 0.1, 1e-4, [150, 225], 0.1, 2, *LARGE),
    "abn_imagenet_resnet50": (90, 256, 0.1, 1e-4, [31, 61], 0.1, 1000, *LARGE),
    "abn_imagenet_resnet152": (90, 256, 0.1, 1e-4, [31, 61], 0.1, 1000, *LARGE),
    "calm_cub_resnet50": (40, 64, 0.01, 1e-4, [29], 0.1, 200, *CUT_SQUARE),
    "calm_openimages_resnet50": (40, 64, 0.01, 1e-4, [29], 0.1, 100, *CUT_SQUARE),
    "calm_imagenet_resnet50": (40, 64, 0.01, 1e-4, [29], 0.1, 1000, *CUT_SQUARE),
    "castream_imagenet_resnet50": (90, 256, 0.1, 1e-4, [30, 60, 90], 0.1, 1000, *SQUARE),
    "castream_imagenet_resnet50_vit_mod": (90, 256, 9e-3, 0.3, None, None, 1000, *SQUARE),
    "castream_cub_resnet50": (90, 256, 0.1, 1e-4, [30, 60, 90], 0.1, 200, *SQUARE),
    "castream_voc_resnet50": (12, 256, 1e-4, None, None, None, 20, *SQUARE),
    "lcam_fm_vgg16": (8, 64, 1e-2, 5e-4, [*range(1, 23)], 0.75, 1000, *CUT),
    "lcam_img_vgg16": (8, 64, 1e-2, 5e-4, [*range(1, 23)], 0.75, 1000, *CUT),
    "lcam_fm_resnet50": (26, 64, 1e-4, 5e-4, [*range(1, 13)], 0.95, 1000, *CUT),
    "lcam_img_resnet50": (26, 64, 1e-4, 5e-4, [*range(1, 13)], 0.95, 1000, *CUT),
}  # fmt: skip

# Net, with its settings beside the classes and the images' statistics; data.
SIMPLE_1 = {"name": "xcam:simple_cnn", "in_channels": 1, "input_size": 28}
SIMPLE_3 = {"name": "xcam:simple_cnn", "in_channels": 3, "input_size": 32}
RESNET_110 = {"name": "xcam:cifar_resnet", "depth": 110}
DENSENET = {"name": "xcam:cifar_densenet", "depth": 100, "growth": 12}
RESNEXT = {"name": "xcam:cifar_resnext", "depth": 29, "cardinality": 8, "widen": 4}
WRN = {"name": "xcam:cifar_wide_resnet", "depth": 28, "widen": 10, "dropout": 0.3}
RESNET_18 = {"name": "torchvision:resnet18"}
RESNET_50 = {"name": "torchvision:resnet50"}
RESNET_152 = {"name": "torchvision:resnet152"}
TRAINED_VGG_16 = {"name": "torchvision:vgg16", "weights": "IMAGENET1K_V1"}
CALM_RESNET_50 = {
    "name": "xcam:calm_resnet", "weights": "IMAGENET1K_V1", "depth": 50, "large_feature_map": True
}  # fmt: skip
TRAINED_RESNET_50 = RESNET_50 | {"weights": "IMAGENET1K_V1"}
NETS = {
    "mnist_simple_cnn": (SIMPLE_1, "mnist"),
    "cifar10_simple_cnn": (SIMPLE_3, "cifar10"),
    "fashion_mnist_simple_cnn": (SIMPLE_1, "fashion_mnist"),
    "whitebox_mnist_simple_cnn_cam": (SIMPLE_1 | {"attention": "cam"}, "mnist"),
    "whitebox_mnist_simple_cnn_cbam": (SIMPLE_1 | {"attention": "cbam"}, "mnist"),
    "whitebox_mnist_ran": ({"name": "xcam:ran", "in_channels": 1}, "mnist"),
    "whitebox_mnist_warn": ({"name": "xcam:warn", "in_channels": 1}, "mnist"),
    "whitebox_cifar10_simple_cnn_cam": (SIMPLE_3 | {"attention": "cam"}, "cifar10"),
    "whitebox_cifar10_simple_cnn_cbam": (SIMPLE_3 | {"attention": "cbam"}, "cifar10"),
    "whitebox_cifar10_ran": ({"name": "xcam:ran", "in_channels": 3}, "cifar10"),
    "whitebox_cifar10_warn": ({"name": "xcam:warn", "in_channels": 3}, "cifar10"),
    "cifar10_resnet110": (RESNET_110, "cifar10"),
    "cifar100_resnet110": (RESNET_110, "cifar100"),
    "cifar10_densenet_bc_100_12": (DENSENET, "cifar10"),
    "cifar100_densenet_bc_100_12": (DENSENET, "cifar100"),
    "cifar10_resnext29_8x64d": (RESNEXT, "cifar10"),
    "cifar100_resnext29_8x64d": (RESNEXT, "cifar100"),
    "cifar10_wrn_28_10": (WRN, "cifar10"),
    "cifar100_wrn_28_10": (WRN, "cifar100"),
    "stl10_resnet18": (RESNET_18, "stl10"),
    "catdog_resnet18": (RESNET_18, "folder"),
    "imagenet_resnet50_300_epochs": (RESNET_50, "imagenet"),
    "imagenet_resnet50_90_epochs": (RESNET_50, "imagenet"),
    "imagenet_resnet50_resnet_orig": (RESNET_50, "imagenet"),
    "imagenet_resnet50_vit_mod": (RESNET_50, "imagenet"),
    "lficam_cifar10_resnet110": (RESNET_110, "cifar10"),
    "lficam_cifar100_resnet110": (RESNET_110, "cifar100"),
    "lficam_stl10_resnet18": (RESNET_18, "stl10"),
    "lficam_catdog_resnet18": (RESNET_18, "folder"),
    "lficam_imagenet_resnet50": (RESNET_50, "imagenet"),
    "abn_cifar10_resnet110": (RESNET_110, "cifar10"),
    "abn_cifar100_resnet110": (RESNET_110, "cifar100"),
    "abn_cifar100_densenet_bc_100_12": (DENSENET, "cifar100"),
    "abn_cifar100_resnext29_8x64d": (RESNEXT, "cifar100"),
    "abn_cifar100_wrn_28_10": (WRN, "cifar100"),
    "abn_stl10_resnet18": (RESNET_18, "stl10"),
    "abn_catdog_resnet18": (RESNET_18, "folder"),
    "abn_imagenet_resnet50": (RESNET_50, "imagenet"),
    "abn_imagenet_resnet152": (RESNET_152, "imagenet"),
    "calm_cub_resnet50": (CALM_RESNET_50, "list"),
    "calm_openimages_resnet50": (CALM_RESNET_50, "list"),
    "calm_imagenet_resnet50": (CALM_RESNET_50, "imagenet"),
    "castream_imagenet_resnet50": (TRAINED_RESNET_50, "imagenet"),
    "castream_imagenet_resnet50_vit_mod": (TRAINED_RESNET_50, "imagenet"),
    "castream_cub_resnet50": (RESNET_50, "list"),
    "castream_voc_resnet50": (RESNET_50, "voc"),
    "lcam_fm_vgg16": (TRAINED_VGG_16, "imagenet"),
    "lcam_img_vgg16": (TRAINED_VGG_16, "imagenet"),
    "lcam_fm_resnet50": (TRAINED_RESNET_50, "imagenet"),
    "lcam_img_resnet50": (TRAINED_RESNET_50, "imagenet"),
}

TEN_TIMES = {"^(?!.*(conv1|layer[123]))": {"lr_factor": 10}}


def method_settings(table):
    """The part of [fit] that is the method's: its name, and its fields."""
    if "method" not in table:
        return {}
    known = {"method", *inspect.signature(xcam.get_method(table["method"])).parameters}
    return {name: value for name, value in table.items() if name in known}


# One of each set of settings.
KINDS = {(*(table := recipes.read(name)["fit"]), table.get("method")): name for name in NAMES}
HEADS = {  # how many parameters a method adds, known from the papers' code
    "lficam_cifar10_resnet110": 2_361_344,
    "lficam_stl10_resnet18": 9_441_280,
    "lficam_imagenet_resnet50": 151_011_328,
    "abn_cifar10_resnet110": 1_295_572,
    "abn_cifar100_resnet110": 1_329_502,
    "abn_imagenet_resnet152": 18_027_834,
    "calm_cub_resnet50": 2049,  # the attention: the other convolution takes the place of fc
    "calm_imagenet_resnet50": 2049,
    "castream_imagenet_resnet50": 6_969_152,
    "lcam_fm_vgg16": 513_000,
    "lcam_img_vgg16": 513_000,
    "lcam_fm_resnet50": 2_049_000,
    "lcam_img_resnet50": 2_049_000,
}
PARAMETERS = {  # of the nets, known from elsewhere
    "mnist_simple_cnn": 1_284_042,
    "cifar10_simple_cnn": 2_202_122,
    "whitebox_mnist_simple_cnn_cam": 94_410,
    "whitebox_cifar10_simple_cnn_cbam": 2_205_351,
    "whitebox_mnist_ran": 18_199_562,
    "whitebox_cifar10_warn": 6_043_650,
    "cifar10_densenet_bc_100_12": 769_162,
    "cifar100_densenet_bc_100_12": 800_032,
    "cifar10_wrn_28_10": 36_479_194,
    "catdog_resnet18": 11_177_538,
    "imagenet_resnet50_90_epochs": 25_557_032,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_net_and_data_are_the_published_ones(name):
    recipe = recipes.read(name)
    net, data = NETS[name]
    classes, statistics = PUBLISHED[name][6:8]
    pixels = {"mean": statistics[0], "std": statistics[1]} if statistics else {}
    assert recipe["model"] == net | {"num_classes": classes} | pixels
    assert recipe["data"]["name"] == data


@pytest.mark.parametrize("name", PUBLISHED)
def test_fit_settings_are_the_published_ones(name):
    recipe = recipes.read(name)
    table, data, model = recipe["fit"], recipe["data"], recipe["model"]
    schedule = table.get("schedule", {})
    statistics = (model["mean"], model["std"]) if "mean" in model else None
    assert PUBLISHED[name] == (
        table["epochs"],
        table["batch_size"],
        table["optimizer"]["lr"],
        table["optimizer"].get("weight_decay"),
        schedule.get("milestones"),
        schedule.get("gamma"),
        model["num_classes"],
        statistics,
        data.get("train"),
        data.get("test"),
        data.get("validation"),
    )
    if table["optimizer"]["name"] == "SGD":
        assert table["optimizer"]["momentum"] == 0.9
        assert bool(table["optimizer"].get("nesterov")) == name.startswith(("calm", "lcam"))
    assert table.get("seed") == (223 if PUBLISHED[name][-1] is WHITE_BOX else None)


@pytest.mark.parametrize("name", ["imagenet_resnet50", "castream_imagenet_resnet50"])
def test_settings_that_only_vit_mod_has(name):
    table = recipes.read(f"{name}_vit_mod")["fit"]
    assert table["optimizer"] == {"name": "AdamW", "lr": 0.009, "weight_decay": 0.3}
    assert table["schedule"] == {
        "name": "CosineAnnealingLR", "T_max": 100, "warmup": 10, "warmup_factor": 0.009
    }  # fmt: skip
    assert table["mix"] == {"mixup": 0.2, "cutmix": 1.0}
    assert table.get("label_smoothing") == (None if name.startswith("castream") else 0.11)
    assert table["ema"] == {
        "decay": pytest.approx(1 - 2e-5 * table["batch_size"] * 32 / table["epochs"], abs=1e-6),
        "every": 32,
    }


@pytest.mark.parametrize("name", NAMES)
def test_recipe_has_the_method_and_fields_of_its_name(name):
    recipe = recipes.read(name)
    own = method_settings(recipe["fit"])
    (known,) = [method for method in METHODS if name.startswith(method)] or [""]
    assert own.pop("method", "") == known
    lcam = known.startswith("lcam")
    if known == "lficam":  # of the authors' nets those for 224 pixels a side have another stem
        wanted = {"fin_relu": "alternate"} if "cifar" in name else {"stem_stride": 1}
    elif known == "abn":
        wanted = {"branch_norm": False} if "resnext" in name else {}
    else:
        wanted = {"mask_reg": "batch_labels"} if lcam else {}
        wanted |= {"loss": "em"} if known == "calm" else {}
    assert own == wanted
    groups = {"lcam": {"bias$": {"lr_factor": 2}}, "calm": TEN_TIMES}.get(known[:4])
    assert recipe["fit"].get("groups") == groups


VGG, INCEPTION = "^(?!.*features)", "^(?!.*(Mixed|Conv2d_[1-4]))"


@pytest.mark.parametrize(
    ("name", "pattern", "fast", "slow"),
    [
        ("calm_resnet", None, 33, 130),
        ("calm_vgg16", VGG, 6, 26),
        ("calm_inception_v3", INCEPTION, 8, 3 * 70),
    ],
)
def test_groups_of_calm_split_its_nets_as_published(name, pattern, fast, slow):
    changes = [f"model.name=xcam:{name}"]
    if pattern:  # as the notes advise
        changes += ["model.depth=none", f'fit.groups={{"{pattern}"={{lr_factor=10}}}}']
    recipe = recipes.read("calm_cub_resnet50", fitting.parse_changes(changes))
    assert f"xcam:{name}" in recipe["notes"] or not pattern
    assert pattern is None or pattern in recipe["notes"]
    recipe["model"].pop("weights")
    with torch.device("meta"):
        net = xcam.get_method("calm")().attach(xcam.models.load(**recipe["model"]))
    (pattern,) = recipe["fit"]["groups"]
    names = [name for name, _ in net.named_parameters()]
    found = [name for name in names if re.search(pattern, name)]
    assert (len(found), len(names) - len(found)) == (fast, slow)
    assert "model.head.attention.weight" in found


@pytest.mark.parametrize("name", NAMES)
def test_recipe_has_title_source_notes_and_command(name):
    recipe = recipes.read(name)
    assert recipe["title"]
    assert recipe["source"]
    assert recipe["notes"].strip()
    assert bool(recipe["command"]) != recipe["source"].startswith("xcam's own")
    assert name in PUBLISHED, "write its settings down above"
    assert name in NETS, "write its net and its data down above"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_names_is_there(name, tmp_path):
    recipe = recipes.read(name)
    with pytest.raises(FileNotFoundError):  # the name and the transforms are known by then
        xcam.data.load(root=tmp_path / "nothing", **recipe["data"])
    optimizer = built(torch.optim, recipe["fit"]["optimizer"], [torch.zeros(1, requires_grad=True)])
    if schedule := recipe["fit"].get("schedule"):
        built(torch.optim.lr_scheduler, schedule, optimizer)
    channels, side = (1, 28) if "mnist" in name else (3, 32 if "cifar" in name else 224)
    before = side if side < 224 else 240
    image = torch.zeros(channels, before, before, dtype=torch.uint8)
    for part in ("train", "test"):
        assert make_pipeline(recipe["data"].get(part, []))(image).shape == (channels, side, side)


def built(module, settings, *args):
    """An object of torch's own class."""
    ours = ("name", "warmup", "warmup_factor", "per")
    return getattr(module, settings["name"])(
        *args, **{key: entry for key, entry in settings.items() if key not in ours}
    )


@pytest.mark.parametrize("name", NAMES)
def test_net_of_a_recipe_runs_and_has_the_expected_size(name):
    recipe = recipes.read(name)
    model, own = recipe["model"], method_settings(recipe["fit"])
    provided = model.pop("weights", None)  # not downloaded here
    original = model["name"].split(":")[1].replace("calm_resnet", "resnet50")
    assert provided is None or provided in get_model_weights(original).__members__
    side = 28 if "mnist" in name else 32 if "cifar" in name else 224
    with torch.device("meta"):
        net = xcam.models.load(**model)
        whole = xcam.get_method(own.pop("method"))(**own).attach(net) if own else net
        images = torch.zeros(2, len(net.mean), side, side)
        assert whole(images).shape == (2, model["num_classes"])
    if name in PARAMETERS:
        assert parameters(net) == PARAMETERS[name]
    if name in HEADS:
        assert parameters(whole) - parameters(net) == HEADS[name]


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_mnist(tmp_path_factory.mktemp("digits"))


TINY = {
    "model": {"name": "xcam:simple_cnn", "num_classes": 10, "in_channels": 1, "input_size": 28},
    "data": {"name": "mnist", "validation": {"fraction": 0.2, "seed": 1}},
    "fit": {"epochs": 1, "batch_size": 16, "optimizer": {"name": "SGD", "lr": 0.05}, "seed": 3},
}


class TestTraining:
    def test_training_by_a_recipe_is_that_of_fit(self, digits):
        torch.manual_seed(5)
        state = torch.get_rng_state()
        net = recipes.fit(TINY, digits)
        assert torch.equal(torch.get_rng_state(), state)

        torch.manual_seed(3)
        start = xcam.models.load(**TINY["model"])
        splits = xcam.data.load("mnist", digits, validation={"fraction": 0.2, "seed": 1})
        expected = xcam.fit(
            start, splits.train, validation=splits.validation, epochs=1, batch_size=16,
            optimizer={"name": "SGD", "lr": 0.05}, seed=3,
        )  # fmt: skip
        assert same(net, expected)
        assert net.categories == tuple(splits.classes)
        assert not same(net, recipes.fit(TINY, digits, seed=4))

    @pytest.mark.parametrize("name", KINDS.values())
    def test_fit_accepts_the_settings_of_a_recipe(self, name, digits, tmp_path):
        model = {"name": "xcam:cifar_resnet", "depth": 8, "in_channels": 1}
        xcam.save(xcam.models.load(**model), tmp_path / "net.safetensors")
        model["weights"] = str(tmp_path / "net.safetensors")
        table = recipes.read(name, {"epochs": 1, "batch_size": 16, "stem_stride": None})["fit"]
        net = recipes.fit({"model": model, "data": {"name": "mnist"}, "fit": table}, digits)
        assert all(parameter.isfinite().all() for parameter in net.parameters())

    def test_accuracy_is_that_of_the_test_images(self, digits, tmp_path):
        net = recipes.fit(TINY, digits)
        xcam.save(net, tmp_path / "net.safetensors")
        found = recipes.accuracy(TINY, digits, tmp_path / "net.safetensors")
        expected = xcam.accuracy(net, xcam.data.load("mnist", digits).test)
        assert found.equals(expected)

    def test_another_number_of_classes(self, digits):
        recipe = TINY | {"model": TINY["model"] | {"num_classes": 5}}
        with pytest.raises(ValueError, match=r"has 5 classes and the data have 10: change"):
            recipes.fit(recipe, digits)

    def test_incomplete_or_misspelled_recipe_is_refused(self, digits):
        with pytest.raises(FileFormatError, match=r"the recipe lacks 'name' in \[data\]"):
            recipes.fit({"model": TINY["model"], "fit": TINY["fit"]}, digits)
        with pytest.raises(TypeError, match=r"\[fit\] of the recipe has no argument 'epoch'"):
            recipes.fit(TINY | {"fit": TINY["fit"] | {"epoch": 1}}, digits)

    def test_no_test_images(self, tmp_path, monkeypatch):
        splits = xcam.data.Splits(None, None, None, ())
        empty = functools.wraps(xcam.data.load)(lambda **_: splits)
        monkeypatch.setattr(xcam.data, "load", empty)
        monkeypatch.setattr(xcam, "load", lambda _: None)
        with pytest.raises(ValueError, match=r"the data 'mnist' at 'here' have no test images"):
            recipes.accuracy(TINY, "here", "net.safetensors")
        with pytest.raises(ValueError, match=r"the data 'mnist' at 'here' have no training images"):
            recipes.fit(TINY, "here")


def same(net, other):
    states = net.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[1])


class TestPages:
    def test_every_recipe_is_in_the_table_and_has_a_section(self):
        page = recipe_pages.recipes_page()
        for name in NAMES:
            recipe = recipes.read(name)
            ours = f"xcam fit --recipe {name} --root DATA --out RUN"
            row = f"| `{ours}` | `{next(iter(recipe['fit']))}="
            assert f"`{recipe['command']}` {row}" in page or f"| none {row}" in page
            assert f"\n{ours}             # train" in page
            assert f"\n{ours} --evaluate  # measure" in page
            assert f"\n## {recipe['title']}\n\n`{name}` · " in page
            assert recipe["notes"].strip() in page
        assert "optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=0.0001), schedule=Mu" in page
        rows = [line for line in page.splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}

    def test_commands_and_recipes_on_the_originals_page_exist(self):
        """Its commands have these options, its recipes and what is changed in them are there."""
        text = (ROOT / "docs/coming_from/originals.md").read_text("utf-8")
        lines = [shlex.split(line) for line in re.findall(r"`((?:xcam|--set) [^`]*)`", text)]
        assert len(lines) > 15
        commands = {words[1] for words in lines if words[0] == "xcam"}
        helps = {name: run(name, "--help").stdout for name in commands}
        for words in lines:
            pairs = list(itertools.pairwise(words))
            if "--recipe" in words or words[0] == "--set":
                named = [after for word, after in pairs if word == "--recipe"]
                changes = [after for word, after in pairs if word == "--set"]
                recipes.read(*named or ["lcam_fm_vgg16"], fitting.parse_changes(changes))
            table = helps["fit" if words[0] == "--set" else words[1]]
            options = [word for word in words if word.startswith("--")]
            assert all(re.search(rf"(  |[/,] ){option} ", table) for option in options)
        methods = {recipes.read(name)["fit"].get("method") for name in NAMES} - {None}
        assert methods == set(METHODS)
        assert all(f"--recipe {method}_" in text for method in methods)

    def test_example_on_the_recipes_page_is_a_valid_recipe(self, tmp_path):
        (text,) = re.findall(
            r"```toml\n(.*?)```", (ROOT / "docs/howto/recipes.md").read_text(), re.DOTALL
        )
        (tmp_path / "mine.toml").write_text(text)
        recipe = recipes.read(tmp_path / "mine.toml")
        net = xcam.models.load(**recipe["model"])
        assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
