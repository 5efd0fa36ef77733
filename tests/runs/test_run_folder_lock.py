"""Two processes in one folder: the second is refused, and a dead one holds nothing."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from evaluations import NET, Pictures, rows

import xcam
from xcam.models.toy import GapNet
from xcam.runs.folder import RunFolder

BUSY = r"another process works in '.*'; wait for its end, or give another folder"
FORKED = """
import os, sys
from pathlib import Path
from xcam.runs.folder import RunFolder

with RunFolder(Path(sys.argv[1]), "work", ()).lock():
    child = os.fork()
    if child:  # and the fork leaves the block and ends
        os.waitpid(child, 0)
        print("locked", flush=True)
        sys.stdin.read()
"""
PROBE = "import sys, filelock; filelock.FileLock(sys.argv[1]).acquire(blocking=False)"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def locked(path):
    return RunFolder(path, "work", ()).lock()


def start(work, *arguments):
    """Start another process, with all imports done where there are forks."""
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    return process, ours


def hold(connection, path):
    with locked(path):
        connection.send("locked")
        connection.recv()


def fork_and_hold(connection, path):
    with locked(path):
        child = os.fork()
        if not child:
            time.sleep(600)
        connection.send(child)
        connection.recv()


def kill(process):
    process.kill()
    process.join()


@pytest.fixture
def holder(tmp_path):
    """Another process that works in the folder, and ends when it is sent anything."""
    process, connection = start(hold, tmp_path)
    assert connection.recv() == "locked"
    yield process, connection
    kill(process)


def fitted(folder, data):
    return xcam.fit(GapNet(), data, epochs=1, out=folder)


def evaluated(folder, data):
    return xcam.evaluate(NET, data, ["gradcam"], ["entropy"], out=folder, controls=False)


def is_refused_elsewhere(path):
    """Return whether another process, which asks the system alone, is refused."""
    command = [sys.executable, "-c", PROBE, str(path / ".lock")]
    found = subprocess.run(command, capture_output=True, text=True)
    return "Timeout" in found.stderr


@pytest.mark.parametrize(("verb", "looked_at"), [(fitted, {0}), (evaluated, {0, 5})])
def test_second_process_is_refused_before_it_does_anything(tmp_path, holder, verb, looked_at):
    data = Pictures(6)
    with pytest.raises(OSError, match=BUSY):
        verb(tmp_path, data)
    assert set(data.loaded) <= looked_at
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    kill(holder[0])
    verb(tmp_path, data)  # what a dead process has locked is free
    assert ".lock" not in [path.name for path in tmp_path.iterdir()]


def test_normal_end_leaves_nothing(tmp_path, holder):
    process, connection = holder
    connection.send("end")
    process.join()
    assert process.exitcode == 0
    assert list(tmp_path.iterdir()) == []
    assert len(rows(evaluated(tmp_path, Pictures(6)).folder)) == 6


def test_failed_block_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError("x")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        assert is_refused_elsewhere(tmp_path)


def test_dry_run_works_in_a_locked_folder(tmp_path, holder, capsys):
    xcam.evaluate(NET, Pictures(6), ["gradcam"], ["entropy"], out=tmp_path, dry_run=True)
    assert "passes" in capsys.readouterr().out


def test_lock_on_a_removed_file_is_none(tmp_path, monkeypatch):
    """The owner removes the file before it lets go: who opened it earlier must lock the next."""
    fcntl = pytest.importorskip("fcntl")
    flock, inodes = fcntl.flock, []

    def late(file, operation):
        if operation & fcntl.LOCK_EX:
            inodes.append(os.fstat(file).st_ino)
            if len(inodes) == 1:
                (tmp_path / ".lock").unlink()
                (tmp_path / "other").touch()  # else the system may use the number again
        return flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert len(inodes) == 2
        assert (tmp_path / ".lock").stat().st_ino == inodes[1]
        assert is_refused_elsewhere(tmp_path)


def test_blocks_may_be_nested_but_not_from_another_thread(tmp_path):
    def enter():
        with locked(tmp_path):
            pass

    with locked(tmp_path), ThreadPoolExecutor(1) as pool:
        with locked(tmp_path.parent / "." / tmp_path.name):
            pass
        with pytest.raises(OSError, match=BUSY):
            pool.submit(enter).result()
        assert is_refused_elsewhere(tmp_path)  # neither has given the lock up
        assert (tmp_path / ".lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_one_of_several_threads_is_let_in(tmp_path):
    for number in range(30):
        barrier, inside = threading.Barrier(4), []

        def enter(folder, barrier=barrier, inside=inside):
            barrier.wait()
            try:
                with locked(folder):
                    inside.append(True)
                    barrier.wait()
            except OSError:
                barrier.wait()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(enter, [tmp_path / str(number)] * 4))
        assert inside == [True]
        assert list((tmp_path / str(number)).iterdir()) == []


@needs_fork
def test_forked_process_neither_holds_nor_releases_the_lock(tmp_path):
    command = [sys.executable, "-c", FORKED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        assert (tmp_path / ".lock").exists()
        assert is_refused_elsewhere(tmp_path)
        process.stdin.close()
        assert process.wait() == 0
    assert list(tmp_path.iterdir()) == []


@needs_fork
def test_killed_owner_does_not_leave_its_lock_to_its_children(tmp_path):
    process, connection = start(fork_and_hold, tmp_path)
    child = connection.recv()
    try:
        assert is_refused_elsewhere(tmp_path)
        kill(process)
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def refuse_to_open(monkeypatch, number):
    opened = os.open

    def refused(path, *arguments, **others):
        if os.fspath(path).endswith(".lock"):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return opened(path, *arguments, **others)

    monkeypatch.setattr(os, "open", refused)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_results_in_a_read_only_folder_are_read(tmp_path, monkeypatch, error):
    table = evaluated(tmp_path, Pictures(6)).table()
    refuse_to_open(monkeypatch, error)
    assert evaluated(tmp_path, Pictures(6)).table().equals(table)


def test_lock_file_that_cannot_be_removed_is_no_failure(tmp_path, monkeypatch):
    """As on Windows while the file is open; filelock removes it there after closing it."""

    def refused(path, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        with locked(tmp_path):
            pass
    with locked(tmp_path):
        assert is_refused_elsewhere(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_file_system_without_locks_goes_on_without(tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def refused(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_locked_is_named(tmp_path, monkeypatch):
    refuse_to_open(monkeypatch, errno.ENOSPC)
    with (
        pytest.raises(OSError, match=r"cannot write '.*\.lock': the disk is full; make room"),
        locked(tmp_path),
    ):
        pass


def test_folder_in_the_place_of_the_lock_file_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(OSError, match=r"cannot write '.*\.lock': is a directory"),
        locked(tmp_path),
    ):
        pass
