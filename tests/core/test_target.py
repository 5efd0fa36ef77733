"""`Target`: what users may write, and what it reads off an output."""

import itertools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from nets import Staged, pictures
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.core import Target, extract_logits
from xcam.errors import ModelOutputError

IMAGES = pictures(3)
LOGITS = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))


def bound(target, output=LOGITS):
    made = Target.of(target, IMAGES)
    made.bind(output)
    return made


class TestKinds:
    @pytest.mark.parametrize(
        ("target", "classes"),
        [
            (2, [2, 2, 2]),
            (np.int64(2), [2, 2, 2]),
            (torch.tensor(2), [2, 2, 2]),
            ([0, 4, 1], [0, 4, 1]),
            ((0, 4, 1), [0, 4, 1]),
            (np.array([0, 4, 1]), [0, 4, 1]),
            (torch.tensor([0, 4, 1], dtype=torch.uint8), [0, 4, 1]),
            (None, LOGITS.argmax(1).tolist()),
        ],
    )
    def test_classes(self, target, classes):
        made = bound(target)
        assert made.classes.tolist() == classes
        assert made.classes.dtype == torch.int64
        assert_close(made.scores(LOGITS), LOGITS[range(3), classes])
        assert_close(made.logits, LOGITS)

    def test_target_made_from_a_target_keeps_its_classes(self):
        made = Target.of(Target.of([0, 4, 1], IMAGES), IMAGES)
        assert made.classes.tolist() == [0, 4, 1]

    def test_selected_target_keeps_its_row_numbers(self):
        part = Target.of(None, IMAGES).select(slice(1, 3))
        assert Target.of(part, IMAGES[1:]).rows.tolist() == [1, 2]

    def test_selecting_forgets_the_pass(self):
        chunk = bound(None).select(slice(0, 2))
        assert not chunk.bound
        assert chunk.logits is None

    def test_predicted_class_stays_that_of_the_clean_pass(self):
        made = bound(None)
        other = -LOGITS
        assert_close(made.scores(other), other.gather(1, LOGITS.argmax(1, keepdim=True))[:, 0])

    def test_predicted_class_before_a_pass(self):
        with pytest.raises(RuntimeError, match=r"call target.bind first"):
            Target.of(None, IMAGES).scores(LOGITS)

    @pytest.mark.parametrize(
        ("target", "error", "words"),
        [
            (-1, ValueError, "target -1 is negative: classes count from 0"),
            ([0, -3, 1], ValueError, "target -3 is negative"),
            ([3, 3], ValueError, r"each of the 3 images, got shape \(2,\); pass a single int"),
            ([[0, 1, 2]], ValueError, r"got shape \(1, 3\)"),
            (torch.zeros(1, dtype=torch.long), ValueError, r"got shape \(1,\)"),
            ([], ValueError, "each of the 3 images, got none"),
            (1.0, TypeError, "must hold integers, got torch.float32: 1.0"),
            ([1.0, 2.0, 3.0], TypeError, "must hold integers, got torch.float32"),
            (True, TypeError, "must hold integers, got torch.bool: True"),
            ([True, False, True], TypeError, "must hold integers, got torch.bool"),
            (1j, TypeError, "must hold integers, got torch.complex64"),
            ("cat", ValueError, "target 'cat' is the name of a class, and the model names none"),
            (["cat"] * 3, ValueError, "target 'cat' is the name of a class"),
            ({0: 1}, TypeError, "None, an int, a name, 3 of them, or a callable"),
            (Target(torch.arange(2)), ValueError, "the target is for 2 images, got 3"),
        ],
    )
    def test_refused(self, target, error, words):
        with pytest.raises(error, match=words) as caught:
            Target.of(target, IMAGES)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("target", [99, [0, 99, 1]])
    def test_out_of_range(self, target):
        with pytest.raises(
            ValueError, match=r"target 99 is out of range: the model has 5 classes, 0 to 4"
        ):
            bound(target)

    def test_out_of_range_of_a_single_score(self):
        with pytest.raises(ValueError, match=r"target 1 is out of range.*a single score, target 0"):
            bound(1, LOGITS[:, :1])


