import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import killed
import pandas as pd
import pytest
from commands import refused, run
from small_mnist import RECIPE, write_mnist

import xcam
from xcam.cli import fitting
from xcam.runs import processes
from xcam.runs.processes import Processes

SAVING = ["--set", "save_minutes=0"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """So many that a run takes steps while somebody makes up his mind to stop it."""
    return write_mnist(tmp_path_factory.mktemp("digits"), train=160)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "digits.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def unbroken(digits, recipe, tmp_path_factory):
    """A whole run, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    done = run("fit", "--recipe", recipe, "--root", digits, "--out", out)
    assert done.exit_code == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    log = pd.read_csv(out / "log.csv")
    for line, row, left in zip(lines, log.to_dict("records"), (True, False), strict=True):
        number = int(row["epoch"])
        assert line.startswith(f"epoch {number}/2: train loss {row['train_loss']:.4g}, accuracy ")
        assert f"; validation loss {row['validation_loss']:.4g}, accuracy " in line
        assert line.endswith(" left") is left
    return out, done.stdout


def test_fit_writes_its_files_and_prints_the_accuracy_table(unbroken, digits, recipe):
    out, printed = unbroken
    assert {"best.safetensors", "last.safetensors", "log.csv", "test.csv"} <= {
        path.name for path in out.iterdir()
    }
    table = pd.read_csv(out / "test.csv")
    *lines, last = printed.splitlines()
    assert lines == table.to_string(index=False).splitlines()
    assert last == f"net -> {out / 'best.safetensors'}"

    net = xcam.load(out / "best.safetensors")
    assert net.categories == tuple(xcam.data.load("mnist", digits).classes)
    assert net.input_size == (28, 28)  # of the training images; the model's was 32
    expected = xcam.recipes.fit(recipe, digits)
    for name, tensor in expected.state_dict().items():
        assert net.state_dict()[name].equal(tensor), name


def test_evaluate_prints_that_table(unbroken, digits, recipe):
    out, printed = unbroken
    command = ("fit", "--recipe", recipe, "--root", digits, "--evaluate")
    table = printed.splitlines()[:-1]
    assert run(*command, "--out", out).stdout.splitlines() == table
    files = sorted(out.iterdir()), [path.stat().st_mtime_ns for path in sorted(out.iterdir())]
    last = run(*command, "--weights", out / "last.safetensors")
    accuracy = xcam.recipes.accuracy(recipe, digits, out / "last.safetensors")
    assert last.stdout.splitlines() == accuracy.to_string(index=False).splitlines()
    assert files == (
        sorted(out.iterdir()),
        [path.stat().st_mtime_ns for path in sorted(out.iterdir())],
    )


@killed.posix
@pytest.mark.timeout(600)
def test_stopped_or_killed_fit_resumes_with_the_same_command(unbroken, digits, recipe, tmp_path):
    stopped = r"(epoch .*\n)*xcam: stopped at epoch \d, step \d+.*goes on\n"
    for number in range(5):
        out = tmp_path / str(number)
        command = ["fit", "--recipe", str(recipe), "--root", str(digits), "--out", str(out)]
        code, said = interrupt([*command, "--workers", "2"], out / "training.pt")
        if not re.fullmatch(stopped, said):
            assert epochs(out) == 2, said  # on a busy machine the signal may come too late
            continue
        assert code == 130
        code = kill(command, out / "training.pt")
        if not (out / "test.csv").exists():
            break
    assert code == -signal.SIGKILL
    assert not (out / "test.csv").exists()
    done = run(*command)
    assert done.exit_code == 0, done.output
    for name in ("best.safetensors", "last.safetensors", "test.csv"):
        assert (out / name).read_bytes() == (unbroken[0] / name).read_bytes()
    assert run(*command).stdout == done.stdout  # there is nothing left to do


def interrupt(command, path):
    """Exit code and stderr of a run that gets SIGINT once it has written a file.

    As Ctrl-C does, it reaches all processes of the run. A run may have ended before.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "xcam", *command, *SAVING],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def kill(command, path):
    """Exit code of a run that is killed once it has written a file anew, unless it has ended."""
    before = path.stat().st_mtime_ns
    process = killed.started(run, *command, *SAVING)
    while path.stat().st_mtime_ns == before and process.is_alive():
        time.sleep(0.002)
    process.kill()
    process.join()
    return process.exitcode


def epochs(out):
    return len(pd.read_csv(out / "log.csv")) if (out / "log.csv").exists() else 0


