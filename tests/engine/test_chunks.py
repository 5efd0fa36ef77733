"""Rows in chunks that fit into memory."""

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from xcam.engine import forward, untouched
from xcam.engine.chunks import choose_batch_size, chunks, collect, default_batch_size
from xcam.engine.forward import (
    current_runtime,
    run_settings,
)


def worked(rows, step=lambda part: list(range(part.start, part.stop)), like=None):
    like = torch.zeros(1, 3, 8, 8) if like is None else like
    return [result for _, result in chunks(rows, step, like)]


def flat(parts):
    return list(itertools.chain.from_iterable(parts))


class Memory:
    """Fits `room` rows at a time, and remembers what was tried."""

    def __init__(self, room, error=torch.OutOfMemoryError):
        self.room, self.error, self.tried = room, error, []

    def step(self, part):
        count = part.stop - part.start
        self.tried.append(count)
        if count > self.room:
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        return list(range(part.start, part.stop))


class TestChunks:
    @pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
    def test_each_row_once_and_in_order(self, size):
        with run_settings(batch_size=size):
            parts = worked(7)
        assert flat(parts) == list(range(7))
        assert max(map(len, parts)) == min(size, 7)

    def test_no_rows(self):
        assert worked(0) == []

    @pytest.mark.parametrize(
        ("size", "tried"), [(1, [3] * 3), (5, [3] * 3), (7, [6, 3, 3, 3]), (9, [9, 3, 3, 3])]
    )
    def test_rows_of_a_group_share_a_chunk(self, size, tried):
        memory = Memory(5)
        with run_settings(batch_size=size):
            parts = chunks(9, memory.step, torch.zeros(1, 3, 8, 8), group_size=3)
            assert flat(part for _, part in parts) == list(range(9))
        assert memory.tried == tried

    def test_group_that_does_not_fit_raises(self):
        with pytest.raises(torch.OutOfMemoryError), run_settings(batch_size=8):
            list(chunks(8, Memory(1).step, torch.zeros(1, 3, 8, 8), group_size=2))

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
    def test_halves_the_chunk_when_memory_runs_out(self, error):
        memory = Memory(3, error)
        with run_settings(batch_size=16) as run:
            parts = worked(20, memory.step)
        assert flat(parts) == list(range(20))  # nothing lost, nothing twice
        assert memory.tried == [16, 8, 4] + [2] * 10
        assert run.batch_size == 2

    def test_reduced_size_lasts_for_the_call(self):
        memory = Memory(4)
        with run_settings(batch_size=8):
            worked(8, memory.step)
            memory.tried.clear()
            worked(8, memory.step)
        assert memory.tried == [4, 4]

    def test_single_row_that_does_not_fit_raises(self):
        memory = Memory(0)
        with run_settings(batch_size=4), pytest.raises(torch.OutOfMemoryError):
            worked(4, memory.step)
        assert memory.tried == [4, 2, 1]

    def test_other_errors_pass(self):
        memory = Memory(0, ValueError)
        with run_settings(batch_size=4), pytest.raises(ValueError, match="allocate"):
            worked(4, memory.step)
        assert memory.tried == [4]

    def test_nested_chunks_share_the_size(self):
        memory = Memory(2)

        def outer(part):
            return flat(worked(10, memory.step)) * (part.stop - part.start)

        with run_settings(batch_size=4):
            results = worked(5, outer)
        assert flat(results) == list(range(10)) * 5
        assert memory.tried.count(4) == 1

    def test_inner_row_that_does_not_fit_halves_the_outer_chunk(self):
        sizes = []

        def outer(part):
            sizes.append(part.stop - part.start)
            if sizes[-1] > 2:
                worked(4, Memory(0).step)
            return [part.start]

        with run_settings(batch_size=4):
            assert len(worked(4, outer)) == 4
        assert sizes == [4, 1, 1, 1, 1]  # the inner loop had come down to one by one

    def test_works_outside_of_a_verb(self):
        memory = Memory(3)
        assert flat(worked(40, memory.step)) == list(range(40))
        assert current_runtime() == forward.RunSettings()

    def test_progress_only_if_asked(self, capfd):
        with run_settings(batch_size=1):
            worked(3)
        assert capfd.readouterr() == ("", "")
        with run_settings(batch_size=1, progress=True):
            list(chunks(3, lambda part: None, torch.zeros(1, 3, 8, 8), "masks"))
        out, err = capfd.readouterr()
        assert out == ""
        assert "masks" in err


class TestDefaultBatchSize:
    @pytest.mark.parametrize(
        ("device", "size", "expected"),
        [
            ("cpu", (224, 224), 4),
            ("cpu", (448, 448), 1),
            ("cpu", (112, 224), 8),
            ("cpu", (4000, 4000), 1),
            ("cpu", (8, 8), 64),
            ("meta", (224, 224), 256),  # any accelerator
            ("meta", (8, 8), 8192),
        ],
    )
    def test_follows_size_and_device(self, device, size, expected):
        assert default_batch_size(torch.empty(1, 3, *size, device=device)) == expected

    def test_default_batch_size_splits_the_rows(self):
        assert [len(part) for part in worked(20, like=torch.zeros(1, 3, 224, 224))] == [
            4,
            4,
            4,
            4,
            4,
        ]

    @pytest.mark.parametrize(
        ("footprint", "expected"), [(3_200_000, 6), (50_000, 64), (10**9, 1), (None, 4), (0, 4)]
    )
    def test_known_layers_decide_rather_than_pixels(self, footprint, expected, monkeypatch):
        images, net = torch.zeros(1, 3, 224, 224), nn.Identity()
        monkeypatch.setattr("xcam.engine.chunks.measure_footprint", lambda *_: footprint)
        with run_settings() as settings:
            assert choose_batch_size(300, images, settings) == 4
            with untouched(net):
                assert choose_batch_size(300, images, settings) == expected
                settings.batch_size = 7
                assert choose_batch_size(300, images, settings) == 7

    def test_footprint_is_not_asked_for_where_it_makes_no_difference(self, monkeypatch):
        measure = "xcam.engine.chunks.measure_footprint"
        monkeypatch.setattr(measure, lambda *_: pytest.fail("not needed"))
        with run_settings() as settings, untouched(nn.Identity()):
            choose_batch_size(4, torch.zeros(1, 3, 224, 224), settings)
            choose_batch_size(300, torch.zeros(1, 3, 224, 224, device="meta"), settings)


class TestCollect:
    @pytest.mark.parametrize("size", [1, 3, 100])
    def test_gathers_rows_in_order(self, size):
        table = torch.arange(20, dtype=torch.float64).view(10, 2)
        with run_settings(batch_size=size):
            found = collect(10, lambda part: table[part], torch.zeros(1, 3, 8, 8))
        assert_close(found, table, rtol=0, atol=0)

    def test_collect_over_no_rows_returns_an_empty_tensor(self):
        found = collect(0, lambda part: torch.ones(1), torch.zeros(1, 3, 8, 8))
        assert found.shape == (0,)

    def test_halves_the_chunk_when_memory_runs_out(self):
        memory = Memory(room=3)
        with run_settings(batch_size=8):
            found = collect(10, lambda part: torch.tensor(memory.step(part)), torch.zeros(1, 3, 8))
        assert found.tolist() == list(range(10))