class TestScores:
    @pytest.mark.parametrize(
        ("output", "function"),
        [
            ("logit", lambda t: t),
            ("prob", lambda t: t.softmax(1)),
            ("logprob", lambda t: t.log_softmax(1)),
        ],
    )
    def test_score_of_many_classes_follows_the_output_type(self, output, function):
        assert_close(bound(2).scores(LOGITS, output=output), function(LOGITS)[:, 2])

    @pytest.mark.parametrize(
        ("output", "function"),
        [
            ("logit", lambda t: t),
            ("prob", torch.sigmoid),
            ("logprob", lambda t: t.sigmoid().log()),
        ],
    )
    def test_score_of_a_single_logit_follows_the_output_type(self, output, function):
        single = LOGITS[:, :1]
        made = bound(None, single)
        assert made.classes.tolist() == [0, 0, 0]
        assert_close(made.scores(single, output=output), function(single)[:, 0])

    def test_unknown(self):
        with pytest.raises(ValueError, match="'logit', 'prob' or 'logprob', got 'odds'"):
            bound(2).scores(LOGITS, output="odds")

    def test_rows_repeat_and_interleave(self):
        rows = torch.tensor([2, 0, 0, 2, 1])
        output = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
        scores = bound([0, 4, 1]).scores(output, rows)
        assert_close(scores, output[range(5), [1, 0, 0, 1, 4]])

    def test_differentiable(self):
        output = LOGITS.clone().requires_grad_()
        bound(2).scores(output, output="prob").sum().backward()
        assert output.grad.abs().sum() > 0

    def test_half_precision(self):
        made = bound(2, LOGITS.bfloat16())
        assert made.logits.dtype == torch.float32
        assert made.scores(LOGITS.bfloat16(), output="prob").dtype == torch.float32

    def test_double_stays(self):
        assert bound(2, LOGITS.double()).scores(LOGITS.double()).dtype == torch.float64


class Named(NamedTuple):
    embedding: torch.Tensor
    logits: torch.Tensor


class Auxiliary(NamedTuple):
    logits: torch.Tensor
    aux_logits: torch.Tensor


@dataclass
class Dataclass:
    scores: torch.Tensor
    loss: object = None


class TestOutputs:
    @pytest.mark.parametrize(
        "output",
        [
            LOGITS,
            (LOGITS,),
            [LOGITS, None],
            {"logits": LOGITS},
            {"out": {"logits": LOGITS}, "loss": torch.tensor(1.0), "features": torch.ones(3, 4, 2)},
            (torch.ones(4, 5), LOGITS),  # another batch size
            (LOGITS, torch.ones(3, 5).long()),
            {"features": LOGITS + 1, "logits": LOGITS, "hidden": (torch.ones(3, 9, 4), LOGITS)},
            {"out": {"pooler": LOGITS + 1, "logits": (LOGITS,)}, "loss": torch.zeros(3)},
            {"scores": LOGITS, "logits": None},
            Named(LOGITS + 1, LOGITS),
            Dataclass(LOGITS),
            SimpleNamespace(loss=LOGITS + 1, logits=LOGITS),
            LOGITS[:, :, None],
            LOGITS[:, :, None, None],
            {"maps": torch.ones(3, 5, 2, 2), "pooled": LOGITS[:, :, None, None]},
            (LOGITS[:, :, None, None] + 1, LOGITS),  # two dimensions come first
        ],
    )
    def test_one_tensor_is_found(self, output):
        assert_close(extract_logits(output, 3), LOGITS)

    @pytest.mark.parametrize(
        ("output", "got"),
        [
            (LOGITS[:, :, None, None].expand(3, 5, 2, 2), r"got \(3, 5, 2, 2\)"),
            (torch.tensor([1, 0, 2]), r"got \(3,\)"),  # labels
            (LOGITS[0], r"got \(5,\)"),
            (Auxiliary(LOGITS, LOGITS), r"got \(3, 5\), \(3, 5\)"),
            (Dataclass, "got type"),
            ((LOGITS, LOGITS + 1), r"got \(3, 5\), \(3, 5\)"),
            (LOGITS.long(), r"floating-point \(3, K\)"),
            (LOGITS[:, :0], r"got \(3, 0\)"),
            ({}, "got dict"),
            ("logits", "got str"),
            (None, "got NoneType"),
        ],
    )
    def test_none_is_found(self, output, got):
        with pytest.raises(ModelOutputError, match=got) as caught:
            bound(None, output)
        assert "pass a callable (output, rows) -> scores" in str(caught.value)

    @pytest.mark.parametrize("output", [LOGITS[:, 0], (LOGITS[:, 0], torch.ones(3, 2, 2))])
    def test_one_score_an_image_is_a_single_class(self, output):
        assert_close(extract_logits(output, 3), LOGITS[:, :1])

    @pytest.mark.parametrize("squeezed", [LOGITS[0], LOGITS[0, :1], LOGITS[0, 0], LOGITS[0].half()])
    def test_bare_output_of_one_image_may_be_squeezed(self, squeezed):
        assert_close(extract_logits(squeezed, 1), squeezed.float().reshape(1, -1))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_non_finite_output_is_refused_with_its_image_number(self, value):
        output = LOGITS.clone()
        output[1, 3] = value
        with pytest.raises(ModelOutputError, match="output for image 1 is not finite: check"):
            bound(0, output)
        with pytest.raises(
            ModelOutputError, match="image 1"
        ):  # the caller's number, not the chunk's
            Target.of(0, IMAGES).select(slice(1, 3)).bind(output[1:])


