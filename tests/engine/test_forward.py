"""A pass of the model, and the run settings of a verb."""

import threading

import pytest
import torch
from nets import Counting, Staged, Viewing, pictures
from torch.testing import assert_close

from xcam.engine import forward
from xcam.engine.forward import (
    call,
    current_runtime,
    note,
    run_settings,
)
from xcam.errors import XcamWarning


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
