"""CALM, class activation latent mapping: the cue's location as a latent variable."""

from __future__ import annotations

import dataclasses
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn

from xcam.core import (
    Headed,
    MethodSpec,
    Range,
    Target,
    TrainableMethod,
    compute_class_loss,
    find_headed,
    require_single_labels,
)
from xcam.engine import Layer
from xcam.methods.cam.features import capture_activations
from xcam.methods.trainable.backbone import Backbone
from xcam.methods.trainable.calm_head import (
    CueHead,
    Prior,
    compute_log_joint,
    compute_log_marginal,
    compute_posterior,
)
from xcam.methods.trainable.calm_maps import (
    IN_UNIT_RANGE,
    OF_NO_CLASS,
    MapName,
    Superclasses,
    make_class_maps,
    make_membership,
    parse_superclasses,
)
from xcam.methods.trainable.heads import check_same_head, compute_slopes
from xcam.methods.trainable.lagged import Lagged
from xcam.methods.trainable.taps import Place, features, read_features
from xcam.models import Normalized
from xcam.models.calm.initialization import initialize_kaiming
from xcam.models.calm.vgg import CalmVGG

__all__ = ["CALM"]

Objective = Literal["em", "ml", "cam"]

# What the published code adds to a prior below it, and to p(y|x) in the posterior.
_FLOOR, _EPSILON = 1e-8, 1e-10


