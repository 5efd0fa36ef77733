"""What a trainable method promises besides: of the net that `attach` makes, and of its loss."""

from __future__ import annotations

import copy
import pickle
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from xcam._explain.verb import explain
from xcam.checkpoints import save
from xcam.core import TrainableMethod, attached_method, extract_logits
from xcam.errors import NotFittedError
from xcam.models import Normalized
from xcam.testing.checks.facets import FACETS, World, mixed
from xcam.testing.checks.traces import differences
from xcam.testing.probe import (
    CLASSES,
    ContractError,
    Fuse,
    PlannedError,
    ProbeNet,
    carrier,
    explained,
    pictures,
    probe_of,
)

__all__ = ["CHECKS"]

_CLASSES = len(CLASSES)
# Attaching draws from the global generator, as all of torch's modules do.
_LEFT_BY_ATTACH = FACETS.keys() - {"random_state"}
# The running statistics of the net are the loss's to write.
_LEFT_BY_LOSS = FACETS.keys() - {"random_state", "buffers"}


def attach_leaves_the_model(method: TrainableMethod) -> None:
    """The given classifier stays as it was, in success and failure, and shares no weights."""
    for limit in (None, 1):
        world = mixed()
        fuse = probe_of(world.net).fuse = Fuse(limit)
        before = {name: FACETS[name](world) for name in _LEFT_BY_ATTACH}
        try:
            attached = method.attach(world.net)
        except PlannedError:
            attached = nn.Identity()
        for name, state in before.items():
            for change in differences(state, FACETS[name](world)):
                raise ContractError(f"{method.spec.name}: attach changed {change}; deepcopy first")
        own = {tensor.data_ptr() for tensor in _tensors(world.net)}
        if own & {tensor.data_ptr() for tensor in _tensors(attached)}:
            raise ContractError(f"{method.spec.name}: attach shares weights with the given model")
        if not fuse.passes:
            return  # nothing that could fail


def _tensors(net: nn.Module) -> list[Tensor]:
    return [tensor for tensor in [*net.parameters(), *net.buffers()] if tensor.numel()]


def attach_gives_a_classifier(method: TrainableMethod) -> None:
    """From images to as many logits, normalised as before, which says what it was made from."""
    net = Normalized(ProbeNet(), (0.4,) * 3, (0.2,) * 3, categories="abcde", input_size=16)
    net.source = ("xcam:probe", {"num_classes": _CLASSES})
    attached = method.attach(net)
    logits = extract_logits(attached.eval()(pictures(2)), 2)
    if logits.shape[1] != _CLASSES:
        raise ContractError(
            f"{method.spec.name}: attach gives {logits.shape[1]} logits for {_CLASSES} classes"
        )
    kept = ("source", "categories", "input_size")
    if not isinstance(attached, Normalized) or any(
        getattr(attached, name) != getattr(net, name) for name in kept
    ):
        raise ContractError(
            f"{method.spec.name}: attach must put the head inside of a Normalized, and keep its "
            f"{', '.join(kept)}"
        )


def attach_can_be_repeated(method: TrainableMethod) -> None:
    """The method that the net carries makes the same structure again, under the same names."""
    net = carrier(method, ProbeNet())
    own = attached_method(net)
    again = net if own is None else carrier(own, ProbeNet())
    if own is None or own.spec.name != method.spec.name or attached_method(again) != own:
        raise ContractError(
            f"{method.spec.name}: attach must set `method` of the net to this method with the "
            f"fields filled in that shape the head, got {own!r}"
        )
    if _shapes(again) != _shapes(net):
        raise ContractError(
            f"{method.spec.name}: attaching {own!r} again gives a net with other weights"
        )


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in net.state_dict().items()}


def needs_fitting(method: TrainableMethod) -> None:
    """A model without the head, or with an untrained one, is a `NotFittedError`."""
    untrained = method.attach(ProbeNet())
    for net, what in ((ProbeNet(), "without its head"), (untrained, "with an untrained head")):
        try:
            explain(net, pictures(1), method=method)
        except NotFittedError:
            continue
        raise ContractError(
            f"{method.spec.name} explains a model {what}; attach must not set `fitted`"
        )


def gradients_reach_the_head(method: TrainableMethod) -> None:
    """The loss is a finite scalar, and has a finite gradient in each trainable parameter."""
    net = carrier(method, ProbeNet())
    gradients = _gradients(method, net)
    backbone = {id(parameter) for parameter in probe_of(net).parameters()}
    head = [n for n, p in net.named_parameters() if id(p) not in backbone and n in gradients]
    if head and not any(bool(gradients[name].any()) for name in head):
        raise ContractError(f"{method.spec.name}: the loss has no gradient in the head's weights")


def measures_new_images(method: TrainableMethod) -> None:
    """The loss is a finite scalar in eval mode without gradients, too."""
    net = carrier(method, ProbeNet()).eval()
    try:
        with torch.no_grad():
            _, logits = _run_loss(method, net)
    except RuntimeError as error:
        raise ContractError(
            f"{method.spec.name}: the loss fails where no gradients are recorded, as on validation "
            f"images: {error}"
        ) from error
    if logits is None:
        return
    if not torch.allclose(logits, extract_logits(net(pictures()), len(CLASSES)), atol=1e-5):
        raise ContractError(
            f"{method.spec.name}: the loss returns other logits than the net gives for the images; "
            "return None if it meets none of them"
        )


