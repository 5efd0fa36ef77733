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
from xcam.core import Method, TrainableMethod, attached_method, extract_logits
from xcam.errors import NotFittedError
from xcam.models import Normalized
from xcam.testing.checks.facets import FACETS, World, compare_states, make_mixed_world
from xcam.testing.method_subject import MethodSubject, get_classifier
from xcam.testing.probe import ContractError, Fuse, PlannedError, kill_features

__all__ = ["CHECKS"]

# Attaching draws from the global generator, as all of torch's modules do.
_LEFT_BY_ATTACH = FACETS.keys() - {"random_state"}
# The running statistics of the net are the loss's to write.
_LEFT_BY_LOSS = FACETS.keys() - {"random_state", "buffers"}


def get_trainable(subject: MethodSubject) -> TrainableMethod:
    """Return the method of a subject that is a trainable one."""
    method: Method = subject.settings
    if not isinstance(method, TrainableMethod):
        raise TypeError(f"{method!r} is no TrainableMethod")
    return method


def attach_leaves_the_model(subject: MethodSubject) -> None:
    """Require the given classifier as it was, in success and failure, and no shared weights."""
    for limit in (None, 1):
        fuse, net = Fuse(limit), subject.copy_net()
        fuse.install(net.model if isinstance(net, Normalized) else net)
        world = make_mixed_world(subject, net=net)
        before = {name: FACETS[name](world) for name in _LEFT_BY_ATTACH}
        try:
            attached = get_trainable(subject).attach(net)
        except PlannedError:
            attached = nn.Identity()
        for name, state in before.items():
            for change in compare_states(state, FACETS[name](world)):
                raise ContractError(f"{subject.name}: attach changed {change}; deepcopy first")
        if _get_pointers(net) & _get_pointers(attached):
            raise ContractError(f"{subject.name}: attach shares weights with the given model")
        if not fuse.passes:
            return  # nothing that could fail


def _get_pointers(net: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in [*net.parameters(), *net.buffers()] if tensor.numel()}


def attach_gives_a_classifier(subject: MethodSubject) -> None:
    """Require as many logits, and a Normalized as before, which says what it was made from."""
    given, case = subject.copy_net(), subject.build_case().select([0, 1])
    given = given.model if isinstance(given, Normalized) else given
    num_classes = extract_logits(given(case.images), 2).shape[1]
    size = (case.images.shape[2], case.images.shape[3])
    names = [f"class {index}" for index in range(num_classes)]
    net = Normalized(given, [0.4], [0.2], categories=names, input_size=size)
    net.source = ("xcam:probe", {"num_classes": num_classes})
    attached = get_trainable(subject).attach(net)
    logits = extract_logits(attached.eval()(case.images), 2)
    if logits.shape[1] != num_classes:
        raise ContractError(
            f"{subject.name}: attach gives {logits.shape[1]} logits for {num_classes} classes"
        )
    kept = ("source", "categories", "input_size")
    if not isinstance(attached, Normalized) or any(
        getattr(attached, name) != getattr(net, name) for name in kept
    ):
        raise ContractError(
            f"{subject.name}: attach must put the head inside of a Normalized, and keep its "
            f"{', '.join(kept)}"
        )


def attach_can_be_repeated(subject: MethodSubject) -> None:
    """Require that the attached method makes the same structure again, under the same names."""
    net = subject.build_net()
    own = attached_method(net)
    again = net if own is None else subject.replace(**own.parameters()).build_net()
    if own is None or own.spec.name != subject.name or attached_method(again) != own:
        raise ContractError(
            f"{subject.name}: attach must set `method` of the net to this method with the "
            f"fields filled in that shape the head, got {own!r}"
        )
    if _get_shapes(again) != _get_shapes(net):
        raise ContractError(f"{subject.name}: attaching {own!r} again gives other weights")


def _get_shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in net.state_dict().items()}


def needs_fitting(subject: MethodSubject) -> None:
    """Require a `NotFittedError` for a model without the head, or with an untrained one."""
    method, images = get_trainable(subject), subject.build_case().images[:1]
    untrained = method.attach(subject.copy_net())
    bare = subject.copy_net()
    for net, what in ((bare, "without its head"), (untrained, "with an untrained head")):
        try:
            explain(net, images, method=method)
        except NotFittedError:
            continue
        raise ContractError(f"{subject.name} explains a model {what}; attach must not set `fitted`")


def gradients_reach_the_head(subject: MethodSubject) -> None:
    """Require a finite scalar loss, with a finite gradient in each trainable parameter."""
    net = subject.build_net()
    gradients = _differentiate(subject, net)
    own = {id(parameter) for parameter in get_classifier(net).parameters()}
    head = [n for n, p in net.named_parameters() if id(p) not in own and n in gradients]
    if head and not any(bool(gradients[name].any()) for name in head):
        raise ContractError(f"{subject.name}: the loss has no gradient in the head's weights")