@dataclass(frozen=True)
class CALM(TrainableMethod):
    """CALM: a classifier whose maps are probabilities, of where the cue is.

    The class y and the position z of its cue, a cell of the last features F, have a joint
    distribution (Kim et al., 2021, arXiv:2106.07861). With 1x1 convolutions f, to a channel a
    class, and g, to one channel:

        p(y|x, z) = softmax_y f,   p(z|x) = a_z / Σ_z a_z with a = softplus(g)
        p(y, z|x) = p(y|x, z) p(z|x),   p(y|x) = Σ_z p(y, z|x)

    That replaces what the classifier has behind F, of which nothing is kept; the net's logits are
    log p(y|x). With the label y and q = p(z|x, y), taken without a gradient, the loss is

        em: −Σ_z q_z log p(y, z|x)        ml: −log p(y|x)

    Their gradients are equal where q is that of the net itself, and the losses differ by the
    entropy of q: `"em"` differs from `"ml"` with a lagged posterior, or with `epsilons="released"`.
    The whole net is trained. The head computes in float32 at least, also under autocast.

    The published code, and its weights, have `prior="relu", normalizer_gradient="detached",
    epsilons="released"`; where a is 0 everywhere it divides 0 by 0, and the prior is uniform here.

    Attributes:
        layer: Whose output is F, by its name in the classifier. None for the model's default layer,
            which gives more than one cell: of images of 32x32, for which `layer4` of torchvision's
            ResNets gives one, it is `layer3` of resnet18 and `layer4.0.bn1` of resnet50. Of
            transformers z are the patches; class and register tokens are left out.
        objective: The loss, which may be given as `loss=`, too: `"em"`, `"ml"`, or `"cam"` for the
            baseline that the authors train in the same frame: the cross-entropy of mean_z f, which
            are then the net's logits; g is not trained. None for `"em"`.
        prior: What makes a of g, `"softplus"` or `"relu"`. None for `"softplus"`.
        normalizer_gradient: Whether the sum that a is divided by has its `"full"` gradient, or is
            `"detached"`: then the gradient only ever raises a.
        posterior: Whether q is of the `"current"` net, or of a `"lagged"` one: an average of its
            weights over the steps, in eval mode, which the net carries from then on.
        lag: The share of the average that each step keeps.
        epsilons: `"released"` adds 1e-8 to priors below it in the logarithm, and 1e-10 to p(y|x)
            where it divides. A lagged posterior has the first in any case.
        map: Of the class y, at each position: `"jointll"`, p(y, z|x); `"gtcond"`, p(z|x, y);
            `"saliency"`, p(z|x), the same for every class; `"vanilla"`, f_y, which is CAM;
            `"vanilla_saliency"`, f of every class stretched to [0, 1], summed. Summed over the
            superclass of y: `"jointll_superclass"`, `"gtcond_superclass"`, `"vanilla_superclass"`,
            and the first two as a mean, `"…_superclass_mean"`. None for `"jointll"`, of a net with
            the objective `"cam"` for `"vanilla"`. Of a callable target the maps of all classes are
            summed with its slopes in the logits.
        superclasses: The classes of each superclass by its name, such as
            `{"dog": [3, 5], "bird": [0, 1]}`, or by each class, `{3: [3, 5], 5: [3, 5]}`. A class
            in none is a superclass of its own.

    Raises:
        LayerError: The layer gives no map.
        ValueError: A parameter out of its range, a map of superclasses without superclasses, or a
            lagged posterior of a loss without one.
    """

    layer: Layer | None = None
    objective: Objective | None = None
    prior: Prior | None = None
    normalizer_gradient: Literal["full", "detached"] = "full"
    posterior: Literal["current", "lagged"] = "current"
    lag: Annotated[float, Range(least=0, below=1)] = 0.999
    epsilons: Literal["none", "released"] = "none"
    map: MapName | None = None
    superclasses: Superclasses | None = None
    if not TYPE_CHECKING:  # which knows of no argument with the name of a method
        loss: InitVar[Objective | None] = None

    replaces: ClassVar[bool] = True
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="calm",
        title="CALM",
        paper="Kim et al., 2021, arXiv:2106.07861",
        family="trainable",
        cost="1 forward",
        signed=False,
        normalized=True,
        alters_prediction=True,
    )

    def __post_init__(self, loss: object = None) -> None:  # noqa: RUF033 - of any subclass
        """Take over the loss, check what belongs together, and set the flags of the map."""
        super().__post_init__()
        self._take_loss(loss)
        if self.superclasses is not None:
            object.__setattr__(self, "superclasses", parse_superclasses(self.superclasses))
        name = self._map_name()
        if "superclass" in name and self.superclasses is None:
            raise ValueError(
                f"calm: map={name!r} sums over the superclass of a class; say which classes that "
                "is: superclasses={'dog': [3, 5], 'bird': [0, 1, 2]}"
            )
        if self.posterior == "lagged" and self.objective in ("ml", "cam"):
            raise ValueError(
                f"calm: posterior='lagged' is for the loss 'em', the loss {self.objective!r} has "
                "no posterior; leave one of them out"
            )
        flagged = dataclasses.replace(  # for this object alone
            type(self).spec,
            class_specific=name not in OF_NO_CLASS,
            signed=name == "vanilla",
            normalized=name in IN_UNIT_RANGE,
        )
        object.__setattr__(self, "spec", flagged)

    def _take_loss(self, loss: object) -> None:
        if loss is None or callable(loss):  # the method below: the default, or by `replace`
            return
        if loss not in get_args(Objective):
            raise ValueError(f"calm: loss must be 'em', 'ml' or 'cam', got {loss!r}")
        if self.objective not in (None, loss):
            raise ValueError(
                f"calm: loss={loss!r} and objective={self.objective!r} are one setting; leave one "
                "of them out"
            )
        object.__setattr__(self, "objective", loss)

    def _map_name(self) -> str:
        return self.map or ("vanilla" if self.objective == "cam" else "jointll")

    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        """Return the net up to F with CALM's head; see `TrainableMethod.attach`."""
        backbone = Backbone(model, like)
        given = self.layer
        layer = backbone.default_layer() if given is None else backbone.layer(given)
        channels, num_classes = (
            backbone.shape(Place(layer), any_layout=True)[1],
            backbone.num_classes,
        )
        objective, prior = self.objective or "em", self.prior or "softplus"
        filled = dataclasses.replace(
            self, layer=layer, objective=objective, prior=prior, map=cast(MapName, self._map_name())
        )
        head = backbone.adapt(CueHead(channels, num_classes, prior))
        if isinstance(backbone.net, CalmVGG):  # as all of its convolutions
            initialize_kaiming(head)
        backbone.drop_tail(layer)
        frozen = ["head.attention"] if objective == "cam" else []
        if self.posterior == "lagged":
            head.lagged = Lagged(Headed(backbone.net, head, filled))
            frozen = ["head.lagged"]
        return backbone.with_head(head, filled, frozen)

    def logits(self, net: Headed, images: Tensor) -> Tensor:
        """Return log p(y|x), (B, C); with the objective `"cam"` the means of f."""
        own, found = _own(net), _read_features(net, images)
        head = cast(CueHead, net.head)
        if own.objective == "cam":
            return head.classify(found).mean((2, 3))
        return compute_log_marginal(compute_log_joint(*head(found)))

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of the net's objective; see `TrainableMethod.loss`."""
        headed = find_headed(net)
        own, head = _own(headed), cast(CueHead, headed.head)
        images = net.normalize(images) if isinstance(net, Normalized) else images
        found = _read_features(headed, images)
        if own.objective == "cam":
            logits = head.classify(found).mean((2, 3))
            return compute_class_loss(logits, labels), logits
        require_single_labels(labels, self.spec.name, "its p(y|x) sums to 1 over the classes")
        log_likelihood, prior = head(found, detached=self.normalizer_gradient == "detached")
        log_joint = compute_log_joint(log_likelihood, prior)
        logits = compute_log_marginal(log_joint)
        if own.objective == "ml":
            picked, shares = _pick(logits, labels)
            return -(shares * picked).sum(1).mean(), logits
        if own.posterior == "lagged":
            posterior = self._compute_posterior(self._run_lagged(headed, images), labels)
        else:
            posterior = self._compute_posterior(log_joint, labels)
        if self.epsilons == "released" or own.posterior == "lagged":
            log_joint = compute_log_joint(log_likelihood, prior, _FLOOR)
        picked, shares = _pick(log_joint, labels)
        # 0 log 0 = 0, in the gradient, too.
        expected = (posterior * picked.masked_fill(posterior == 0, 0)).sum((2, 3))
        return -(shares * expected).sum(1).mean(), logits

    @torch.no_grad()
    def _compute_posterior(self, log_joint: Tensor, labels: Tensor) -> Tensor:
        """Return p(z|x, y), (B, k, h, w), of the labeled classes."""
        picked, _ = _pick(log_joint, labels)
        return compute_posterior(picked, _EPSILON if self.epsilons == "released" else 0.0)

    @torch.no_grad()
    def _run_lagged(self, headed: Headed, images: Tensor) -> Tensor:
        """Return log p(y, z|x), (B, C, h, w), of the lagged net; update it first in training."""
        lagged = cast(Lagged, headed.head.lagged)
        if headed.training:
            lagged.update(headed, self.lag)
        return compute_log_joint(*lagged.net.head(_read_features(lagged.net, images)))

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return maps (B, h, w) at the layer's size; see `Method.maps`."""
        headed = find_headed(model)
        own, head = _own(headed), cast(CueHead, headed.head)
        free = self.parameters().keys() - {"layer", "objective", "prior"}
        check_same_head(self, model, free=free)
        layer = headed.classifier.get_submodule(str(own.layer))
        found = capture_activations(model, images, target, layer)
        name = self.map or own._map_name()
        epsilon = _EPSILON if self.epsilons == "released" else 0.0
        maps = make_class_maps(name, head, found, epsilon)
        if name in OF_NO_CLASS:
            return maps[:, 0]
        weights = torch.eye(maps.shape[1])
        if "superclass" in name:
            pairs = parse_superclasses(self.superclasses or own.superclasses)
            weights = make_membership(pairs, maps.shape[1], mean=name.endswith("mean"))
        weights = weights.to(maps)
        if target.classes is not None:
            return torch.einsum("bc,bchw->bhw", weights[target.classes], maps)
        return torch.einsum("bc,bchw->bhw", compute_slopes(target).to(maps) @ weights, maps)


def _own(headed: Headed) -> CALM:
    return cast(CALM, headed.method)


def _read_features(headed: Headed, images: Tensor) -> Tensor:
    """Return F, (B, D, h, w), of normalized images."""
    place = Place(str(_own(headed).layer))
    found = features(headed, images, place)
    channels = cast(CueHead, headed.head).conv_last.in_channels
    return read_features(found, images, headed.classifier, place, channels)[0]


def _pick(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values (B, k, …) of the labeled classes of (B, C, …), and their shares (B, k)."""
    if labels.ndim == 2:  # shares of the classes in mixed images
        return values, labels
    rows = torch.arange(len(values), device=values.device)
    return values[rows, labels][:, None], torch.ones_like(labels, dtype=values.dtype)[:, None]
