"""The folder that results are read from: how often, and what it says of one that is damaged."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded import METRICS, Area, records, write

from xcam.errors import FileFormatError
from xcam.results import Results, parts, rows
from xcam.runs.manifest import encode_manifest


@pytest.fixture(scope="module")
def found():
    return records()


@pytest.fixture(scope="module")
def results(found, tmp_path_factory):
    return Results(write(tmp_path_factory.mktemp("run"), found), METRICS)


class Counted:
    """The parts of a folder, and which metrics were asked for each time they were read."""

    def __init__(self, parts):
        self.parts, self.read = parts, []

    def __getattr__(self, name):
        return getattr(self.parts, name)

    def to_batches(self, **options):
        self.read.append({name for name in METRICS if f'"{name}"' in str(options["filter"])})
        return self.parts.to_batches(**options)


class TestReading:
    @pytest.fixture
    def counted(self, found, tmp_path):
        results = Results(write(tmp_path, found), METRICS)
        results._rows._data = Counted(results._rows._data)
        return results, results._rows._data.read

    def test_parts_are_read_once_for_all_metrics(self, counted):
        results, read = counted
        results.table()
        assert read == [set(METRICS)]
        results.compare(resamples=50)
        assert read == [set(METRICS)] * 2

    def test_or_as_often_as_the_budget_needs(self, counted, results, monkeypatch):
        again, read = counted
        monkeypatch.setattr(rows, "_BUDGET", 40 * 6 * 2)  # two methods of the largest statistic
        pd.testing.assert_frame_equal(again.table(), results.table(), check_exact=True)
        # 40 images × (5 area, 6 best, 1 neutral, 1 plain) × 3 methods = 1560 numbers in 480s.
        assert read == [{"area"}, {"area", "best"}, {"best"}, {"neutral", "plain"}]

    def test_metrics_are_read_alone_where_one_is_asked_for(self, counted):
        results, read = counted
        results.curves("area")
        results.wins("plain")
        assert read == [{"area"}, {"plain"}]


class TestFolder:
    def test_metrics_are_made_again_from_the_manifest(self, tmp_path):
        found = [row for row in records() if row["metric"] == "plain"]
        for row in found:
            row["metric"] = "gini"
        write(tmp_path, found)
        entry = {"name": "sparseness", "parameters": {}, "repr": "Sparseness()"}
        manifest = {"methods": {}, "metrics": {"gini": entry}, "images": {"count": 40}}
        (tmp_path / "manifest.json").write_bytes(encode_manifest(manifest))
        assert repr(Results(tmp_path).metrics) == "{'gini': Sparseness()}"
        entry["repr"] = "Sparseness(power=2)"
        (tmp_path / "manifest.json").write_bytes(encode_manifest(manifest))
        with pytest.raises(ValueError, match=r"'gini' was Sparseness\(power=2\) and would be"):
            Results(tmp_path)
        entry["parameters"] = {"power": 2}
        (tmp_path / "manifest.json").write_bytes(encode_manifest(manifest))
        with pytest.raises(ValueError, match=r"cannot make .* again: .*; pass metrics="):
            Results(tmp_path)

    def test_metrics_that_are_not_given(self, results):
        with pytest.raises(
            ValueError, match="other metrics than those given: best, neutral, plain"
        ):
            Results(results.folder, {"area": Area()})

    def test_one_that_is_unfinished(self, found, tmp_path):
        write(tmp_path, found)
        (tmp_path / "rows" / "batch-00000004.parquet").unlink()
        results = Results(tmp_path, METRICS)
        assert repr(results).endswith("unfinished: 32 of 40 rows each, 0 errors>")
        assert str(results).endswith("unfinished: 32 of 40 rows each, 0 errors")

    def test_models_with_statistics_of_their_own_shapes(self, found, tmp_path):
        """As of nets with different numbers of classes."""
        larger = records(models=("larger",), seed=1)
        for row in larger:
            if row["metric"] == "best":
                row |= {"shape": [2, 4], "values": np.append(row["values"], [0.0, 2.0])}
        both = Results(write(tmp_path / "both", [*found, *larger]), METRICS)
        alone = pd.concat(
            Results(write(tmp_path / str(number), one), METRICS).table()
            for number, one in enumerate((larger, found))
        )
        pd.testing.assert_frame_equal(both.table(), alone.reset_index(drop=True))
        compared = both.compare("larger", "net", by="model", resamples=50)
        assert (compared.query("metric == 'best'")["difference"] > 0).all()

    def test_no_rows(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no rows in .*what `evaluate` writes"):
            Results(tmp_path, METRICS)

    @pytest.mark.parametrize("first", [True, False])
    def test_damaged_part(self, found, tmp_path, first):
        write(tmp_path, found)
        path = sorted((tmp_path / "rows").iterdir())[0 if first else -1]
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(
            FileFormatError, match=r"batch-\d+\.parquet' is damaged, or not by xcam; remove it"
        ) as caught:
            Results(tmp_path, METRICS)
        assert path.name in str(caught.value)

    def test_foreign_part(self, tmp_path):
        (tmp_path / "rows").mkdir()
        pq.write_table(pa.table({"a": [1]}), tmp_path / "rows" / "batch-00000000.parquet")
        with pytest.raises(FileFormatError, match="damaged, or not by xcam"):
            Results(tmp_path, METRICS)

    def test_rows_twice(self, found, tmp_path):
        write(tmp_path, found)
        path = tmp_path / "rows" / "batch-00000000.parquet"
        (tmp_path / "rows" / "batch-00000099.parquet").write_bytes(path.read_bytes())
        with pytest.raises(FileFormatError, match="several evaluations, or rows twice"):
            Results(tmp_path, METRICS)

    def test_no_manifest(self, found, tmp_path):
        write(tmp_path, found)
        (tmp_path / "manifest.json").unlink()
        with pytest.raises(
            FileFormatError,
            match=r"manifest\.json' cannot be read \(No such .*\); put a copy",
        ):
            Results(tmp_path)

    def test_values_of_another_shape(self, found, tmp_path):
        changed = [dict(row) for row in found]
        changed[-1] |= {"values": [1.0, 2.0], "shape": [2]}
        with pytest.raises(FileFormatError, match="'neutral' are not all of shape"):
            Results(write(tmp_path, changed), METRICS).table()


def test_parts_from_before_a_column_are_read(tmp_path, monkeypatch):
    fields = [field for field in parts.SCHEMA if field.name not in parts.ADDED]
    with monkeypatch.context() as context:
        context.setattr(parts, "SCHEMA", pa.schema(fields))
        write(tmp_path, records(2))
    found = Results(tmp_path, METRICS).to_pandas()
    assert found["seconds_spent"].isna().all()
    assert (found["seconds"] == 0.5).all()
