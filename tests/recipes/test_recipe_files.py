import copy
import re
import sys

import pytest
import recipe_pages

from xcam import recipes
from xcam.errors import FileFormatError, UnknownNameError
from xcam.recipes.reading import parse_value

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class TestChanges:
    def test_changes_are_applied_by_dotted_names(self):
        whole = recipes.read("cifar10_resnet110")
        changed = recipes.read("cifar10_resnet110", {
            "epochs": 2, "optimizer.lr": 0.05, "model.num_classes": 5, "fit.clip": 1.0,
            "data.train": [], "schedule": None, "ema.decay": 0.9, "model.weights": None,
        })  # fmt: skip
        expected = copy.deepcopy(whole)
        expected["fit"] |= {"epochs": 2, "clip": 1.0, "ema": {"decay": 0.9}}
        expected["fit"]["optimizer"]["lr"] = 0.05
        expected["model"]["num_classes"] = 5
        expected["data"]["train"] = []
        del expected["fit"]["schedule"]
        assert changed == expected
        assert recipes.read("cifar10_resnet110") == whole

    @pytest.mark.parametrize(
        ("text", "meaning"),
        [
            ("0.1", 0.1), ("5e-4", 5e-4), ("2", 2), ("[1, 2]", [1, 2]), ("true", True),
            ('{name = "Adam", lr = 0.1}', {"name": "Adam", "lr": 0.1}), ('"1"', "1"), ("''", ""),
            ("bf16", "bf16"), ("torchvision:resnet18", "torchvision:resnet18"), ("none", None),
            ("lists/val.csv", "lists/val.csv"), ("/data/val.csv", "/data/val.csv"),
        ],
    )  # fmt: skip
    def test_value_is_parsed_as_toml_or_as_a_word(self, text, meaning):
        assert parse_value(text) == meaning
        assert type(parse_value(text)) is type(meaning)

    @pytest.mark.parametrize("text", ["", "[1, 2", "{a = }", "1e", "0.1.2", "1\nseed = 2", "'a"])
    def test_text_that_is_neither_is_refused(self, text):
        with pytest.raises(ValueError, match=r"is neither a value of TOML nor a word"):
            parse_value(text)


class TestVariants:
    def test_variant_replaces_and_keeps_settings_of_its_file(self):
        base, variant = map(recipes.read, ("cifar10_resnet110", "cifar100_wrn_28_10"))
        assert variant["model"]["name"] == "xcam:cifar_wide_resnet"
        assert variant["model"]["mean"] == base["model"]["mean"]
        assert variant["data"] == {**base["data"], "name": "cifar100"}
        assert variant["fit"]["schedule"]["milestones"] == [60, 120, 160]
        assert variant["title"] != base["title"]

    def test_file_of_variants_is_no_recipe_itself(self):
        with pytest.raises(UnknownNameError, match="cifar_classifiers"):
            recipes.read("cifar_classifiers")

    def test_file_with_a_byte_order_mark(self, tmp_path):
        path = tmp_path / "mine.toml"
        path.write_text(recipe_pages.tables("mnist_simple_cnn"), "utf-8-sig")
        assert recipes.read(path)["fit"] == recipes.read("mnist_simple_cnn")["fit"]

    def test_change_of_what_was_read_stays_there(self):
        recipes.read("mnist_simple_cnn")["fit"]["optimizer"]["lr"] = 5.0
        assert recipes.read("mnist_simple_cnn")["fit"]["optimizer"]["lr"] == 0.01


@pytest.mark.parametrize("name", recipes.names())
def test_page_shows_the_settings_that_are_read(name):
    recipe = recipes.read(name)
    shown = tomllib.loads(recipe_pages.tables(name))
    assert shown == {table: recipe[table] for table in ("model", "data", "fit")}


class TestRefusals:
    def test_unknown_name(self):
        with pytest.raises(UnknownNameError, match=r"'cifar_resnet110'.*cifar10_resnet110"):
            recipes.read("cifar_resnet110")

    def test_no_file(self, tmp_path):
        for path in (tmp_path / "mine.toml", str(tmp_path / "mine.toml")):
            with pytest.raises(FileNotFoundError, match=r"no recipe at '.*mine\.toml'"):
                recipes.read(path)

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("epoch", r"\[fit\] .* has no argument 'epoch': did you mean epochs"),
            ("device", r"\[fit\] .* has no argument 'device'"),
            ("out", r"\[fit\] .* has no argument 'out'"),
            ("data.rooot", r"\[data\] .* has no argument 'rooot'"),
            ("data.valid", r"\[data\] .* has no argument 'valid': did you mean validation"),
            ("model", r"\[fit\] .* has no argument 'model'"),
        ],
    )
    def test_unknown_setting(self, key, message):
        with pytest.raises(TypeError, match=message):
            recipes.read("mnist_simple_cnn", {key: 1})

    def test_change_inside_a_number_is_refused(self):
        with pytest.raises(ValueError, match=r"'epochs.more' finds no table at 'epochs', but 30"):
            recipes.read("mnist_simple_cnn", {"epochs.more": 1})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"schedule": None, "schedule.gamma": 0.1}, "set schedule.name first"),
            ({"optimizer": {}, "optimizer.lr": 0.1}, "has lr and no name; set"),
            ({"optimizer": "SGD", "optimizer.lr": 0.1}, "set optimizer.name=… first, and then its"),
        ],
    )
    def test_key_to_set_first_is_named(self, changes, message):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            recipes.read("mnist_simple_cnn", changes)

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("title = ", FileFormatError, "is no TOML: Invalid value"),
            (b"title = '\xff'", FileFormatError, "is no TOML"),
            ("titel = 'a'", TypeError, r"has no argument 'titel': did you mean title"),
            ("title = 1", FileFormatError, "'title' in the recipe .* must be text"),
            ("fit = 1", FileFormatError, "'fit' in the recipe .* must be a table"),
            ("", FileFormatError, r"lacks 'name' in \[model\]"),
            ("[model]\nname = 'a:b'", FileFormatError, r"lacks 'name' in \[data\]"),
            ("model.name = 'a'\ndata.name = 'b'", FileFormatError, r"lacks 'epochs' in \[fit\]"),
        ],
    )  # fmt: skip
    def test_files(self, tmp_path, text, error, message):
        path = tmp_path / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(error, match=message):
            recipes.read(path)
