"""The study of the five papers' heads: its steps on a few images, its tables on made-up rows."""

import five_papers as study
import five_papers_nets as nets
import five_papers_report
import pandas as pd
import pytest
import torch
from PIL import Image
from small_mnist import write_mnist

import xcam

pytestmark = pytest.mark.timeout(600)

TINY = nets.Sizes(16, 1, 8, 2, 16, (0.5,), 2, 1, 2, 20)
POST_HOC = ("Grad-CAM", "RISE")
FEW = ("LFI-CAM", "CBAM", nets.CONTINUED)  # of the heads, to save time
REMOVAL = {"insertion", "average_drop", "road"}  # of the metrics, likewise
LOCALIZATION = {"pointing_game", "pxap", "preference"}
AGAIN = {"adcc", "mprt", "max_sensitivity"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a tiny study that was stopped before its third training, and started again."""
    out, folders = tmp_path_factory.mktemp("five"), []

    def fit(*given, **named):
        folders.append(named["out"].name)
        if len(folders) == 3:
            raise KeyboardInterrupt
        return train(*given, **named)

    train, methods = xcam.fit, nets.make_post_hoc(TINY)
    with pytest.MonkeyPatch.context() as patch:
        for title in nets.HEADS.keys() - set(FEW):
            patch.delitem(nets.HEADS, title)
        patch.delitem(study.VARIED, "ABN")
        for name in study.METRICS.keys() - REMOVAL:
            patch.delitem(study.METRICS, name)
        patch.setattr(study, "QUICK", TINY)
        patch.setattr(study, "make_post_hoc", lambda sizes: {k: methods[k] for k in POST_HOC})
        patch.setattr(xcam, "fit", fit)
        arguments = ["--out", str(out), "--data", "cues", "--quick"]
        with pytest.raises(KeyboardInterrupt):
            study.main(arguments)
        study.main(arguments)
    return out


@pytest.fixture(scope="module")
def rows(run):
    return pd.read_csv(run / "cues" / "0" / "results.csv")


@pytest.mark.filterwarnings("ignore::xcam.errors.XcamWarning")  # of maps after so few steps
def test_every_head_is_judged_by_its_own_net_and_by_the_frozen_one(rows):
    assert (rows["errors"].fillna(0) == 0).all()
    values = rows[rows["minus"].isna()]
    metrics = values.groupby(["judge", "method"])["metric"].agg(set)
    costs, roar = {"explain_seconds", "explain_passes"}, {"roar(50%)"}
    scores = REMOVAL | LOCALIZATION
    for title in FEW:
        assert metrics["own", title] == scores | AGAIN | costs | {"accuracy"}
        assert metrics["frozen", title] == scores | roar
    for title in POST_HOC:
        assert metrics["frozen", title] == scores | AGAIN | costs | roar
    for title in ("random", "sobel"):
        assert scores | AGAIN | roar <= metrics["frozen", title]
    assert metrics["own", "frozen"] == {"accuracy"}


@pytest.mark.filterwarnings("ignore::xcam.errors.XcamWarning")
def test_methods_are_compared_with_grad_cam_of_the_same_judge(rows):
    tests = rows[rows["minus"].notna()]
    assert set(tests[tests["metric"] != "accuracy"]["minus"]) == {"Grad-CAM"}
    assert set(tests[tests["metric"] == "accuracy"]["method"]) == set(FEW)
    both = rows[(rows["judge"] == "frozen") & (rows["metric"] == "insertion")]
    value = both[both["minus"].isna()].set_index("method")["value"]
    difference = both[both["minus"].notna()].set_index("method")["value"]
    assert set(difference.index) == {*FEW, "RISE", "center_gaussian", "random", "sobel"}
    for method, found in difference.items():
        assert found == pytest.approx(value[method] - value["Grad-CAM"], abs=1e-6)


@pytest.mark.filterwarnings("ignore::xcam.errors.XcamWarning")
def test_report_prints_the_tables_and_writes_rows_and_figure(run, rows, tmp_path, capsys):
    five_papers_report.report(run, tmp_path)
    printed = capsys.readouterr().out
    assert "| cues | LFI-CAM | own |" in printed
    assert "| cues | LFI-CAM, untrained |" in printed
    assert f"{rows['p'].notna().sum()} paired tests" in printed
    assert len(pd.read_csv(tmp_path / "five_papers.csv")) == len(rows)
    with Image.open(tmp_path / "five_papers.png") as picture:
        assert picture.width > 700


def test_table_has_mean_spread_and_significant_seeds():
    common = {"data": "cues", "judge": "frozen", "model": "frozen"}
    scores = {"Grad-CAM": (0.2, 0.2, 0.2), "A": (0.1, 0.2, 0.3), "B": (0.4, 0.4, 0.4)}
    values = [
        {**common, "method": method, "metric": "deletion", "direction": "lower", "seed": seed}
        | {"value": value}
        for method, each in scores.items()
        for seed, value in enumerate(each)
    ]
    tests = [
        {**common, "method": method, "metric": "deletion", "minus": "Grad-CAM", "seed": seed}
        | {"value": value - 0.2, "p_holm": 0.01 if seed < 2 else 0.2}
        for method in "AB"
        for seed, value in enumerate(scores[method])
    ]
    table = five_papers_report.render_table(pd.DataFrame([*values, *tests]))
    assert table.splitlines()[0] == "| data | method | judge | deletion ↓ |"
    assert "| cues | A | frozen | 0.2 ± 0.1 ▲1 |" in table  # of seed 0; seed 1 is equal
    assert "| cues | B | frozen | 0.4 ± 0 ▼2 |" in table
    assert "| cues | Grad-CAM | frozen | 0.2 ± 0 |" in table


def test_ranks_are_means_over_seeds_by_the_frozen_net_first():
    def row(method, seed, metric, direction, value, judge="frozen"):
        found = {"data": "cues", "judge": judge, "model": "", "method": method, "seed": seed}
        return found | {"metric": metric, "direction": direction, "value": value, "minus": None}

    made = [row("A", seed, "deletion", "lower", 0.1 * seed) for seed in range(3)]
    made += [row("B", seed, "deletion", "lower", 0.05) for seed in range(3)]
    made += [row("A", 0, "deletion", "lower", 9.0, "own"), row("A", 0, "mprt", "lower", 1, "own")]
    made += [row("B", 0, "mprt", "lower", 0), row("B", 0, "insertion", "higher", 1)]
    made += [row("A", 0, "insertion", "higher", 2), row("A", 0, "explain_passes", "lower", 1)]
    ranks = five_papers_report.rank_methods(pd.DataFrame(made))
    assert list(ranks) == ["insertion", "deletion", "mprt"]
    assert ranks.loc["cues", "A"].tolist() == pytest.approx([1, 5 / 3, 2])
    assert ranks.loc["cues", "B"].tolist() == pytest.approx([2, 4 / 3, 1])


@pytest.mark.filterwarnings("ignore:.*no value of the map is positive")
def test_preference_is_the_share_on_the_explained_disc():
    maps = torch.zeros(3, 2, 3)
    maps[0, 0], maps[1, 0] = torch.tensor([3.0, 1.0, 9.0]), torch.tensor([-1.0, 2.0, 0.0])
    maps[2, 0, 2] = 5  # beside both
    truth = torch.tensor([[1, 0, 255], [255, 255, 255]], dtype=torch.uint8).expand(3, 2, 3)
    images = torch.rand(3, 3, 2, 3)
    found = xcam.Explanation.of(maps, images, target=0)
    assert study.Preference().score(torch.nn.Identity(), images, found, truth).tolist() == [
        0.75,
        0,
        0.5,
    ]


def test_images_with_two_cues_come_with_both_masks():
    part = nets.draw_cues(1, TINY)
    images, labels, masks = part.two.tensors
    assert torch.equal(images[0], images[1])
    assert labels[0] != labels[1]
    assert part.two.ids[0] == part.two.ids[1]
    assert torch.equal(masks[0] == 1, masks[1] == 0)
    assert torch.equal(masks[0] == 0, masks[1] == 1)
    assert bool((masks[0] == 1).any())
    assert bool((masks[0] == 255).any())


def test_fashion_mnist_is_drawn_by_seed_without_overlap(tmp_path):
    write_mnist(tmp_path, train=40, test=20)
    (tmp_path / "MNIST").rename(tmp_path / "FashionMNIST")
    sizes = nets.Sizes(images=16, test=8, scored=8)
    parts = [nets.load_fashion_mnist(tmp_path, seed, sizes) for seed in (0, 0, 1)]
    images = [part.train.tensors[0] for part in parts]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    test, scored = (part.tensors[0].flatten(1) for part in (parts[0].test, parts[0].scored))
    assert float(torch.cdist(test, scored).min()) > 0
    assert parts[0].make_net()(images[0][:2]).shape == (2, 10)


@pytest.mark.parametrize("title", nets.HEADS)
def test_every_head_fits_the_net_and_its_settings(title):
    name, given = nets.HEADS[title]
    part = nets.draw_cues(0, nets.Sizes(images=1, test=1, scored=2))
    net = nets.add_module(part.make_seeded_net(0), name, 0)
    method = xcam.get_method(name)(**given)
    if name in nets.SETTINGS:
        net = method.attach(net)
        net.fitted = True
    found = xcam.explain(net.eval(), part.test.tensors[0], 0, method=name)
    assert type(found.method) is type(method)
    settings = nets.make_settings(name, 130, 2)
    assert settings["schedule"]["total_steps"] == 6  # three batches of 64, twice
    assert settings["schedule"]["max_lr"] == settings["optimizer"]["lr"]


def test_post_hoc_methods_take_the_sizes():
    methods = nets.make_post_hoc(TINY)
    assert methods["RISE"].n_masks == 2
    assert methods["Integrated Gradients"].n_steps == methods["SmoothGrad"].n_samples == 1
    assert len(methods) == 6


def test_too_few_images_are_refused(tmp_path):
    write_mnist(tmp_path, train=40, test=20)
    (tmp_path / "MNIST").rename(tmp_path / "FashionMNIST")
    with pytest.raises(ValueError, match=r"48 images are drawn of 40 in .*; give --root"):
        nets.load_fashion_mnist(tmp_path, 0, nets.Sizes(images=48, test=8, scored=8))