def measures_new_images(subject: MethodSubject) -> None:
    """Require a finite scalar loss in eval mode without gradients, too."""
    net = subject.build_net().eval()
    try:
        with torch.no_grad():
            _, logits = _run_loss(subject, net)
    except RuntimeError as error:
        raise ContractError(
            f"{subject.name}: the loss fails where no gradients are recorded, as on validation "
            f"images: {error}"
        ) from error
    images = subject.build_case().images
    if logits is None:
        return
    if not torch.allclose(logits, extract_logits(net(images), len(images)), atol=1e-5):
        raise ContractError(
            f"{subject.name}: the loss returns other logits than the net gives for the images; "
            "return None if it meets none of them"
        )


def tells_whether_it_alters_the_prediction(subject: MethodSubject) -> None:
    """Require other logits than the classifier's if, and only if, the spec says so."""
    images = subject.build_case().images
    with torch.no_grad():
        altered = not torch.equal(subject.build_net()(images), subject.copy_net()(images))
    if altered != subject.settings.spec.alters_prediction:
        verb = "changes" if altered else "does not change"
        raise ContractError(
            f"{subject.name}: the head {verb} the logits of the classifier; set "
            f"spec.alters_prediction={altered}"
        )


def dead_features_give_finite_gradients(subject: MethodSubject) -> None:
    """Require finite gradients also where the features are zero everywhere."""
    _differentiate(subject, subject.build_net(kill_features(subject.copy_net())))


def _run_loss(subject: MethodSubject, net: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return the loss and the logits, if they are a finite scalar and a tensor or None."""
    case = subject.build_case()
    labels = torch.tensor(case.classes, device=case.images.device)
    found: object = get_trainable(subject).loss(net, case.images, labels)
    if not isinstance(found, tuple) or len(found) != 2:
        raise ContractError(
            f"{subject.name}: the loss must return a scalar and the logits of net(images), or "
            f"None in their place, got {type(found).__name__}"
        )
    loss, logits = found
    if loss.ndim or not bool(loss.isfinite()):
        raise ContractError(f"{subject.name}: the loss must be a finite scalar, got {loss}")
    return loss, logits


def _differentiate(subject: MethodSubject, net: nn.Module) -> dict[str, Tensor]:
    """Return the gradients of the loss in training mode, by name."""
    names, trainable = zip(
        *((n, p) for n, p in net.named_parameters() if p.requires_grad), strict=True
    )
    loss, _ = _run_loss(subject, net.train())
    found = torch.autograd.grad(loss, trainable, allow_unused=True)
    for name, gradient in zip(names, found, strict=True):
        if gradient is None:
            raise ContractError(
                f"{subject.name}: the loss does not depend on {name}; set requires_grad=False "
                "for what is frozen, or processes that train together wait for it"
            )
        if not bool(gradient.isfinite().all()):
            raise ContractError(f"{subject.name}: the gradient in {name} is not finite")
    return dict(zip(names, found, strict=True))


def keeps_no_features(subject: MethodSubject) -> None:
    """Require that a loss leaves nothing on the net: no tensor, no hook, no change of mode."""
    world = World(subject.build_net().train(), subject.build_case())
    before = {name: FACETS[name](world) for name in _LEFT_BY_LOSS}
    labels = torch.tensor(world.case.classes, device=world.images.device)
    get_trainable(subject).loss(world.net, world.images, labels)
    for name, state in before.items():
        for change in compare_states(state, FACETS[name](world)):
            raise ContractError(f"{subject.name}: the loss changed {change}")
    for name, module in world.net.named_modules():
        kept = [key for key, value in vars(module).items() if isinstance(value, Tensor)]
        if kept:
            raise ContractError(f"{subject.name}: module {name!r} keeps {kept[0]} after a pass")


def survives_copying(subject: MethodSubject) -> None:
    """Require that a deep copy and a pickled one explain the same, and for themselves."""
    net = subject.build_net()
    reference = subject.run(net=net)
    changed = subject.run(net=_halve(subject.build_net()))
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        if not torch.equal(subject.run(net=copied), reference):
            raise ContractError(f"{subject.name} gives other maps on a copy of the net")
        if not torch.equal(subject.run(net=_halve(copied)), changed) or not torch.equal(
            subject.run(net=net), reference
        ):
            raise ContractError(
                f"{subject.name}: a copy of the net still runs parts of the original; hooks "
                "must be bound methods, not closures"
            )


def _halve(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    return net


def survives_saving(subject: MethodSubject) -> None:
    """Require that `xcam.save` writes the net, and that its state gives the same maps again."""
    net = subject.build_net()
    with tempfile.TemporaryDirectory() as folder:
        save(net, Path(folder) / "net.safetensors")
    own = attached_method(net)
    other = subject if own is None else subject.replace(**own.parameters())
    again = _halve(other.build_net())
    again.load_state_dict(net.state_dict())
    if not torch.equal(subject.run(net=again), subject.run(net=net)):
        raise ContractError(f"{subject.name} gives other maps on a net with the same state")


def runs_in_half_precision(subject: MethodSubject) -> None:
    """Require a finite loss under autocast to bfloat16."""
    net = subject.build_net().train()
    with torch.autocast("cpu", torch.bfloat16):
        _run_loss(subject, net)


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