def test_changes_and_run_settings_are_passed_on(digits, recipe, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(xcam.recipes, "fit", lambda *given, **named: calls.append((given, named)))
    (tmp_path / "last.safetensors").touch()
    done = run(
        "fit", "--recipe", recipe, "--root", digits, "--out", tmp_path, "--set", "epochs=7",
        "--set", "optimizer.lr = 0.5", "--set", "model.name=xcam:simple_cnn", "--set", "seed=none",
        "--set", 'groups={"fc\\\\.bias" = {weight_decay = 0}}', "--board-path", tmp_path / "board",
        "--workers", "2", "--device", "cpu", "--precision", "bf16", "--download",
    )  # fmt: skip
    assert (done.exit_code, done.stderr) == (0, "")
    changes = {
        "epochs": 7, "optimizer.lr": 0.5, "model.name": "xcam:simple_cnn", "seed": None,
        "groups": {"fc\\.bias": {"weight_decay": 0}},
    }  # fmt: skip
    assert calls == [
        (
            (xcam.recipes.read(recipe, changes), digits, tmp_path),
            {
                "device": "cpu", "workers": 2, "download": True, "precision": "bf16",
                "board_path": tmp_path / "board", "progress": True,
            },
        )
    ]  # fmt: skip


@pytest.mark.parametrize(("rank", "told"), [(0, "a\nb\n"), (1, "")])
def test_only_the_main_process_prints(rank, told, capsys, monkeypatch):
    parted = []
    team = Processes(rank=rank, count=2, disconnect=lambda: parted.append(rank))
    monkeypatch.setattr(processes, "get_processes", lambda: team)
    fitting._print_lines(["a", "b"])
    assert capsys.readouterr().out == told
    assert parted == [rank]


def test_long_accuracy_table_is_not_printed_but_named(tmp_path):
    (tmp_path / "last.safetensors").touch()
    for rows, printed in ((21, 22), (22, 2)):
        table = pd.DataFrame({"class": range(rows), "accuracy": 0.5})
        table.to_csv(tmp_path / "test.csv", index=False)
        shown, *more, net = fitting._describe_outcome(tmp_path)
        assert len(shown.splitlines()) == printed
        assert more == [f"each class -> {tmp_path / 'test.csv'}"] * (rows > 21)
        assert net == f"net -> {tmp_path / 'last.safetensors'}"


def test_accuracy_refuses_a_net_with_other_class_names(digits, recipe, tmp_path):
    net = xcam.models.load("xcam:cifar_resnet", depth=8, in_channels=1, num_classes=10)
    net.categories = tuple("abcdefghij")
    xcam.save(net, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"those of the model are a, b, c, d, e, … \(10\)"):
        xcam.recipes.accuracy(recipe, digits, tmp_path / "net.safetensors")


def test_refusals(digits, recipe, tmp_path):
    command = ("fit", "--recipe", recipe, "--root", digits)
    out = ("--out", tmp_path / "run")
    assert refused(*command) == "a training needs --out, its folder, and takes no --weights"
    assert refused(*command, *out, "--weights", "a") == refused(*command)
    assert refused(*command, "--evaluate").endswith("needs --weights, or the --out of a run")
    assert refused(*command, *out, "--evaluate").startswith("neither best.safetensors nor last")
    assert refused(*command, *out, "--set", "epochs").endswith("such as epochs=2, got 'epochs'")
    assert refused(*command, *out, "--set", "=2").endswith("got '=2'")
    assert "'lr': did you mean optimizer.lr?" in refused(*command, *out, "--set", "lr=0.1")
    assert "'dept': did you mean depth" in refused(*command, *out, "--set", "model.dept=9")
    assert "'epoch': did you mean epochs" in refused(*command, *out, "--set", "epoch=2")
    assert refused(*command, *out, "--set", "clip=[1").startswith("'[1' is neither a value of TOML")
    wrong = refused("fit", "--recipe", "mnist_simple_cn", "--root", digits, *out)
    assert wrong.startswith("no recipe is called 'mnist_simple_cn'; the nearest are mnist_simple")
    assert not (tmp_path / "run").exists()


def test_commands_on_the_recipes_page_are_valid(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "howto" / "recipes.md").read_text("utf-8")
    shell = "".join(re.findall(r"```shell\n(.*?)```", page, re.DOTALL))
    shell = shell.replace("\\\n", " ")  # commands of two lines
    lines = [shlex.split(line, comments=True) for line in shell.splitlines() if " fit " in line]
    assert len(lines) > 5
    options = run("fit", "--help").stdout
    (tmp_path / "mine.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    for words in lines:
        given = dict(itertools.pairwise(words))
        changes = [after for word, after in itertools.pairwise(words) if word == "--set"]
        xcam.recipes.read(given["--recipe"], fitting.parse_changes(changes))
        for option in (word for word in words if word.startswith("--")):
            assert f"  {option} " in options, option
