"""Two processes in one folder: the second is told, and a dead one holds nothing."""

import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from evaluations import NET, Pictures, rows

import xcam
from xcam.models.toy import GapNet
from xcam.runs import locks
from xcam.runs.locks import claimed

fcntl = pytest.importorskip("fcntl")
BUSY = r"another process works in '.*'; wait for its end, or give another folder"
HOLDER = """
import sys
from pathlib import Path
from xcam.runs.locks import claimed

with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in the folder."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"claimed\n"
        yield process
        process.kill()


def fitted(folder, data):
    return xcam.fit(GapNet(), data, epochs=1, out=folder)


def evaluated(folder, data):
    return xcam.evaluate(NET, data, ["gradcam"], ["entropy"], out=folder, controls=False)


@pytest.mark.parametrize(("verb", "looked_at"), [(fitted, {0}), (evaluated, {0, 5})])
def test_a_second_process_is_told_before_it_does_anything(tmp_path, holder, verb, looked_at):
    data = Pictures(6)
    with pytest.raises(OSError, match=BUSY):
        verb(tmp_path, data)
    assert set(data.loaded) <= looked_at
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    holder.kill()
    holder.wait()
    verb(tmp_path, data)  # what a dead process has locked is free
    assert ".lock" not in [path.name for path in tmp_path.iterdir()]


def test_an_end_in_peace_leaves_nothing(tmp_path, holder):
    holder.stdin.close()
    assert holder.wait() == 0
    assert list(tmp_path.iterdir()) == []
    assert len(rows(evaluated(tmp_path, Pictures(6)).folder)) == 6


def test_a_dry_run_disturbs_nobody(tmp_path, holder, capsys):
    xcam.evaluate(NET, Pictures(6), ["gradcam"], ["entropy"], out=tmp_path, dry_run=True)
    assert "passes" in capsys.readouterr().out


def test_a_lock_whose_file_went_away_is_none(tmp_path, monkeypatch):
    """Its owner removes the file before it lets go; who has waited for that one holds nothing."""
    locked, seen = locks._lock, []

    def late(file):
        seen.append(os.fstat(file.fileno()).st_ino)
        if len(seen) == 1:
            (tmp_path / ".lock").rename(tmp_path / "gone")
        return locked(file)

    monkeypatch.setattr(locks, "_lock", late)
    with claimed(tmp_path):
        assert len(set(seen)) == 2
        assert (tmp_path / ".lock").stat().st_ino == seen[1]


def test_blocks_may_be_nested_but_not_from_another_thread(tmp_path):
    def enter():
        with claimed(tmp_path):
            pass

    with claimed(tmp_path), ThreadPoolExecutor(1) as pool:
        with claimed(tmp_path.parent / "." / tmp_path.name):
            pass
        with pytest.raises(OSError, match=BUSY):
            pool.submit(enter).result()
        command = [sys.executable, "-c", HOLDER, str(tmp_path)]
        held = subprocess.run(command, capture_output=True, text=True)
        assert "another process works" in held.stderr  # neither has given the lock up


def test_of_threads_that_come_at_once_one_is_let_in(tmp_path):
    for number in range(30):
        barrier, inside = threading.Barrier(4), []

        def enter(folder, barrier=barrier, inside=inside):
            barrier.wait()
            try:
                with claimed(folder):
                    inside.append(True)
                    barrier.wait()
            except OSError:
                barrier.wait()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(enter, [tmp_path / str(number)] * 4))
        assert inside == [True]
        assert list((tmp_path / str(number)).iterdir()) == []


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_results_that_may_only_be_read_are_read(tmp_path, monkeypatch, error):
    table = evaluated(tmp_path, Pictures(6)).table()
    opened = Path.open

    def refused(path, *arguments, **others):
        if path.name == ".lock":
            raise OSError(error, os.strerror(error))
        return opened(path, *arguments, **others)

    monkeypatch.setattr(Path, "open", refused)
    assert evaluated(tmp_path, Pictures(6)).table().equals(table)


def test_without_locks_no_file_is_made(tmp_path, monkeypatch):
    """As on Windows, where a file that is open cannot be removed."""
    monkeypatch.setattr(locks, "fcntl", None)
    with claimed(tmp_path):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_where_there_are_no_locks_it_goes_on_without(tmp_path, monkeypatch, number):
    def refused(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refused)
    with claimed(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(IsADirectoryError, match=r"cannot write '.*\.lock': is a directory"),
        claimed(tmp_path),
    ):
        pass
