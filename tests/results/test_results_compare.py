"""Differences between methods, ranks and wins, against numpy and scipy on the same rows."""

import numpy as np
import pytest
import scipy.stats
from recorded import METHODS, METRICS, records, values_of, write

from xcam.results import Results


@pytest.fixture(scope="module")
def found():
    return records()


@pytest.fixture(scope="module")
def results(found, tmp_path_factory):
    return Results(write(tmp_path_factory.mktemp("run"), found), METRICS)


class TestCompare:
    def test_comparison_is_paired(self, results, found):
        line = results.compare("my_cam", "gradcam").set_index("metric").loc["plain"]
        a, b = (values_of(found, name, "plain")[:, 0] for name in ("my_cam", "gradcam"))
        reference = scipy.stats.bootstrap((a - b,), np.mean, method="BCa", rng=0)
        low, high = reference.confidence_interval
        assert line["difference"] == pytest.approx((a - b).mean(), abs=1e-7)
        assert [line["low"], line["high"]] == pytest.approx([low, high], abs=0.05 * (high - low))

    def test_p_is_corrected_for_the_whole_table(self, results):
        table = results.compare(reference="random", resamples=2000)
        assert list(table["b"].unique()) == ["random"]
        assert len(table) == 8
        smallest = table.loc[table["p"].idxmin()]
        assert smallest["p_holm"] == pytest.approx(8 * smallest["p"])
        assert (table["p_holm"] >= table["p"]).all()

    def test_finds_what_is_there_among_many_lines(self, tmp_path):
        """Twenty methods of which no two are near: 190 pairs by 4 metrics."""
        found = records(methods=[f"method{place:02}" for place in range(20)])
        table = Results(write(tmp_path, found), METRICS).compare(resamples=1000)
        assert len(table) == 760
        clear = table[(table["metric"] != "neutral") & (table["difference"].abs() > 0.5)]
        assert len(clear) > 500
        assert (clear["better"] != "").all()

    def test_says_which_is_better(self, results):
        table = results.compare("gradcam", "random").set_index("metric")
        assert table["better"].to_dict() == {
            "area": "gradcam",
            "best": "random",
            "neutral": "",
            "plain": "random",
        }
        assert (table["difference"] < 0).all()

    def test_all_pairs(self, results):
        pairs = results.compare(resamples=100)[["a", "b"]].drop_duplicates()
        assert len(pairs) == 3

    def test_models(self, tmp_path):
        found = records(models=("net", "other"))
        for row in found:
            if row["model"] == "other":
                row["values"] = row["values"] + 1
        results = Results(write(tmp_path, found), METRICS)
        table = results.compare("other", "net", by="model")
        assert len(table) == 12
        assert set(table["method"]) == set(METHODS)
        assert (table["difference"] > 0.5).all()
        plain = table[table["metric"] == "plain"]
        assert set(plain["better"]) == {"other"}
        assert len(results.compare("gradcam", "my_cam", resamples=50)) == 8
        with pytest.raises(ValueError, match="say which model: there are net, other"):
            results.wins("plain")
        assert results.wins("plain", "net").shape == (3, 3)
        with pytest.raises(ValueError, match="no results of 'nett'; there are net, other"):
            results.wins("plain", "nett")

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ({"a": "gradcam"}, "give two different names"),
            ({"a": "gradcam", "b": "gradcam"}, "give two different names"),
            ({"a": "gradcam", "b": "random", "reference": "my_cam"}, "give two different names"),
            ({"reference": "scorecam"}, "no results of 'scorecam'; there are gradcam, my_cam"),
            ({"by": "metric"}, "by must be 'method' or 'model', got 'metric'"),
        ],
    )
    def test_bad_input(self, results, arguments, sentence):
        with pytest.raises(ValueError, match=sentence):
            results.compare(**arguments)


class TestRanksAndWins:
    def test_ranks(self, results):
        ranks = results.ranks()
        assert list(ranks.columns) == ["area", "best", "plain", "mean"]
        assert ranks.loc["net", "random"].tolist() == [3, 1, 1, pytest.approx(5 / 3)]
        assert ranks.loc["net", "my_cam"].tolist() == [2, 2, 2, 2]
        assert list(ranks["mean"]) == sorted(ranks["mean"])

    def test_ties_share_their_rank(self, tmp_path):
        found = records()
        for row in found:
            row["values"] = np.full(int(np.prod(row["shape"])), 0.5)
        ranks = Results(write(tmp_path, found), METRICS).ranks()
        assert (ranks == 2).all(axis=None)

    @pytest.mark.parametrize(("metric", "sign"), [("plain", 1), ("area", -1)])
    def test_wins(self, results, found, metric, sign):
        wins = results.wins(metric)
        a, b = (values_of(found, name, metric).mean(1) for name in ("gradcam", "my_cam"))
        assert wins.loc["gradcam", "my_cam"] == pytest.approx(100 * (sign * (a - b) > 0).mean())
        assert wins.loc["gradcam", "my_cam"] + wins.loc["my_cam", "gradcam"] == 100
        assert (np.diag(wins) == 50).all()

    def test_only_means_over_images_have_wins(self, results):
        with pytest.raises(ValueError, match=r"result of 'best', .* is not the mean over images"):
            results.wins("best")
        with pytest.raises(ValueError, match="'neutral' has no direction"):
            results.wins("neutral")
        with pytest.raises(ValueError, match="no results of 'plane'; there are area, best"):
            results.wins("plane")
