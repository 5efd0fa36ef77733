"""From arguments to a training that stands where it was left, or at its beginning."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xcam._explain.prepare import prepare
from xcam._explain.run import attached_method, check_headless
from xcam._fit.averaging import Averaging
from xcam._fit.counters import Order, Share, seed_all
from xcam._fit.counting import names
from xcam._fit.learner import Learner
from xcam._fit.mixing import mixing
from xcam._fit.objective import Objective
from xcam._fit.optimization import Optimization
from xcam._fit.place import Place, check_labels
from xcam._fit.settings import Settings, of_net
from xcam._fit.source import Source
from xcam.core import Method, TrainableMethod, extract_logits
from xcam.engine import untouched, unwrap
from xcam.methods.trainable.backbone import images_of
from xcam.models import Normalized
from xcam.runs import manifest

__all__ = ["Start"]


@dataclass(frozen=True, eq=False)
class Start:
    """What a training begins with.

    Attributes:
        settings: What makes it this one.
        source: The training images.
        validation: The images by which the best epoch is chosen.
        test: The images that are looked at once, at the end.
        place: Where the net runs.
        accumulate: Parts a step that each process computes.
        image: The first training image, (1, C, H, W).
        label: Its label, (1,).
    """

    settings: Settings
    source: Source
    validation: Source | None
    test: Source | None
    place: Place
    accumulate: int
    image: Tensor
    label: Tensor

    def with_head(
        self, model: nn.Module, method: str | Method | None, params: dict[str, Any]
    ) -> tuple[nn.Module, TrainableMethod | None]:
        """A copy of the model on the device, with the head of the method, and that method.

        A model that carries a head already keeps it, and is trained by its method.

        Raises:
            TypeError: A method that needs no training.
            LayerError: The model gives no features for the head from images of this size.
            ModelOutputError: The output of the model is not one (B, K) tensor.
            ValueError: The model carries another head, or fails on the first image.
        """
        net = copy.deepcopy(unwrap(model)).to(self.place.device)
        net.zero_grad(set_to_none=True)
        own = attached_method(net)
        if method is None and own is None:
            return net, None
        image = self.image.to(self.place.device)
        chosen = prepare(net, image, method, params).method
        if not isinstance(chosen, TrainableMethod):
            raise TypeError(
                f"{chosen.spec.name} needs no training: explain with it as it is, and leave method "
                "out to train a plain classifier"
            )
        if own is not None and own != chosen:
            check_headless(net)
        if own is None:
            self.place.tried(net, image)  # a head would speak of a blank image
            seed_all("attach", self.settings.seed)
            with images_of(self.size):
                net = chosen.attach(net).to(self.place.device)
        if attached_method(net) is None:
            net.method = chosen  # type: ignore[assignment]
        net.fitted = True  # type: ignore[assignment]  # by the time that anybody sees it
        return net, attached_method(net)

    def learner(self, net: nn.Module, method: TrainableMethod | None) -> Learner:
        """What learns: the net, with everything that changes it.

        Raises:
            TypeError, ValueError, UnknownNameError: Settings, labels or images that do not fit.
            ModelOutputError: The output of the net is not one (B, K) tensor.
        """
        chosen = self.settings
        chosen.check_for(method)
        place, classes = self._tried(net)
        if classes == 1 and chosen.criterion is None:
            raise ValueError(
                "the model gives one score an image, and the cross-entropy of one class is always "
                "0; give a model, and images, of two classes at least, or a criterion"
            )
        self._tried_alone(net, place)
        self._tried_to_measure(net, method, place)
        objective = Objective(net, method, chosen.criterion, chosen.label_smoothing)
        objective.to(place.device)
        team = place.team
        order = self.order
        return Learner(
            objective=objective,
            shared=self._shared(objective, place) if team.count > 1 else objective,
            optimization=Optimization.of(
                net,
                chosen.optimizer,
                chosen.schedule,
                chosen.groups,
                order.steps,
                chosen.clip,
                place.scaler(),
            ),
            averaging=None if chosen.ema is None else Averaging(net, chosen.ema),
            mixing=mixing(chosen.mix, classes),
            classes=classes,
            decides=method is None or self._decides(net, place),
            place=place,
            share=Share(team.rank, team.count, self.accumulate),
            seed=chosen.seed,
        )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the training images."""
        height, width = self.image.shape[2:]
        return height, width

    @property
    def order(self) -> Order:
        """In which the training images come.

        Raises:
            ValueError: There is no step to take, or too few images a step to share.
        """
        images, size = len(self.source), self.settings.batch_size
        found = Order(images, size, self.source.drop_last, self.settings.seed)
        if found.steps == 0:
            raise ValueError(
                f"{images} images do not fill a batch of {size}, and drop_last leaves it out"
            )
        parts = self.place.team.count * self.accumulate
        if size < parts:
            raise ValueError(
                f"batch_size={size} is less than an image for each of {parts} parts "
                f"({self.place.team.count} processes, accumulate={self.accumulate})"
            )
        return found

    def _tried(self, net: nn.Module) -> tuple[Place, int]:
        """The place, and the number of classes; looks at the first labels.

        The net is laid out, and its normalisation says from now on what the data say: their
        classes, where it names none, and the size of the training images, whatever it was.
        """
        place, classes = self.place.tried(net, self.image)
        net.to(memory_format=place.layout)
        check_labels(self.label, classes)
        for part in (self.validation, self.test):
            if part is not None:
                image, label = part.first(self.settings.seed)
                place.tried(net, image)
                check_labels(label, classes)
        normalized = next((m for m in net.modules() if isinstance(m, Normalized)), None)
        if normalized is not None:
            found = names(self.source, net, classes)
            known = () if isinstance(found, range) else tuple(map(str, found))
            normalized.categories = normalized.categories or known
            normalized.input_size = self.size
        return place, classes

    def _decides(self, net: nn.Module, place: Place) -> bool:
        """Whether the logits depend on anything that is trained."""
        with _trained(net), place.autocast():
            return extract_logits(net(place.images(self.image)), 1).requires_grad

    def _shared(self, objective: Objective, place: Place) -> nn.Module:
        """With averaged gradients, also of a net with parameters that the loss does not use."""
        with _trained(objective) as trained, place.autocast():
            loss, _ = objective(place.images(self.image), self.label.to(place.device))
            found = torch.autograd.grad(loss, trained, allow_unused=True)
        unused = any(gradient is None for gradient in found)
        return DistributedDataParallel(objective, find_unused_parameters=unused)

    def _tried_alone(self, net: nn.Module, place: Place) -> None:
        """Refuses a last step with a single image where batch norm would, an epoch later."""
        order, parts = self.order, place.team.count * self.accumulate
        if order.smallest(parts) > 1:
            return
        with untouched(net), torch.no_grad(), place.autocast():
            try:
                net.train()(place.images(self.image))
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise ValueError(
                    "batch norm of this model cannot learn from one image, and the last step of "
                    f"an epoch has {order.size(order.steps - 1)} for {parts} part(s); give "
                    "drop_last=True, or another batch_size"
                ) from error

    def _tried_to_measure(
        self, net: nn.Module, method: TrainableMethod | None, place: Place
    ) -> None:
        """Refuses a method's loss that fails on validation images, an epoch later."""
        if method is None or self.validation is None:
            return
        image, label = self.validation.first(self.settings.seed)
        with untouched(net), torch.no_grad(), place.autocast():
            try:
                method.loss(net, place.images(image), label.to(place.device))
            except RuntimeError as error:
                raise ValueError(
                    f"the loss of {method.spec.name} fails on a validation image, in eval mode and "
                    f"without gradients ({error}); have it run there, or leave validation out"
                ) from error

    def said(self, model: nn.Module, method: TrainableMethod | None) -> dict[str, Any]:
        """What a folder's manifest holds: another training is one that differs in it."""
        recipe = None if method is None else manifest.describe_settings(method, method.spec.name)
        return {
            "model": of_net(unwrap(model)),
            "method": recipe,
            "data": {
                "images": len(self.source),
                "shape": list(self.image.shape[1:]),
                "drop_last": self.source.drop_last,
            },
            "validation": None if self.validation is None else len(self.validation),
            **self.settings.said(),
        }

    def traces(self, model: nn.Module) -> dict[str, str]:
        """What a training begins with, and does not need to go on: in words and hashes."""
        found = {
            "weights of the model": manifest.describe_model(unwrap(model))["sha256"],
            "parts of a step": f"{self.place.team.count} processes x {self.accumulate}",
            "first training image": _digest(self.image, self.label),
            "training labels": _labels(self.source),
        }
        if self.validation is not None:
            first = self.validation.first(self.settings.seed)
            found["first validation image"] = _digest(*first)
            found["validation labels"] = _labels(self.validation)
        return found


@contextmanager
def _trained(net: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Within the block a pass leads back to the parameters that are trained; nothing changes."""
    trained = [each for each in net.parameters() if each.requires_grad]
    with untouched(net), torch.enable_grad():
        for each in trained:
            each.requires_grad_(True)
        yield trained


def _digest(image: Tensor, label: Tensor) -> str:
    return manifest.digest(manifest.contents([("image", image), ("label", label)]))


def _labels(source: Source) -> str:
    """A hash of all labels, where the data set has them as `labels` or `targets`."""
    for name in ("labels", "targets"):
        found = getattr(source.dataset, name, None)
        try:
            labels = torch.as_tensor(found)
        except (TypeError, ValueError, RuntimeError):
            continue
        if labels.shape == (len(source),):
            return manifest.digest(manifest.contents([("labels", labels)]))
    return "not known"