def tells_whether_it_alters_the_prediction(method: TrainableMethod) -> None:
    """The net gives other logits than the classifier if, and only if, the spec says so."""
    probe = ProbeNet()
    with torch.no_grad():
        altered = not torch.equal(carrier(method, probe)(pictures()), probe(pictures()))
    if altered != method.spec.alters_prediction:
        verb = "changes" if altered else "does not change"
        raise ContractError(
            f"{method.spec.name}: the head {verb} the logits of the classifier; set "
            f"spec.alters_prediction={altered}"
        )


def dead_features_give_finite_gradients(method: TrainableMethod) -> None:
    """Also where the features are zero everywhere."""
    net = ProbeNet()
    nn.init.constant_(net.features.norm2.weight, 0)
    nn.init.constant_(net.features.norm2.bias, -1e3)
    _gradients(method, carrier(method, net))


def _gradients(method: TrainableMethod, net: nn.Module) -> dict[str, Tensor]:
    """Of the loss in training mode, by name."""
    names, trainable = zip(
        *((n, p) for n, p in net.named_parameters() if p.requires_grad), strict=True
    )
    loss, _ = _run_loss(method, net.train())
    found = torch.autograd.grad(loss, trainable, allow_unused=True)
    for name, gradient in zip(names, found, strict=True):
        if gradient is None:
            raise ContractError(
                f"{method.spec.name}: the loss does not depend on {name}; set requires_grad=False "
                "for what is frozen, or processes that train together wait for it"
            )
        if not bool(gradient.isfinite().all()):
            raise ContractError(f"{method.spec.name}: the gradient in {name} is not finite")
    return dict(zip(names, found, strict=True))


def _run_loss(method: TrainableMethod, net: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return the loss and the logits of five pictures, if they are a finite scalar and a tensor."""
    found = method.loss(net, pictures(), torch.tensor(CLASSES))
    if not isinstance(found, tuple) or len(found) != 2:
        raise ContractError(
            f"{method.spec.name}: the loss must return a scalar and the logits of net(images), or "
            f"None in their place, got {type(found).__name__}"
        )
    loss, logits = found
    if loss.ndim or not bool(loss.isfinite()):
        raise ContractError(f"{method.spec.name}: the loss must be a finite scalar, got {loss}")
    return loss, logits


def keeps_no_features(method: TrainableMethod) -> None:
    """After a pass and a loss nothing is left on the net: no tensor, no hook, no change of mode."""
    net = carrier(method, ProbeNet()).train()
    world = World(net, pictures())
    before = {name: FACETS[name](world) for name in _LEFT_BY_LOSS}
    method.loss(net, world.images, torch.tensor(CLASSES))
    for name, state in before.items():
        for change in differences(state, FACETS[name](world)):
            raise ContractError(f"{method.spec.name}: the loss changed {change}")
    for name, module in net.named_modules():
        kept = [key for key, value in vars(module).items() if isinstance(value, Tensor)]
        if kept:
            raise ContractError(f"{method.spec.name}: module {name!r} keeps {kept[0]} after a pass")


def survives_copying(method: TrainableMethod) -> None:
    """A deep copy and a pickled one explain the same, and for themselves."""
    net = carrier(method, ProbeNet())
    reference = explained(method, net).raw
    changed = _halved(carrier(method, ProbeNet()))
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        if not torch.equal(explained(method, copied).raw, reference):
            raise ContractError(f"{method.spec.name} gives other maps on a copy of the net")
        if not torch.equal(
            explained(method, _halved(copied)).raw, explained(method, changed).raw
        ) or not torch.equal(explained(method, net).raw, reference):
            raise ContractError(
                f"{method.spec.name}: a copy of the net still runs parts of the original; hooks "
                "must be bound methods, not closures"
            )


def _halved(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    return net


def survives_saving(method: TrainableMethod) -> None:
    """`xcam.save` can write the net, and its state in a net attached again gives the same maps."""
    net = carrier(method, ProbeNet())
    with tempfile.TemporaryDirectory() as folder:
        save(net, Path(folder) / "net.safetensors")
    again = _halved(carrier(attached_method(net) or method, ProbeNet()))
    again.load_state_dict(net.state_dict())
    if not torch.equal(explained(method, again).raw, explained(method, net).raw):
        raise ContractError(f"{method.spec.name} gives other maps on a net with the same state")


def runs_in_half_precision(method: TrainableMethod) -> None:
    """Under autocast to bfloat16 the loss is finite."""
    net = carrier(method, ProbeNet()).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method.loss(net, pictures(), torch.tensor(CLASSES))
    if not bool(loss.isfinite()):
        raise ContractError(f"{method.spec.name}: the loss is not finite in half precision")


CHECKS = (
    attach_leaves_the_model,
    attach_gives_a_classifier,
    attach_can_be_repeated,
    needs_fitting,
    gradients_reach_the_head,
    measures_new_images,
    tells_whether_it_alters_the_prediction,
    dead_features_give_finite_gradients,
    keeps_no_features,
    survives_copying,
    survives_saving,
    runs_in_half_precision,
)
