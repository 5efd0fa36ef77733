"""The beginning of a training: its net with a head, its learner, and what a folder records."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from xcam._explain.prepared import prepare
from xcam._fit.averaging import Averaging
from xcam._fit.divisor import find_divisors
from xcam._fit.labels import check_all_labels, check_listed_labels, check_shown, match_sources
from xcam._fit.learner import Learner, Objective, make_mixing
from xcam._fit.optimization import Optimization
from xcam._fit.order import Order, seed_all
from xcam._fit.own_loss import find_training_loss
from xcam._fit.progress import CLASSES
from xcam._fit.settings import Runtime, TrainingSettings, describe_structure
from xcam._fit.source import Source
from xcam._fit.trials import (
    check_last_step,
    check_multi_label_loss,
    check_validation_loss,
    has_trained_logits,
    share_gradients,
)
from xcam.core import (
    Method,
    TrainableMethod,
    attached_method,
    check_headless,
    find_headed,
    is_multi_label,
)
from xcam.engine import unwrap
from xcam.models import Normalized
from xcam.models.categories import find_categories, set_categories
from xcam.runs import manifest

__all__ = ["Start"]


@dataclass(frozen=True, eq=False)
class Start:
    """What a training begins with.

    Attributes:
        settings: Those that decide what comes out of it.
        source: The training images.
        validation: The images by which the best epoch is chosen.
        test: The images that are measured once, at the end.
        runtime: Where and how the net runs.
        accumulate: Parts a step that each process computes.
        image: The first training image, (1, C, H, W).
        label: Its label, (1,) or (1, K) bool.
        num_classes: Of the net's logits; 0 before `fit_net`.
    """

    settings: TrainingSettings
    source: Source
    validation: Source | None
    test: Source | None
    runtime: Runtime
    accumulate: int
    image: Tensor
    label: Tensor
    num_classes: int = 0

    def attach_head(
        self, model: nn.Module, method: str | Method | None, params: dict[str, Any]
    ) -> tuple[nn.Module, TrainableMethod | None]:
        """Return a copy of the model on the device, with the head of the method, and the method.

        A model that carries a head already keeps it, and is trained by its method.

        Raises:
            TypeError: A method that needs no training.
            LayerError: The model gives no features for the head from images of this size.
            ModelOutputError: The output of the model is not one (B, K) tensor.
            ValueError: The model carries another head, or fails on the first image.
        """
        net = copy.deepcopy(unwrap(model)).to(self.runtime.device)
        net.zero_grad(set_to_none=True)
        own = attached_method(net)
        if method is None and own is None:
            return net, None
        image = self.image.to(self.runtime.device)
        chosen = prepare(net, image, method, params).method
        if not isinstance(chosen, TrainableMethod):
            raise TypeError(
                f"{chosen.spec.name} needs no training: explain with it as it is, and leave method "
                "out to train a plain classifier"
            )
        if own is not None and own != chosen:
            check_headless(net)
        if own is None:
            self.runtime.probe(net, image)  # a head would speak of a blank image
            seed_all("attach", self.settings.seed)
            net = chosen.attach(net, like=image).to(self.runtime.device)
        attached = attached_method(net)
        if attached is None:
            raise TypeError(
                f"attach of {chosen.spec.name} must return a Headed, alone or inside the model's "
                f"Normalized, got {type(net).__name__}"
            )
        find_headed(net).fitted = True  # by the time that anybody sees it
        return net, attached

    def fit_net(self, net: nn.Module, method: TrainableMethod | None) -> Start:
        """Return the start with how this net runs, and labels that number its classes.

        The net gets its memory format and, where it names no classes, those of the training images;
        its normalization gets their size, whatever it was.

        Raises:
            ValueError: Images or labels that do not fit the net, or each other.
            ModelOutputError: The output of the net is not one (B, K) tensor.
        """
        self.settings.check_method(method)
        if method is None:
            self.settings.check_own_loss(find_training_loss(net) is not None)
        runtime, num_classes = self.runtime.probe(net, self.image)
        net.to(memory_format=runtime.memory_format)
        has_several = is_multi_label(self.label)
        self.settings.check_labels(has_several)
        labels = [self.label]
        for part in (self.validation, self.test):
            if part is not None:
                image, label = part.load_one(self.settings.seed)
                runtime.probe(net, image)
                labels.append(label)
        train, (validation, test) = match_sources(
            net, num_classes, method, has_several, self.source, self.validation, self.test
        )
        for source, label in zip(filter(None, (train, validation, test)), labels, strict=True):
            source.check_first(label)
        names = train.categories if len(train.categories) == num_classes else ()
        if not find_categories(net, num_classes) and (names or find_categories(net)):
            set_categories(net, names)
        normalized = next((m for m in net.modules() if isinstance(m, Normalized)), None)
        if normalized is not None:
            normalized.input_size = self.size
        return replace(
            self,
            source=train,
            validation=validation,
            test=test,
            runtime=runtime,
            label=train.translate(self.label),
            num_classes=num_classes,
        )

    def make_learner(self, net: nn.Module, method: TrainableMethod | None) -> Learner:
        """Return what learns: the net, with everything that changes it.

        Raises:
            TypeError, ValueError, UnknownNameError: Settings that do not fit.
        """
        settings, runtime, num_classes = self.settings, self.runtime, self.num_classes
        if num_classes == 1 and settings.criterion is None:
            raise ValueError(
                "the model gives one score an image, and the cross-entropy of one class is always "
                "0; give a model, and images, of two classes at least, or a criterion"
            )
        order = self.order
        check_last_step(net, self.image, order, runtime)
        if method is not None and self.validation is not None:
            batch = self.validation.load_one(settings.seed)
            check_validation_loss(net, method, batch, runtime)
        divisors = find_divisors(
            settings.criterion,
            num_classes,
            bool(settings.mix),
            is_multi_label(self.label),
            order.parts,
            self.validation is not None,
            runtime,
        )
        objective = Objective(net, method, settings.criterion, settings.label_smoothing, *divisors)
        objective.to(runtime.device)
        if is_multi_label(self.label):
            check_multi_label_loss(objective, (self.image, self.label), runtime)
        wrapped: nn.Module = objective
        if runtime.processes.count > 1:
            wrapped = share_gradients(objective, self.image, self.label, runtime)
        return Learner(
            objective=objective,
            wrapped=wrapped,
            optimization=Optimization.create(
                net,
                settings.optimizer,
                settings.schedule,
                settings.groups,
                order.steps,
                settings.clip,
                runtime.make_scaler(),
            ),
            averaging=None if settings.ema is None else Averaging(net, settings.ema),
            mixing=make_mixing(settings.mix, num_classes),
            num_classes=num_classes,
            has_trained_logits=method is None or has_trained_logits(net, self.image, runtime),
            runtime=runtime,
            order=order,
        )

    def check_all_labels(self, is_begun: bool) -> None:
        """Refuse images whose labels are no classes of the net, wherever they are.

        Args:
            is_begun: The training goes on, so that labels that are not listed were checked before.

        Raises:
            TypeError, ValueError: There is one; the image is named.
        """
        check_listed_labels(self.source, self.num_classes)
        if self.validation is not None:
            check_shown(self.validation)
        for part in filter(None, (self.validation, self.test)):
            size = self.settings.batch_size
            check_all_labels(part, self.num_classes, self.runtime.processes, size, is_begun)

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W) of the training images."""
        height, width = self.image.shape[2:]
        return height, width

    @property
    def order(self) -> Order:
        """Return the order in which the training images come.

        Raises:
            ValueError: There is no step to take, or too few images a step to share.
        """
        images, size = len(self.source), self.settings.batch_size
        processes = self.runtime.processes
        order = Order(
            images,
            size,
            self.source.drop_last,
            self.settings.seed,
            processes.rank,
            processes.count,
            self.accumulate,
        )
        if order.steps == 0:
            raise ValueError(
                f"{images} images are fewer than one batch of {size}, and drop_last=True drops it"
            )
        if size < order.parts:
            raise ValueError(
                f"batch_size={size} is less than an image for each of {order.parts} parts "
                f"({processes.count} processes, accumulate={self.accumulate})"
            )
        return order

    def describe(self, model: nn.Module, method: TrainableMethod | None) -> dict[str, Any]:
        """Return a folder's manifest: a training that differs in it is another one."""
        described = None if method is None else manifest.describe_settings(method, method.spec.name)
        return {
            "model": describe_structure(unwrap(model)),
            "method": described,
            "data": {
                "images": len(self.source),
                "shape": list(self.image.shape[1:]),
                "drop_last": self.source.drop_last,
            },
            "validation": None if self.validation is None else len(self.validation),
            **self.settings.describe(),
        }

    def fingerprint(self, model: nn.Module) -> dict[str, str]:
        """Return hashes of the initial state, used only to warn about changes."""
        processes = self.runtime.processes
        found = {
            "weights of the model": manifest.describe_model(unwrap(model))["sha256"],
            "parts of a step": f"{processes.count} processes x {self.accumulate}",
            "first training image": _digest_first(self.image, self.label),
            "training labels": self.source.digest_labels(),
            CLASSES: ", ".join(self.source.categories),
        }
        if self.validation is not None:
            first = self.validation.load_one(self.settings.seed)
            found["first validation image"] = _digest_first(*first)
            found["validation labels"] = self.validation.digest_labels()
        return found


def _digest_first(image: Tensor, label: Tensor) -> str:
    return manifest.digest(manifest.iterate_bytes([("image", image), ("label", label)]))