class TestCallable:
    def test_speaks_for_itself(self):
        made = bound(lambda output, rows: output[:, 3] - output[:, 1])  # a contrast of two classes
        assert_close(made.scores(LOGITS, output="prob"), LOGITS[:, 3] - LOGITS[:, 1])
        assert made.classes is None
        assert_close(made.logits, LOGITS)

    def test_any_output(self):
        maps = torch.randn(3, 5, 4, 4)
        made = bound(lambda output, rows: output["masks"][:, 2].mean((1, 2)), {"masks": maps})
        assert_close(made.scores({"masks": maps}), maps[:, 2].mean((1, 2)))
        assert made.bound
        assert made.logits is None

    @pytest.mark.parametrize(
        ("returned", "got"),
        [
            (LOGITS, r"got \(3, 5\) of torch.float32"),
            (LOGITS[:, :1], r"got \(3, 1\)"),
            (LOGITS.sum(), r"got \(\)"),
            (LOGITS[:, 0].long(), r"got \(3,\) of torch.int64"),
            ([1.0, 2.0, 3.0], "got list"),
            (None, "got NoneType"),
        ],
    )
    def test_callable_must_return_one_float_score_per_row(self, returned, got):
        with pytest.raises(ModelOutputError, match=got) as caught:
            bound(lambda output, rows: returned).scores(LOGITS)
        assert "floating-point tensor of shape (3,)" in str(caught.value)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_non_finite_callable_score_is_refused_with_its_image_number(self, value):
        made = Target.of(lambda output, rows: output.sum(1), IMAGES).select(slice(1, 3))
        output = torch.ones(4, 5)
        output[2, 0] = value
        with pytest.raises(ModelOutputError, match="target callable's score for image 2 is not"):
            made.scores(output, torch.tensor([0, 0, 1, 1]))

    @pytest.mark.parametrize("function", [lambda: 0, lambda output: 0, lambda a, b, c: 0])
    def test_callable_with_other_arguments_is_refused(self, function):
        with pytest.raises(TypeError, match=r"a target callable takes \(output, rows\)"):
            Target.of(function, IMAGES)

    @pytest.mark.parametrize(
        "function", [torch.gather, max, nn.Identity(), lambda *both: 0, lambda a, b, c=1: 0]
    )
    def test_callable_with_two_or_unknown_arguments_is_accepted(self, function):
        assert Target.of(function, IMAGES).function is function


class Segmenting(Staged):
    def head(self, features):
        return {"out": self.tail[:3](features)}  # (B, 4, H, W)


class ConvHead(Staged):
    """A convolution behind global pooling: (B, K, 1, 1)."""

    def head(self, features):
        return super().head(features)[:, :, None, None]


class Squeezed(ConvHead):
    def head(self, features):
        return super().head(features).squeeze()


class OneScore(Staged):
    def head(self, features):
        return super().head(features)[:, 2]


