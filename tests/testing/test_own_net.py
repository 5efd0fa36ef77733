"""Methods and metrics that know one kind of net alone pass the contract on the author's net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import Explanation, Method, MethodSpec, Metric, MetricSpec, Target
from xcam.engine import forward, untouched
from xcam.engine.chunks import collect
from xcam.errors import LayerError
from xcam.models.toy import LinearNet
from xcam.testing import check_method, check_metric, method_checks, metric_checks

IMAGES = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(3))


class TinyViT(nn.Module):
    """One block of attention over a class token and 3×3 patches of 4×4 gray pixels."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embed = nn.Conv2d(1, 8, 4, stride=4)
            self.token = nn.Parameter(torch.randn(1, 1, 8))
            self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
            self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
            self.tokens = nn.LayerNorm(8)
            self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], 1)
        tokens = tokens + self.mix(tokens, tokens, tokens, need_weights=False)[0]
        tokens = tokens + self.mlp(tokens)
        return self.head(self.tokens(tokens)[:, 0])


def read_tokens(model: nn.Module) -> nn.Module:
    """Return the layer of tokens, or refuse a net that has none."""
    layer = getattr(model, "tokens", None)
    if not isinstance(layer, nn.LayerNorm):
        raise LayerError(f"{type(model).__name__} has no `tokens`; give a TinyViT")
    return layer


@dataclass(frozen=True)
class TokenGradient(Method):
    """The patches times the class token's gradient, for nets of tokens alone."""

    spec: ClassVar[MethodSpec] = MethodSpec(
        "token_gradient", "Token gradient", "None, 2026", family="tokens", cost="1 + tail backward"
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        held: dict[str, Tensor] = {}

        def replace(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            held["tokens"] = inputs[0].detach().requires_grad_()
            return (held["tokens"],)

        handle = read_tokens(model).register_forward_pre_hook(replace)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                output = forward.call(model, images.clone())
                target.bind(output)
                scores = target.scores(output).sum()
                (slope,) = torch.autograd.grad(scores, held["tokens"])
        finally:
            handle.remove()
        similar = (held["tokens"].detach()[:, 1:] * slope[:, :1]).sum(2)
        return similar.unflatten(1, (images.shape[2] // 4, images.shape[3] // 4))


@dataclass(frozen=True)
class KeepsItsHook(TokenGradient):
    """Broken: leaves a hook on the net of tokens."""

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        read_tokens(model).register_forward_hook(print_nothing)
        return super().maps(model, images, target)


@dataclass(frozen=True)
class ComparesTheBatch(TokenGradient):
    """Broken: divides by the largest value of all images."""

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        maps = super().maps(model, images, target)
        return maps / maps.abs().max().clamp(min=1e-9)


def print_nothing(*_: object) -> None:
    """Change nothing."""


@dataclass(frozen=True)
class TokenAgreement(Metric):
    """How far maps follow the similarity of patch and class tokens, for nets of tokens alone."""

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="token_agreement",
        title="Token agreement",
        paper="None, 2026",
        formula="cos(map, similarity)",
        higher_is_better=True,
        bounds=(-1.0, 1.0),
        question="tokens",
        cost="1",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        maps = explanation.maps
        if maps.shape != images[:, 0].shape or not bool(maps.isfinite().all()):
            raise ValueError(f"maps must be finite, one an image, got {tuple(maps.shape)}")
        found: list[Tensor] = []
        handle = read_tokens(model).register_forward_hook(lambda *args: found.append(args[2]))
        try:
            with untouched(model), torch.no_grad():
                collect(len(images), lambda part: forward.call(model, images[part]), images)
        finally:
            handle.remove()
        tokens = torch.cat(found)
        similar = F.cosine_similarity(tokens[:, 1:], tokens[:, :1], dim=2)
        pooled = F.adaptive_avg_pool2d(
            maps[:, None].float(), (images.shape[2] // 4, images.shape[3] // 4)
        )
        return F.cosine_similarity(pooled.flatten(1), similar, dim=1)

    def finish(self, mean: Tensor) -> Tensor:
        return mean


@dataclass(frozen=True)
class RanksTheBatch(TokenAgreement):
    """Broken: compares images with each other."""

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        rows = super().score(model, images, explanation, truth)
        return rows - rows.mean()


def broken(results):
    return {result.check for result in results if result.outcome == "broken"}


def test_method_for_one_kind_of_net_passes_on_that_net():
    net = TinyViT()
    assert broken(check_method(TokenGradient(), net, IMAGES)) == set()
    assert net.training  # the author's net is copied, not used


def test_method_for_one_kind_of_net_fails_on_the_usual_one():
    assert len(broken(check_method(TokenGradient()))) > 20


def test_broken_method_is_caught_on_the_authors_net():
    assert broken(check_method(KeepsItsHook(), TinyViT(), IMAGES)) == {"leaves_hooks"}
    assert broken(check_method(ComparesTheBatch(), TinyViT(), IMAGES)) >= {
        "same_for_any_batch_size",
        "same_for_a_subset",
        "same_beside_other_images",
    }


def test_metric_for_one_kind_of_net_passes_on_that_net():
    assert broken(check_metric(TokenAgreement(), TinyViT(), IMAGES)) == set()


def test_broken_metric_is_caught_on_the_authors_net():
    found = broken(check_metric(RanksTheBatch(), TinyViT(), IMAGES))
    assert {"same_for_a_subset", "same_beside_other_images"} <= found


def test_every_check_uses_the_authors_net():
    net, running, used = TinyViT(), [], set()

    class Report(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            used.update(running[-1:])
            return images

    net.embed = nn.Sequential(Report(), net.embed)
    checks = method_checks(TokenGradient(), net, IMAGES)
    for check in checks:
        running.append(check.name)
        check()
    assert {check.name for check in checks if not check.name.startswith("leaves_")} - used == {
        "has_a_spec",
        "is_a_frozen_dataclass",
        "survives_pickling",
        "shows_its_settings",
        "excuses_little",
        "follows_its_seed",  # it has none
        "runs_or_refuses_clearly",  # on other nets
        "tells_whether_normalized",  # it does not say so
    }


@pytest.mark.parametrize("checks", [method_checks, metric_checks])
def test_nets_and_images_that_do_not_fit_are_refused(checks):
    tested = TokenGradient() if checks is method_checks else TokenAgreement()
    with pytest.raises(ValueError, match=r"at least three, got 2"):
        checks(tested, TinyViT(), IMAGES[:2])
    with pytest.raises(ValueError, match=r"fails on images of shape \(4, 3, 12, 12\); give images"):
        checks(tested, TinyViT(), IMAGES.expand(-1, 3, -1, -1))
    with pytest.raises(ValueError, match=r"fails on images of shape \(5, 3, 16, 16\); give images"):
        checks(tested, TinyViT())
    with pytest.raises(ValueError, match="two or more logits, got one"):
        checks(tested, LinearNet((1, 12, 12), num_classes=1), IMAGES)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
        checks(tested, print_nothing, IMAGES)
