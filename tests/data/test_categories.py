"""Names of classes: where they are found, and which are the same."""

import pytest
import torch
from colored import colored_folder, write_pictures
from torch import nn
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet50_Weights
from torchvision.transforms import v2

import xcam
from xcam.data.categories import list_categories, match_categories, number_classes
from xcam.data.datasets import list_labels
from xcam.data.imagenet import find_imagenet_numbers

IMAGENET = tuple(ResNet50_Weights.DEFAULT.meta["categories"])
IN_LEXICAL_ORDER = tuple(sorted(map(str, range(12))))


@pytest.mark.parametrize(
    ("names", "reference", "numbers"),
    [
        (["dog", "cat"], ["cat", "dog"], (1, 0)),
        (["dog", "fox"], ["cat", "dog", "fox"], (1, 2)),
        (["Great_White-Shark", "DOG"], ["dog", "great white shark"], (1, 0)),
        (["cafe\u0301"], ["caf\u00e9"], (0,)),
        (["Cat", "cat"], ["cat", "Cat"], (1, 0)),
        (["Cat", "cat"], ["cat", "dog"], None),
        (["cat"], ["cat", "dog", "cat"], None),
        (["zebra"], ["cat", "dog"], None),
        (["class 07"], ["class 07", "class 7"], (0,)),
        (["03"], ["1", "2", "3"], (2,)),
        (IN_LEXICAL_ORDER, [f"kind {k}" for k in range(12)], tuple(map(int, IN_LEXICAL_ORDER))),
        (["0", "1"], ["cat", "dog", "fox"], None),
        (["n02123045", "n01440764_tench"], IMAGENET, (281, 0)),
        (["n02085620-Chihuahua"], IMAGENET, (151,)),
        (["tench, Tinca tinca", "English springer"], IMAGENET, (0, 217)),
        (["chain saw", "n03028079"], ["church", "chainsaw"], (1, 0)),
        (["n00000281"], IMAGENET, None),
        (["crane, crane"], ["n02012849", "n03126707"], None),
    ],
)
def test_names_are_matched(names, reference, numbers):
    assert match_categories(names, reference) == numbers


def test_words_for_all_of_imagenet_are_told_apart_by_their_place():
    timm = pytest.importorskip("timm.data").ImageNetInfo("imagenet-1k")
    words = [timm.index_to_description(k) for k in range(1000)]
    wnids = [timm.index_to_label_name(k) for k in range(1000)]
    assert words[134] == words[517] == "crane"
    for names in (words, wnids, list(IMAGENET)):
        assert find_imagenet_numbers(names) == list(range(1000))
    assert match_categories(words, IMAGENET) == tuple(range(1000))
    assert match_categories([f"class {k}" for k in range(1000)], IMAGENET) is None
    strange = [*wnids[:500], "n99999999", *wnids[501:]]
    assert match_categories(strange, IMAGENET) is None


def test_classes_are_refused_with_both_lists():
    sentence = (
        r"the classes of the data are dog, zebra; those of the model are cat, dog, fox; the model "
        r"has no zebra: rename"
    )
    with pytest.raises(ValueError, match=sentence):
        number_classes(["dog", "zebra"], ["cat", "dog", "fox"], lambda: 3)
    many = [f"c{k}" for k in range(1000)]
    with pytest.raises(ValueError, match=r"are c0, c1, c2, c3, c4, … \(1000\); those .* tench, "):
        number_classes(many, IMAGENET, lambda: 1000)


def test_names_of_other_outputs_count_as_none():
    assert number_classes(["cat", "dog"], IMAGENET, lambda: 2) is None
    assert number_classes(["cat", "dog"], ["0", "1"], lambda: 2) is None
    with pytest.raises(ValueError, match=r"its 2 classes \(cat, dog\), and the model has 3"):
        number_classes(["cat", "dog"], IMAGENET, lambda: 3)
    with pytest.raises(ValueError, match="are numbers in another order"):
        number_classes(IN_LEXICAL_ORDER, (), lambda: 12)


def test_labels_are_translated_and_checked():
    numbering = number_classes(["fox", "cat"], ["cat", "dog", "fox"], lambda: 3)
    assert numbering.translate(torch.tensor([0, 1, 0])).tolist() == [2, 0, 2]
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match=f"label {wrong} is out of range: the data names 2"):
            numbering.translate(torch.tensor([0, wrong]))


class Custom(TensorDataset):
    """A data set with names; its labels are the numbers that `class_to_idx` gives."""

    def __init__(self, **attributes):
        super().__init__(torch.zeros(2, 1), torch.tensor([0, 1]))
        vars(self).update(attributes)


def test_labels_with_gaps_are_numbers_of_the_model(tmp_path):
    class Numbered(ImageFolder):
        def find_classes(self, directory):
            return ["cat", "dog"], {"cat": 1, "dog": 2}

    class Constant(nn.Module):
        categories = ("bird", "cat", "dog")

        def forward(self, images):
            return torch.tensor([[0.0, 1.0, 0.0]]).expand(len(images), 3)

    colored_folder(tmp_path, ["cat", "dog"])
    data = Numbered(tmp_path, transform=v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32)]))
    correct = xcam.accuracy(Constant(), data).set_index("class")["correct"]
    assert correct.to_dict() == {"bird": 0, "cat": 2, "dog": 0, "all": 2}


