"""The chunked forward engine and its run settings."""

import itertools
import threading

import pytest
import torch
from nets import Counting, Staged, Viewing, pictures
from torch.testing import assert_close

from xcam.engine import forward
from xcam.engine.forward import (
    call,
    choose_batch_size,
    chunks,
    collect,
    current_runtime,
    default_batch_size,
    note,
    run_settings,
)
from xcam.errors import XcamWarning


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
            ("cpu", (8, 8), 128),
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
        ("footprint", "expected"), [(3_200_000, 4), (50_000, 128), (10**9, 1), (None, 4), (0, 4)]
    )
    def test_known_layers_decide_rather_than_pixels(self, footprint, expected):
        images = torch.zeros(1, 3, 224, 224)
        with run_settings() as settings:
            settings.footprint = lambda: footprint
            assert choose_batch_size(300, images, settings) == expected
            settings.batch_size = 7
            assert choose_batch_size(300, images, settings) == 7

    def test_footprint_is_not_asked_for_where_it_makes_no_difference(self):
        with run_settings() as settings:
            settings.footprint = lambda: pytest.fail("not needed")
            choose_batch_size(4, torch.zeros(1, 3, 224, 224), settings)
            choose_batch_size(300, torch.zeros(1, 3, 224, 224, device="meta"), settings)


class TestCall:
    def test_images_are_channels_last_on_a_cpu(self):
        net = Counting(Staged())
        images = pictures()
        assert_close(call(net, images), net.net(images), check_layout=False)
        assert net.layouts == ["channels_last"]

    def test_model_that_views_gets_contiguous_images(self):
        net = Counting(Viewing())
        images = pictures()
        with run_settings() as run:
            for _ in range(2):
                assert_close(call(net, images), net.net(images))
        assert net.layouts == ["channels_last", "contiguous", "contiguous"]
        assert run.contiguous

    def test_model_that_views_complex_numbers(self):
        def model(images):
            return torch.view_as_complex(images.unflatten(3, (4, 2))).abs().sum((1, 2, 3))

        images = pictures()
        assert_close(call(model, images), model(images))

    def test_other_errors_pass_at_once(self):
        calls = []

        def model(images):
            calls.append(1)
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            call(model, pictures())
        assert len(calls) == 1

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("contiguous", [False, True])
    def test_inplace_model_does_not_change_the_images(self, layout, contiguous):
        images = pictures().contiguous(memory_format=layout)
        before = images.clone()
        with run_settings() as run:
            run.contiguous = contiguous
            result = call(lambda x: x.sub_(1), images)
        assert torch.equal(images, before)
        assert torch.equal(result, before - 1)

    def test_gradients_reach_the_images(self):
        images = pictures().requires_grad_()
        (gradient,) = torch.autograd.grad(call(lambda x: x.square().sum(), images), images)
        assert_close(gradient, 2 * images.detach())

    @pytest.mark.parametrize(
        ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.half)]
    )
    def test_precision(self, precision, dtype):
        net, images = Staged(), pictures()
        with run_settings(precision=precision):
            output = call(net, images)
            assert not torch.is_autocast_enabled("cpu")
        assert output.dtype == dtype
        assert_close(output.float(), net(images), atol=0.05, rtol=0.05)
        assert call(net, images).dtype == torch.float32


class TestRunSettings:
    def test_settings_are_scoped_and_restored(self):
        assert current_runtime() == forward.RunSettings()
        with run_settings(batch_size=4, precision="bf16", progress=True) as outer:
            found = current_runtime()
            assert (found.batch_size, found.precision, found.progress) == (4, "bf16", True)
            with run_settings(batch_size=2):
                assert current_runtime() == forward.RunSettings(2)
            assert current_runtime() is outer
        assert current_runtime() == forward.RunSettings()

    def test_settings_are_restored_after_an_error(self):
        with pytest.raises(KeyboardInterrupt), run_settings(batch_size=4):
            raise KeyboardInterrupt
        assert current_runtime() == forward.RunSettings()

    def test_each_thread_has_its_own(self):
        seen = []
        with run_settings(batch_size=4):
            thread = threading.Thread(target=lambda: seen.append(current_runtime().batch_size))
            thread.start()
            thread.join()
            assert current_runtime().batch_size == 4
        assert seen == [None]

    @pytest.mark.parametrize("size", [0, -1, 2.0, True, "8", float("nan")])
    def test_bad_batch_size(self, size):
        with (
            pytest.raises(ValueError, match=f"positive int or None, got {size!r}"),
            run_settings(batch_size=size),
        ):
            pass
        assert current_runtime() == forward.RunSettings()

    @pytest.mark.parametrize("precision", ["fp8", None, torch.bfloat16, []])
    def test_bad_precision(self, precision):
        with (
            pytest.raises(ValueError, match="'full', 'bf16' or 'fp16', got"),
            run_settings(precision=precision),
        ):
            pass


class TestNote:
    def test_note_within_a_verb_is_kept_once(self):
        with run_settings() as run:
            note("one")
            note("one")
            note("two")
        assert run.notes == ["one", "two"]

    def test_note_outside_of_a_verb_warns(self):
        with pytest.warns(XcamWarning, match="one"):
            note("one")


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
