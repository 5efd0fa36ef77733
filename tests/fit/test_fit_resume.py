"""A training that is killed at any moment goes on, and ends with the bits of one that is not."""

import os
import signal
import time

import killed
import pytest
import torch
from torch.utils.data import DataLoader
from trainings import Net, Noisy, assert_same_bits, assert_same_training, train, weights

import xcam
from xcam.errors import FileFormatError
from xcam.runs import files


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As in the processes that are killed: bits may depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def work(out, workers=0, dies_within=False):
    """What a killed process does.

    `dies_within` has it kill itself before safetensors gives a net, which it has written to a file
    beside, its name.
    """
    if dies_within:

        def save_file(tensors, path, metadata):
            (path.parent / ".tmpAb3x").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

        files.save_file = save_file
    if not workers:
        return train(out)
    # Forked, whatever this process came from: to start them anew takes seconds.
    options = {"num_workers": workers, "multiprocessing_context": "fork"}
    data, held_out = (DataLoader(part, 8, **options) for part in (Noisy(), Noisy(12, seed=1)))
    return train(out, data, validation=held_out)


@pytest.fixture(scope="module")
def unbroken(one_thread, tmp_path_factory):
    """The folder of a whole training, and how long it took."""
    out = tmp_path_factory.mktemp("unbroken")
    train(out / "warm")
    begun = time.perf_counter()
    train(out / "run")
    return out / "run", time.perf_counter() - begun


def standing(out):
    """How far a training is, if it has begun."""
    path = out / "training.pt"
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    return state["epoch"], state["step"]


@killed.posix
@pytest.mark.parametrize(("workers", "kills"), [(0, 14), (2, 10)])
def test_killed_at_random_moments_the_same_bits_come_out(unbroken, tmp_path, workers, kills):
    expected, seconds = unbroken

    def folder(number):
        return tmp_path / str(number)

    killed.killed_at_random(
        lambda number: killed.started(work, folder(number), workers),
        lambda number: standing(folder(number)),
        lambda number: assert_same_training(folder(number), expected),
        latest=0.5 * (seconds + workers),
        kills=kills,
        standings=5,
        seed=workers,
    )


@killed.posix
@pytest.mark.parametrize("write", [1, 2, 3, 7, 9, 10, 11, 12, 17, 18])
def test_killed_at_a_write(unbroken, tmp_path, write):
    """Settings, state, last net, log, best net, one net of an epoch: each may be cut short."""
    process = killed.started(work, tmp_path / "run", dies_at=write)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    train(tmp_path / "run")
    assert_same_training(tmp_path / "run", unbroken[0])


@killed.posix
def test_killed_within_a_net(unbroken, tmp_path):
    process = killed.started(work, tmp_path / "run", 0, True)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.rglob(".tmpAb3x"))
    train(tmp_path / "run")
    assert_same_training(tmp_path / "run", unbroken[0])


def test_workers_change_nothing(unbroken, tmp_path):
    train(tmp_path / "run", workers=2)
    assert_same_training(tmp_path / "run", unbroken[0])


class Interrupting(Noisy):
    """Presses Ctrl-C when it is asked for its `moment`-th item."""

    def __init__(self, moment):
        super().__init__()
        self.moment = moment

    def __getitem__(self, index):
        self.moment -= 1
        if self.moment == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(index)


@pytest.mark.parametrize("moment", [2, 60, 90, 131])
def test_interrupted_it_ends_its_step_and_goes_on(unbroken, tmp_path, moment):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"stopped (at|after)"):
        train(tmp_path / "run", data=Interrupting(moment), save_minutes=5.0)
    assert signal.getsignal(signal.SIGINT) is handler
    epoch, step = standing(tmp_path / "run")
    assert 8 * (6 * epoch + step) >= moment - 1 - 4 * epoch
    train(tmp_path / "run")
    assert_same_training(tmp_path / "run", unbroken[0])


def test_more_epochs_go_on_and_fewer_are_refused(tmp_path):
    train(tmp_path / "a", epochs=1)
    grown = weights(train(tmp_path / "a", epochs=2))
    assert_same_bits(grown, weights(train(tmp_path / "b", epochs=2)))
    again = train(tmp_path / "a", epochs=2, data=Noisy())
    assert_same_bits(weights(again), grown)
    with pytest.raises(
        ValueError, match=r"holds a training of 2 epochs, got epochs=1; epochs must be"
    ):
        train(tmp_path / "a", epochs=1)


def test_finished_training_is_not_trained_again(tmp_path):
    train(tmp_path, epochs=1)
    data = Noisy()
    train(tmp_path, data=data, epochs=1)
    assert set(data.loaded) <= {0}  # to see what an image is


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"seed": 1}, r"seed: 0 there, 1 now"),
        ({"batch_size": 4}, r"batch_size: 8 there, 4 now"),
        ({"optimizer": {"name": "SGD", "lr": 0.2}}, r"optimizer: name, lr, .* there, name, lr now"),
        ({"schedule": None}, r"schedule: \{.*\} there, null now"),
        ({"data": Noisy(40)}, r"data, images: 44 there, 40 now"),
        ({"validation": None}, r"validation: 12 there, null now"),
        ({"label_smoothing": 0.1}, r"label_smoothing: 0.0 there, 0.1 now"),
    ],
)
def test_another_training_is_refused(unbroken, arguments, sentence):
    with pytest.raises(ValueError, match=rf"holds another training \(.*{sentence}"):
        train(unbroken[0], **arguments)


def test_run_settings_are_free(unbroken, tmp_path):
    train(tmp_path / "run", epochs=2)
    free = {"keep_every": 1, "save_minutes": 1.0, "progress": True, "workers": 1}
    net = train(tmp_path / "run", **free)
    expected = xcam.load(unbroken[0] / "best.safetensors", model=Net())
    assert_same_bits(weights(net), weights(expected))


def test_other_first_weights_are_warned_of(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.warns(
        xcam.errors.XcamWarning, match="goes on with what it has.*weights of the model"
    ):
        train(tmp_path, model=Net(seed=1), epochs=1)


@pytest.mark.parametrize("cut", [0, 100, -100])
def test_damaged_training_state_is_refused(tmp_path, cut):
    train(tmp_path, epochs=1)
    content = (tmp_path / "training.pt").read_bytes()
    (tmp_path / "training.pt").write_bytes(content[:cut])
    with pytest.raises(FileFormatError, match=r"training\.pt' is damaged; remove it"):
        train(tmp_path, epochs=1)


@pytest.mark.parametrize(("other", "remedy"), [(99, "upgrade xcam"), (1, "train anew")])
def test_training_state_of_another_format_is_refused(tmp_path, other, remedy):
    train(tmp_path, epochs=1)
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    torch.save({**state, "format": other}, tmp_path / "training.pt")
    with pytest.raises(FileFormatError, match=f"has format {other}, this xcam reads 2; {remedy}"):
        train(tmp_path, epochs=1)