class WithHidden(Staged):
    """Gives the features beside the logits, as Hugging Face's models do."""

    def head(self, features):
        later = self.tail[:3](features)
        hidden = {"last_hidden_state": later, "pooled": later.mean((2, 3))}
        return {**hidden, "logits": super().head(features), "loss": None}


class TestForms:
    """The same map, whatever form the model gives its logits."""

    @pytest.mark.parametrize(("net", "target"), [(ConvHead, 2), (Squeezed, 2), (OneScore, 0)])
    @pytest.mark.parametrize("method", ["gradcam", "rise", "scorecam", "saliency"])
    def test_maps_and_logits_are_those_of_plain_logits(self, net, target, method):
        settings = {"rise": {"n_masks": 5}}.get(method, {})
        settings |= {"layer": "layer"} if method in ("gradcam", "scorecam") else {}
        output = {"output": "logit"} if method == "rise" else {}
        output |= {"weighting": "softmax_logit"} if method == "scorecam" else {}
        for images in (IMAGES, IMAGES[:1]):
            expected = xcam.explain(Staged(), images, 2, method, **settings, **output)
            got = xcam.explain(net(), images, target, method, **settings, **output)
            assert_close(got.raw, expected.raw)
            assert got.raw.abs().max() > 0
            wanted = expected.logits if target else expected.logits[:, 2:3]
            assert_close(got.logits, wanted)

    def test_logits_beside_hidden_states_choose_the_layer(self):
        net = WithHidden()
        got = xcam.explain(net, IMAGES)
        assert_close(got.logits, Staged()(IMAGES).detach())
        assert_close(got.target, got.logits.argmax(1))
        assert_close(got.raw, xcam.explain(Staged(), IMAGES).raw)

    def test_layer_leads_to_the_logits_though_later_layers_lead_to_other_outputs(self):
        class Auxiliary(Staged):
            def __init__(self):
                super().__init__()
                self.decoder = nn.Conv2d(4, 6, 3, padding=1)

            def head(self, features):
                logits = super().head(features)
                return {"logits": logits, "decoded": self.decoder(features)}

        assert xcam.explain(Auxiliary(), IMAGES).method.layer != "decoder"


class TestInExplain:
    """Callables are given the caller's image numbers, however the images are batched."""

    @pytest.mark.parametrize("batch_size", [1, 2, None])
    def test_labels_of_each_image(self, batch_size):
        labels = torch.tensor([[0, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 1, 1, 1]]).float()
        seen = []

        def present(output, rows):
            seen.append(rows.tolist())
            return (output * labels[rows]).sum(1)

        net = Staged()
        got = xcam.explain(net, IMAGES, present, layer="layer", batch_size=batch_size)
        assert list(itertools.chain.from_iterable(seen)) == [0, 1, 2]
        assert got.target is None
        for image in range(3):
            alone = xcam.explain(
                net,
                IMAGES[image : image + 1],
                lambda output, rows, image=image: (output * labels[image]).sum(1),
                layer="layer",
            )
            assert_close(got.maps[image], alone.maps[0], atol=1e-6, rtol=1e-4)

    def test_contrast_is_the_difference_of_the_maps(self):
        net = Staged()
        first, second, contrast = (
            xcam.explain(net, IMAGES, target, layer="layer").maps
            for target in (3, 1, lambda output, rows: output[:, 3] - output[:, 1])
        )
        assert_close(contrast, first - second, atol=1e-6, rtol=1e-4)

    def test_segmentation(self):
        got = xcam.explain(
            Segmenting(),
            IMAGES,
            lambda output, rows: output["out"][:, 2].mean((1, 2)),
            layer="layer",
        )
        assert got.logits is None
        assert got.maps.abs().max() > 0

    def test_segmentation_needs_a_callable(self):
        with pytest.raises(
            xcam.errors.ModelOutputError, match=r"got \(3, 4, 8, 8\); pass a callable"
        ):
            xcam.explain(Segmenting(), IMAGES, layer="layer")

    def test_single_score(self):
        net = Staged()
        net.fc = nn.Linear(4, 1)
        got = xcam.explain(net, IMAGES, layer="layer", output="prob")
        assert got.target.tolist() == [0, 0, 0]
        assert got.logits.shape == (3, 1)
        assert got.maps.abs().max() > 0
