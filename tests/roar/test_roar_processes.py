"""Processes share the trainings of a folder, are killed, and end with the table of one."""

import signal

import pandas as pd
import pytest
from killed import posix, started
from retrainings import lines, roar

pytestmark = posix
SETTINGS = {"repeats": 2}
TRAININGS = 2 * (2 + 2)


def work(out, **arguments):
    roar(out, **SETTINGS, **arguments)


@pytest.fixture(scope="module")
def expected():
    return lines(roar(**SETTINGS))


def assert_whole(out, expected, **arguments):
    """Assert that nothing is left to do, and that the table is that of one process."""
    files = list((out / "trainings").rglob("repeat-*.json"))
    assert len(files) == TRAININGS
    before = {path: path.stat().st_mtime_ns for path in files}
    pd.testing.assert_frame_equal(lines(roar(out, **SETTINGS, **arguments)), expected)
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_killed_work_goes_on_to_the_same_table(tmp_path, expected):
    # Writes: two manifests, two files of maps, then the trainings.
    for dies_at, done in ((1, 0), (3, 0), (2, 0), (3, 1), (2, 2)):
        process = started(work, tmp_path, dies_at=dies_at)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        # Each loses what it was writing, and nothing else.
        assert len(list(tmp_path.glob("trainings/**/repeat-*.json"))) == done
    process = started(work, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert_whole(tmp_path, expected)


def test_what_a_killed_process_was_at_is_done_by_another(tmp_path, expected):
    dying = started(work, tmp_path, dies_at=3)  # of 12 writes, of which the other does some
    other = started(work, tmp_path)
    dying.join()
    other.join()
    assert dying.exitcode == -signal.SIGKILL
    assert other.exitcode == 0
    assert_whole(tmp_path, expected)


def test_two_shards_at_a_time_end_with_the_table_of_one(tmp_path, expected):
    processes = [started(shard_work, tmp_path, f"{number}/2") for number in (1, 2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert_whole(tmp_path, expected)


def shard_work(out, shard):
    work(out, shard=shard)