def test_names_are_read_from_any_data_set(tmp_path):
    ours = colored_folder(tmp_path, ["dog", "cat"])
    theirs = ImageFolder(tmp_path)
    for data in (ours, theirs, Subset(theirs, [3]), ConcatDataset([ours, Subset(theirs, [0])])):
        assert list_categories(data) == ("cat", "dog")
        assert list_labels(data)[-1] == (0 if isinstance(data, ConcatDataset) else 1)
    assert list_labels(theirs) == [0, 0, 1, 1]
    moved = ImageFolder(tmp_path, target_transform=lambda label: label + 2)
    assert (list_categories(moved), list_labels(moved)) == ((), [2, 2, 3, 3])
    assert list_categories(xcam.data.relabel(ours, [4, 4, 0, 0])) == ()
    assert list_categories(Custom(classes=["a", "b"], class_to_idx={"a": 1, "b": 0})) == ("b", "a")
    gaps = {"tench": 0, "English springer": 217}  # what ImageFolder.find_classes may return
    assert list_categories(Custom(classes=[*gaps], class_to_idx=gaps)) == ()
    assert list_categories(Custom(categories=("a", "b"))) == ("a", "b")
    assert list_categories(Custom(classes=[("tench", "Tinca tinca"), ("eel",)])) == (
        "tench, Tinca tinca",
        "eel",
    )
    assert list_categories(Custom(classes=2)) == list_categories(Custom()) == ()
    assert list_labels(Custom()) == [0, 1]


def test_parts_with_other_names_are_refused(tmp_path):
    one, two = (colored_folder(tmp_path / n[0], n) for n in (["cat", "dog"], ["dog", "fox"]))
    with pytest.raises(ValueError, match=r"differently: cat, dog; and dog, fox, so that a label"):
        list_categories(ConcatDataset([one, two]))
    for root in (tmp_path / "cat", tmp_path / "dog"):  # the remedy
        for name in ("cat", "dog", "fox"):
            (root / name).mkdir(exist_ok=True)
    parts = [xcam.data.folder(tmp_path / name, 16) for name in ("cat", "dog")]
    assert list_categories(ConcatDataset(parts)) == ("cat", "dog", "fox")


@pytest.mark.parametrize("pattern", ["{}", "{:03d}"])
def test_folders_named_by_numbers_have_these_labels(tmp_path, pattern):
    names = [pattern.format(number) for number in range(12)]
    data = colored_folder(tmp_path, dict.fromkeys(names, "cat"), count=1)
    assert data.classes == tuple(names)
    assert data.labels == tuple(range(12))
    assert [int(name.split("/")[0]) for name in data.ids] == list(range(12))
    splits = xcam.data.load("folder", _split(tmp_path, names), train=[], test=[])
    assert splits.train.labels == tuple(range(12))
    assert splits.test.labels == tuple(k for k in range(12) if k != 4)  # by name


def _split(root, names):
    """The same as training images, and test images without one class."""
    write_pictures(root / "both" / "train", dict.fromkeys(names, "cat"), 1)
    write_pictures(root / "both" / "val", dict.fromkeys(names[:4] + names[5:], "cat"), 1)
    return root / "both"


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["0", "1", "3"], r"which count from 0, and 2 is missing \(0, 1, 3\): add an empty folder"),
        (["1", "2"], "and 0 is missing"),
        (["0", "1", "01"], "1 is there twice"),
    ],
)
def test_folders_whose_numbers_leave_gaps_are_refused(tmp_path, names, sentence):
    write_pictures(tmp_path, dict.fromkeys(names, "cat"), 1)
    with pytest.raises(ValueError, match=sentence):
        xcam.data.folder(tmp_path, 16)
    if "missing" in sentence:  # the remedy
        (tmp_path / sentence.split(" is missing")[0][-1]).mkdir()
        assert xcam.data.folder(tmp_path, 16).labels == tuple(map(int, names))


def test_thousand_folders_are_imagenets_only_by_name(tmp_path):
    for number in range(1000):
        (tmp_path / "train" / f"kind{number:03d}").mkdir(parents=True)
    write_pictures(tmp_path / "train", {"kind281": "cat"}, 1)
    splits = xcam.data.load("imagenet", tmp_path)
    assert splits.classes[281] == "kind281"
    with pytest.raises(ValueError, match=r"kind000, .* \(1000\); those of the model are tench"):
        number_classes(list_categories(splits.train), IMAGENET, lambda: 1000)


def test_imagenets_folders_are_numbered_by_name(tmp_path):
    for name in IMAGENET:
        (tmp_path / "val" / name.replace("/", " ")).mkdir(parents=True)
    write_pictures(tmp_path / "val", {"toilet tissue": "cat", "tench": "cat"}, 1)
    splits = xcam.data.load("imagenet", tmp_path)
    assert splits.classes == IMAGENET
    assert sorted(splits.test.labels) == [0, 999]
