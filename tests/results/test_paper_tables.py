"""L-CAM's table and figure: values, layout, the command."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from commands import refused, run
from evaluations import CONTROLS, Pictures, evaluate, loader
from torch.utils.data import DataLoader

import xcam
from xcam.core.figures import draw_grid
from xcam.metrics import Deletion, Insertion
from xcam.metrics.masked.muting import mute
from xcam.models import Normalized
from xcam.models.toy import GapNet
from xcam.results import figures
from xcam.results.tables import castream, lcam

SHARES = ("100%", "50%", "15%")
NET = Normalized(GapNet(num_classes=7), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def results():
    """Of five pictures that are all alike in size and of seven classes."""
    found = evaluate(loader(Pictures(5)), ["gradcam", "rise"], lcam(7).metrics, model=NET)
    return found, lcam(7).fill(found)


def test_table_of_castream():
    layout = castream()
    found = evaluate(loader(Pictures(5)), ["gradcam"], layout.metrics, model=NET, target="label")
    table = layout.fill(found)
    assert [name for _, name in table.columns[:-1]] == ["AD", "AG", "AI", "I", "D"]
    assert layout.metrics["AI"].strict
    wanted = {"I": Insertion(step=1 / 28, kernel="rise", size=5, sigma=5.0)}
    wanted["D"] = Deletion(step=1 / 28)
    for name, metric in wanted.items():
        assert layout.metrics[name].parameters() == metric.parameters()
    values = found.table().set_index(["metric", "method"])["value"]
    line = table.loc[("GapNet", "gradcam")]
    assert line["curves", "I"] == pytest.approx(100 * values["I", "gradcam"])
    assert line["masked", "AD"] == pytest.approx(values["AD", "gradcam"])
    assert table.loc[("GapNet", "(images)"), "masked"].tolist() == [0, 0, 0]


def test_means_weigh_images_and_not_batches():
    """Five images in batches of two, the last of one, as in batches of five."""
    metrics = castream().metrics
    parts = [
        evaluate(DataLoader(Pictures(5), batch_size=size), ["gradcam"], metrics, model=NET)
        for size in (2, 5)
    ]
    small, large = (part.table()["value"].tolist() for part in parts)
    assert small == pytest.approx(large, rel=1e-3, abs=1e-3)
    rows = parts[0].to_pandas("AD")
    mean = np.mean([float(value[0]) for value in rows[rows["method"] == "gradcam"]["values"]])
    table = parts[0].table().set_index(["metric", "method"])["value"]
    assert table["AD", "gradcam"] == pytest.approx(mean, rel=1e-5)


def test_metrics_are_those_of_the_paper():
    found = lcam(1000).metrics
    assert len(found) == 14
    assert repr(found["AD(15%)"]) == repr(xcam.get_metric("average_drop")(muted=0.85))
    assert found["IC(50%)"].strict
    assert found["IC(50%)"].space == "input"
    assert {found["top-5"].top, found["top-5(50%)"].top} == {5}
    assert [n for n in (2, 3, 5, 6) if "top-2" in lcam(n).metrics] == [3, 5]
    assert [n for n in (2, 3, 5, 6) if "top-5" in lcam(n).metrics] == [6]
    with pytest.raises(ValueError, match="classes must be at least 2, got 1"):
        lcam(1)


def test_layout(results):
    _, table = results
    assert table.columns.tolist() == [
        *((share, name) for share in SHARES for name in ("AD", "IC", "top-1", "top-5")),
        ("cost", "passes"),
    ]
    assert table.index.names == ["model", "method"]
    methods = table.index.get_level_values("method").tolist()
    assert sorted(methods[:2]) == ["gradcam", "rise"]
    assert sorted(methods[2:5]) == CONTROLS
    assert methods[5:] == ["(images)"]
    drops = table["100%", "AD"].tolist()
    assert drops[0] <= drops[1]


def test_values_agree_with_the_steps_of_the_authors(results):
    _, table = results
    data = Pictures(5)
    images, labels = data.images, torch.tensor(data.labels)
    explanation = xcam.explain(NET, images, method="gradcam")
    low = explanation.raw
    span = low.amax((1, 2), keepdim=True) - low.amin((1, 2), keepdim=True)
    unit = (low - low.amin((1, 2), keepdim=True)) / span
    masks = torch.nn.functional.interpolate(unit[:, None], (16, 16), mode="bilinear")[:, 0]
    with torch.no_grad():
        p, kept = NET(images).softmax(1).max(1)
        for share, muted in zip(SHARES, (0, 0.5, 0.85), strict=True):
            logits = NET(images * mute(masks, muted)[:, None])
            o = logits.softmax(1)[range(5), kept]
            line = table.loc[("GapNet", "gradcam"), share]
            assert line["AD"] == pytest.approx(
                100 * float(((p - o).clamp(min=0) / p).mean()), abs=1e-3
            )
            assert line["IC"] == pytest.approx(100 * float((o > p).double().mean()))
            for name, top in (("top-1", 1), ("top-5", 5)):
                hits = (logits.topk(top).indices == labels[:, None]).any(1)
                assert line[name] == pytest.approx(100 * float(hits.double().mean()))


def test_passes_and_the_images_themselves(results):
    _, table = results
    passes = table["cost", "passes"].droplevel("model")
    assert passes["gradcam"] == 1
    assert passes["rise"] == 1 + xcam.get_method("rise")().n_masks
    assert passes["(images)"] == 0
    data = Pictures(5)
    with torch.no_grad():
        right = NET(data.images).argmax(1) == torch.tensor(data.labels)
    line = table.loc[("GapNet", "(images)")]
    assert line["100%"].tolist()[:3] == [0, 0, pytest.approx(100 * float(right.double().mean()))]
    assert line["50%"].isna().all()
    assert line["15%"].isna().all()


def test_several_models_each_have_their_lines():
    models = {"one": NET, "two": GapNet(num_classes=7, seed=3)}
    found = evaluate(loader(Pictures(3)), "gradcam", lcam(7).metrics, model=models, controls=False)
    table = lcam(7).fill(found)
    assert table.index.tolist() == [(n, m) for n in models for m in ("gradcam", "(images)")]


def test_results_of_other_metrics_are_refused():
    found = evaluate(loader(Pictures(2)), "gradcam", "sparseness", controls=False)
    with pytest.raises(ValueError, match=r"lack top-1, .*AD\(100%\).*metrics=layout.metrics"):
        lcam(7).fill(found)


class TestFigure:
    def texts(self, figure, methods):
        return [
            [axes.get_xlabel() for axes in figure.axes[row * (methods + 1) :][: methods + 1]]
            for row in range(len(figure.axes) // (methods + 1))
        ]

    def test_shows_drop_and_rise_beneath_each_overlay(self, tmp_path):
        images = Pictures(3).images
        explanations = {
            name: xcam.explain(NET, images, method=name) for name in ("gradcam", "sobel")
        }
        figure = figures.draw_comparison(NET, images, explanations, tmp_path / "compared.png")
        assert (tmp_path / "compared.png").stat().st_size > 1000
        assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "gradcam", "sobel"]
        texts = self.texts(figure, 2)
        assert [row[0] for row in texts] == [""] * 3
        for column, explanation in enumerate(explanations.values(), start=1):
            metrics = lcam(7).metrics
            drops = metrics["AD(100%)"].score(NET, images, explanation)
            rises = metrics["IC(100%)"].score(NET, images, explanation)
            for row, (drop, rise) in enumerate(zip(drops.tolist(), rises.tolist(), strict=True)):
                assert texts[row][column] == f"AD {drop:.0f} %, IC {rise:.0f} %"

    def test_draws_what_is_scored(self):
        """A map below zero everywhere is scored by its min-max, and drawn so."""
        images = Pictures(1).images
        found = xcam.explain(NET, images, method="sobel")
        lower = found.maps - 2 * found.maps.max()
        below = dataclasses.replace(found, raw=lower)
        drawn, wanted = (
            figures.draw_comparison(NET, images, {"a": each}).axes[1].images[0].get_array()
            for each in (below, found)
        )
        assert abs(drawn - wanted).max() < 1e-5

    def test_text_does_not_lie_on_pictures(self):
        images = Pictures(3).images
        figure = figures.draw_comparison(
            NET, images, {"sobel": xcam.explain(NET, images, None, "sobel")}
        )
        figure.draw_without_rendering()
        for row in range(2):
            text = figure.axes[2 * row + 1].xaxis.label.get_window_extent()
            below = figure.axes[2 * row + 3].get_window_extent()
            assert below.y1 <= text.y0 + 1

    def test_text_takes_no_room_from_the_pictures(self):
        images = Pictures(3).images
        widths = []
        for beneath in ({}, {"a": ["one line"] * 3}):
            figure = draw_grid(images, {"a": images}, ["x", "y", "z"], beneath=beneath)
            figure.draw_without_rendering()
            widths.append([axes.get_window_extent().width for axes in figure.axes])
        assert widths[1] == pytest.approx(widths[0], rel=0.02)

    def test_refuses(self):
        with pytest.raises(ValueError, match="nothing to compare"):
            figures.draw_comparison(NET, Pictures(3).images, {})
        images = Pictures(3).images
        with pytest.raises(ValueError, match="1 labels for 3 images"):
            draw_grid(images, {"a": images}, beneath={"a": ["one"]})


class TestCommand:
    def test_prints_the_table_and_draws(self, nets, pictures, tmp_path):
        out = tmp_path / "out"
        (pictures / "class4").mkdir()  # the model's fifth, of which there is no picture
        done = run(
            "evaluate", "--data", pictures, "--methods", "gradcam,layercam", "--table", "lcam",
            "--figure", tmp_path / "compared.png", "--no-controls", "--out", out,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        found = xcam.Results(out)
        assert "top-2" in found.metrics  # of five classes
        shown = lcam(5).fill(found).to_string(float_format="{:.1f}".format, na_rep="")
        assert done.stdout == f"{shown}\nfigure -> {tmp_path / 'compared.png'}\n"
        assert isinstance(lcam(5).fill(found), pd.DataFrame)
        assert (tmp_path / "compared.png").read_bytes().startswith(b"\x89PNG")

    def test_says_why_a_line_is_empty(self, nets, pictures):
        (pictures / "class4").mkdir()
        done = run(
            "evaluate", "--data", pictures, "--methods", "gradcam(layer=none),layercam",
            "--table", "lcam", "--no-controls",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        reason = done.stdout.splitlines()[-1]
        assert reason.startswith("first error of gradcam (torchvision:resnet50): ")
        assert "the model has no layer 'none'" in reason

    def test_says_what_was_scored_on_fewer_images(self, nets, pictures, tmp_path):
        (pictures / "class4").mkdir()
        paths = sorted(pictures.rglob("*.png"))
        for path in paths[1:]:
            array = (tmp_path / "mine" / path.relative_to(pictures)).with_suffix(".npy")
            array.parent.mkdir(parents=True, exist_ok=True)
            np.save(array, np.eye(4, dtype=np.float32))
        done = run(
            "evaluate", "--data", pictures, "--methods", "gradcam", "--maps", tmp_path / "mine",
            "--table", "lcam", "--no-controls", "--figure", tmp_path / "compared.png",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        told = f"mine (torchvision:resnet50): {len(paths) - 1} images, others {len(paths)}"
        assert told in done.stdout.splitlines()
        assert done.stdout.splitlines()[-1].endswith("compared.png (without mine: stored maps)")

    def test_coherence_is_an_image_a_class_by_methods_and_layers(self, tmp_path):
        """Explained as its label, by each method with an open layer once a layer."""
        data, path = Pictures(11), tmp_path / "coherence.png"
        methods = ["saliency", "gradcam", xcam.methods.LayerCAM(layer="features.0")]
        layers = ("features.0", "features")
        figure = figures.draw_coherence(NET, data, methods, layers, path)
        labels = sorted(set(data.labels))
        grid = np.array(figure.axes).reshape(len(labels), 5)
        assert [axes.get_title().replace("\n", " ") for axes in grid[0]] == [
            "image", "Saliency", "Grad-CAM features.0", "Grad-CAM features", "LayerCAM"
        ]  # fmt: skip
        first = [data.labels.index(label) for label in labels]
        for column, layer in ((2, "features.0"), (3, "features")):
            found = xcam.explain(NET, data.images[first], labels, "gradcam", layer=layer)
            overlays = found.overlay(data.images[first]).movedim(1, -1)
            for row, overlay in zip(grid[:, column], overlays, strict=True):
                np.testing.assert_allclose(row.images[0].get_array(), overlay, atol=1e-5)
        captions = [axes.get_ylabel().split("\n")[0] for axes in grid[:, 0]]
        assert captions == [f"class {label}" for label in labels]
        assert path.stat().st_size > 1000

    def test_coherence_of_one_layer_by_its_name(self):
        figure = figures.draw_coherence(NET, Pictures(5), ["gradcam", "saliency"], "features.0")
        first = [axes.get_title().replace("\n", " ") for axes in figure.axes[:3]]
        assert first == ["image", "Grad-CAM features.0", "Saliency"]

    def test_coherence_of_images_of_several_sizes_is_refused(self):
        data = [(torch.rand(3, 8 + 8 * index, 16), index) for index in range(2)]
        with pytest.raises(ValueError, match=r"got \(3, 8, 16\) and \(3, 16, 16\); resize them"):
            figures.draw_coherence(NET, data, ["saliency"])

    def test_coherence_needs_images_and_methods(self):
        with pytest.raises(ValueError, match="nothing to draw: 0 methods, 5 images"):
            figures.draw_coherence(NET, Pictures(5), [])

    def test_draws_pictures_of_all_classes(self, tmp_path, monkeypatch):
        """Those of a folder come class by class."""
        drawn = []
        monkeypatch.setattr(
            figures, "draw_comparison", lambda net, images, *rest: drawn.append(images)
        )
        for count in (3, 6, 11, 60):
            data = [(torch.full((3, 16, 16), index / 60), 0) for index in range(count)]
            figures.draw_samples(NET, data, [xcam.get_method("sobel")()], tmp_path / "a.png")
        chosen = [(60 * images[:, 0, 0, 0]).round().int().tolist() for images in drawn]
        assert chosen == [
            [0, 1, 2], [0, 1, 2, 3, 4, 5], [0, 1, 3, 5, 7, 9], [0, 10, 20, 30, 40, 50]
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--table", "rise"], "--table takes lcam, castream, got 'rise'"),
            (["--table", "lcam", "--metrics", "entropy"], "leave --metrics out"),
            (["--figure", "none/a.png"], "no folder 'none' for --figure"),
            (["--figure", "a.png", "--model", "a:b", "--model", "c:d"], "draws one model, got 2"),
        ],
    )
    def test_mistakes_are_one_sentence(self, nets, pictures, arguments, sentence):
        assert sentence in refused("evaluate", "--data", pictures, *arguments)

    def test_takes_a_file_of_a_net(self, pictures, tmp_path):
        net = xcam.models.load("xcam:simple_cnn", num_classes=5, input_size=16)
        xcam.save(net, tmp_path / "net.safetensors")
        call = ["evaluate", "--data", pictures, "--model", tmp_path / "net.safetensors"]
        done = run(*call, "--metrics", "sparseness", "--no-controls", "--out", tmp_path / "out")
        assert done.exit_code == 0, done.output
        data = xcam.data.folder(pictures, 16)
        expected = evaluate(data, "gradcam", "sparseness", model=net, controls=False)
        found = xcam.Results(tmp_path / "out").table()["value"].tolist()
        assert found == pytest.approx(expected.table()["value"].tolist())
        assert "leave --weights out, got 'none'" in refused(*call, "--weights", "none")

    def test_file_of_a_custom_net_is_refused(self, pictures, tmp_path):
        net = xcam.models.load("xcam:simple_cnn", num_classes=5, input_size=16).model
        xcam.save(net, tmp_path / "net.safetensors")
        call = ["evaluate", "--data", pictures, "--model", tmp_path / "net.safetensors"]
        assert "models.load does not build" in refused(*call)
