"""An evaluation that is stopped at any moment resumes, and ends with the same rows."""

import signal
import time
from dataclasses import dataclass
from typing import ClassVar

import killed
import pytest
from evaluations import Pictures, assert_same_rows, parts, rows
from torch.utils.data import DataLoader

import xcam
from xcam.core import Metric, MetricSpec
from xcam.models.toy import GapNet

METRICS = ("deletion", "sparseness")


def evaluate(out, data=None, batch_size=2, model=None, **arguments):
    data = Pictures(32) if data is None else data
    arguments = {"methods": "gradcam", "metrics": METRICS, "save_maps": True, **arguments}
    loader = DataLoader(data, batch_size=batch_size)
    return xcam.evaluate(model or GapNet(), loader, out=out, **arguments)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Return the folder of an uninterrupted evaluation, and the seconds that it took."""
    out = tmp_path_factory.mktemp("unbroken")
    evaluate(out / "warm")
    begun = time.perf_counter()
    evaluate(out / "rows")
    return out / "rows", time.perf_counter() - begun


@killed.posix
def test_kills_at_random_moments_lose_and_double_no_row(unbroken, tmp_path):
    expected, seconds = unbroken

    def folder(number):
        return tmp_path / str(number)

    def standing(number):
        return len(parts(folder(number))) if (folder(number) / "rows").is_dir() else 0

    def check(number):
        assert_same_rows(rows(folder(number)), rows(expected))
        assert parts(folder(number)) == parts(expected)

    killed.killed_at_random(
        lambda number: killed.started(evaluate, folder(number)),
        standing,
        check,
        latest=0.3 * seconds,
        kills=20,
        standings=3,
    )


@killed.posix
@pytest.mark.parametrize("write", [1, 2, 3, 6, 7, 12])
def test_kill_during_a_write_loses_no_row(unbroken, tmp_path, write):
    """The write of the manifest, of a method's maps or of rows may be the one that is cut short."""
    process = killed.started(evaluate, tmp_path, dies_at=write)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = [path.name for path in tmp_path.rglob(".*.part")]
    assert len(left) == 1
    evaluate(tmp_path)
    assert list(tmp_path.rglob(".*.part")) == []
    assert_same_rows(rows(tmp_path), rows(unbroken[0]))
    assert parts(tmp_path) == parts(unbroken[0])
    maps = [sorted(p.relative_to(out) for p in (out / "maps").rglob("*.safetensors"))
            for out in (tmp_path, unbroken[0])]  # fmt: skip
    assert maps[0] == maps[1]


@dataclass(frozen=True)
class Interrupted(Metric):
    """A metric that raises KeyboardInterrupt at its third batch."""

    seen: ClassVar[list] = []
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="interrupted", title="", paper="", formula="", higher_is_better=None, bounds=(0, 1)
    )

    def score(self, model, images, explanation, truth=None):
        self.seen.append(len(images))
        if len(self.seen) == 7:
            signal.raise_signal(signal.SIGINT)
        return images.flatten(1).mean(1)

    def finish(self, mean):
        return mean


def test_ctrl_c_leaves_a_folder_that_resumes(tmp_path):
    Interrupted.seen.clear()
    settings = {"metrics": Interrupted(), "controls": False, "methods": ["gradcam", "sobel"]}
    data = Pictures(10)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "a", data, **settings)
    assert len(parts(tmp_path / "a")) == 3
    data.loaded.clear()
    results = evaluate(tmp_path / "a", data, **settings)
    assert sorted(set(data.loaded)) == [
        0,
        6,
        7,
        8,
        9,
    ]  # what tells the data
    assert len(Interrupted.seen) == 7 + 4
    evaluate(tmp_path / "b", Pictures(10), **settings)
    assert_same_rows(rows(tmp_path / "a"), rows(tmp_path / "b"))
    assert set(results.table()["n"]) == {10}


def test_finished_batches_are_not_computed_again(tmp_path):
    data = Pictures(6)
    first = evaluate(tmp_path, data).table()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    data.loaded.clear()
    again = evaluate(tmp_path, data).table()
    assert set(data.loaded) == {0, 5}  # which tell the data from another
    assert again.equals(first)
    assert written == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_removed_part_is_computed_again(tmp_path):
    evaluate(tmp_path / "a", Pictures(6))
    expected = rows(tmp_path / "a")
    (tmp_path / "a" / "rows" / "batch-00000001.parquet").unlink()
    data = Pictures(6)
    evaluate(tmp_path / "a", data)
    assert sorted(set(data.loaded)) == [0, 2, 3, 5]
    assert_same_rows(rows(tmp_path / "a"), expected)
