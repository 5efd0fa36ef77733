"""The estimate agrees with what the trainings take, by a clock that only the work advances."""

import re
from datetime import timedelta

import pytest
from retrainings import EXPLAINED, FIT, TEST, TRAIN, Bright, Net, ramp

import xcam
from xcam._roar.removal import Removal

STEP, MASK, RANK, MAP = 0.03, 0.02, 0.01, 0.1  # seconds an image
FRACTIONS = (0.4, 0.5)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def spend(kind, name, seconds, images):
        inner = getattr(kind, name)

        def timed(self, *arguments, **settings):
            now[0] += seconds(self) * len(arguments[images])
            return inner(self, *arguments, **settings)

        monkeypatch.setattr(kind, name, timed)

    spend(Net, "forward", lambda net: STEP if net.training else STEP / 3, 0)
    fill_in = Removal.fill_in

    def fill(self, images, removed, channel_mean):
        now[0] += 0 if removed.all() else MASK * len(images)
        return fill_in(self, images, removed, channel_mean)

    monkeypatch.setattr(Removal, "fill_in", fill)
    spend(Removal, "rank_elements", lambda _: RANK, 0)
    return now


def measure(clock, capsys, **arguments):
    """Return the seconds of a training and in all, estimated and taken."""

    def mapped(images, ids, target):
        clock[0] += MAP * len(images)
        return ramp(images, ids, target)

    given = {"fit": FIT, "fractions": FRACTIONS, "repeats": 1, "controls": False} | arguments
    train, test = given.pop("train", TRAIN), given.pop("test", TEST)
    call = (Net, train, test, EXPLAINED, ())
    xcam.roar(*call, maps=mapped, dry_run=True, **given)
    hours, each = re.search(r"about (\S+) in .*\((\S+) s each", capsys.readouterr().out).groups()
    hours = [int(part) for part in hours.split(":")]
    begin = clock[0]
    rows = xcam.roar(*call, maps=mapped, **given).to_pandas()
    whole = timedelta(hours=hours[0], minutes=hours[1], seconds=hours[2]).total_seconds()
    return float(each), rows["seconds"].mean(), whole, clock[0] - begin


SCHEDULE = {"name": "OneCycleLR", "max_lr": 0.1, "total_steps": 2}
CASES = {
    "a step an epoch": {"fit": {"epochs": 6, "batch_size": 20}},
    "images of less than a batch": {"fit": {"epochs": 5}},
    "many test images": {"fit": {**FIT, "batch_size": 4}, "test": Bright(60, seed=1)},
    "validation": {"fit": {**FIT, "epochs": 2}, "validation": Bright(30, seed=2)},
    "unmasked test images": {"mask_eval": False, "fit": {**FIT, "epochs": 3}},
    "a schedule": {"fit": {"epochs": 2, "schedule": SCHEDULE}},
    # Two stacks of three.
    "a stack": {"parallel": 3, "fit": {**FIT, "epochs": 3}, "fractions": (0.2, 0.3, 0.4, 0.5)},
}


@pytest.mark.parametrize("name", CASES)
def test_it_holds_for_small_data_and_counts_masks(clock, capsys, monkeypatch, name):
    # Fitting ranks are counted with the maps; here they cost nothing.
    monkeypatch.setattr("test_roar_estimate.RANK", 0.0)
    each, taken, whole, total = measure(clock, capsys, **CASES[name])
    assert each == pytest.approx(taken, rel=0.12, abs=0.05)
    assert whole == pytest.approx(total, rel=0.15, abs=1)


def test_ranks_that_do_not_fit_into_memory_are_counted_each_time(clock, capsys, monkeypatch):
    small, *_ = measure(clock, capsys, fit={**FIT, "epochs": 3})
    for module in ("images", "removal", "estimate"):
        monkeypatch.setattr(f"xcam._roar.{module}.CACHED_VALUES", 0)
    each, taken, *_ = measure(clock, capsys, fit={**FIT, "epochs": 3})
    assert each == pytest.approx(taken, rel=0.12, abs=0.05)
    assert each > small + 0.5 * RANK * 3 * len(TRAIN)  # half of the trainings rank


def test_a_few_images_are_timed(clock, capsys):
    xcam.roar(
        Net, Bright(200), TEST, EXPLAINED, (), maps=ramp, fit=FIT, controls=False, dry_run=True
    )
    assert "measured on 4 steps" in capsys.readouterr().out
    # Three trials of 32 images, one of them of two epochs, their tests, masks and ranks.
    assert clock[0] < 0.1 * (STEP + MASK) * 200 * 27
