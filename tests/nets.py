"""Nets with one peculiarity each, and a watch over everything a caller owns."""

import random
from collections import OrderedDict, namedtuple
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def pictures(count=2, channels=3, size=8, seed=0):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


class Staged(nn.Module):
    """`stem`, `layer`, `tail`, pooling, `fc`: subclasses call the stages in their own ways."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.layer = nn.Conv2d(4, 4, 3, padding=1)
            self.tail = nn.Sequential(
                nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
            )
            self.fc = nn.Linear(4, 5)
        self.eval()

    def features(self, images):
        return self.layer(self.stem(images))

    def head(self, features):
        return self.fc(self.tail(features).mean((2, 3)))

    def forward(self, images):
        return self.head(self.features(images))


class NoGradStem(Staged):
    def forward(self, images):
        with torch.no_grad():
            stem = self.stem(images)
        return self.head(self.layer(stem))


class NoGradBackbone(Staged):
    def forward(self, images):
        with torch.no_grad():
            features = self.features(images)
        return self.head(features)


class InferenceBackbone(Staged):
    def forward(self, images):
        with torch.inference_mode():
            features = self.features(images)
        return self.head(features)


class NoGradTail(Staged):
    def forward(self, images):
        with torch.no_grad():
            return super().forward(images)


class DetachedTail(Staged):
    def head(self, features):
        return super().head(features.detach())


class Twice(Staged):
    """`layer` is called again on its own output."""

    def features(self, images):
        return self.layer(super().features(images).relu())


class SharedReLU(Staged):
    """One ReLU for all: what the classifier reads is its last call."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.relu = nn.ReLU()
        self.tail = nn.Identity()

    def features(self, images):
        return self.relu(self.layer(self.relu(self.stem(images))))


class Aliased(Staged):
    """`layer` has a second name."""

    def __init__(self):
        super().__init__()
        self.second_name = self.layer


class Checkpointed(Staged):
    """The layer, or what comes after it, in a checkpointed section."""

    def __init__(self, section, reentrant):
        super().__init__()
        self.section, self.reentrant = section, reentrant

    def forward(self, images):
        if self.section == "layer":
            return self.head(checkpoint(self.features, images, use_reentrant=self.reentrant))
        if self.section == "tail":
            return checkpoint(self.head, self.features(images), use_reentrant=self.reentrant)
        return checkpoint(super().forward, images, use_reentrant=self.reentrant)


Pair = namedtuple("Pair", "features extra")


class Packs(nn.Module):
    """Puts its convolution's output into a container."""

    def __init__(self, convolution, pack):
        super().__init__()
        self.convolution, self.pack = convolution, pack

    def forward(self, images):
        return self.pack(self.convolution(images))


class Packed(Staged):
    """`layer` gives a container, from which the tail takes the features."""

    def __init__(self, pack, unpack):
        super().__init__()
        self.layer, self.unpack = Packs(self.layer, pack), unpack

    def features(self, images):
        return self.unpack(super().features(images))


PACKINGS = {
    "tuple": (lambda t: (t, None), lambda o: o[0]),
    "list": (lambda t: [None, t], lambda o: o[1]),
    "nested": (lambda t: (3, (t,)), lambda o: o[1][0]),
    "namedtuple": (lambda t: Pair(t, "x"), lambda o: o.features),
    "dict": (lambda t: {"mask": t > 0, "features": t}, lambda o: o["features"]),
    "ordered": (lambda t: OrderedDict(features=t), lambda o: o["features"]),
    "structseq": (lambda t: torch.return_types.max((t, t.long())), lambda o: o.values),
}


class Failing(Staged):
    """Raises in its tail once armed."""

    error = None

    def head(self, features):
        if self.error is not None:
            raise self.error
        return super().head(features)


class Untidy(Staged):
    """Writes to its buffers, replaces one, and draws random numbers, whatever its mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("quiet", torch.zeros(2))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("wave", torch.zeros(2, dtype=torch.complex64))
        self.register_buffer("wide", torch.zeros(1).expand(4))
        self.register_buffer("empty", None)

    def forward(self, images):
        self.count.add_(1)
        self.quiet.data.add_(1)  # goes past the version counter
        self.wave.mul_(2).add_(1j)
        self.mean = images.mean((0, 2, 3))
        torch.rand(3), np.random.rand(), random.random()
        return super().forward(images)


class Viewing(Staged):
    """Flattens by `.view`, which refuses channels_last features."""

    def __init__(self, size=8):
        super().__init__()
        self.fc = nn.Linear(4 * size * size, 5)

    def head(self, features):
        tail = self.tail(features)
        return self.fc(tail.view(len(tail), -1))


class Counting(nn.Module):
    """Remembers how many rows each pass had, and in which memory layout they came."""

    def __init__(self, net):
        super().__init__()
        self.net, self.sizes, self.layouts = net, [], []

    def forward(self, images):
        self.sizes.append(len(images))
        last = images.is_contiguous(memory_format=torch.channels_last)
        self.layouts.append("channels_last" if last else "contiguous")
        return self.net(images)


def true_gradient(net, images, target=1, layer=None):
    """The features of a `Staged` net, and the gradient of a logit there, by plain autograd."""
    layer = layer or net.features
    with torch.inference_mode(False), torch.enable_grad():
        features = layer(images.clone()).detach().requires_grad_()
        score = net.head(features.clone())[:, target].sum()
        return features.detach(), torch.autograd.grad(score, features)[0]


def _kept(tensor):
    return None if tensor is None else (id(tensor), tensor.detach().clone())


def snapshot(model, *tensors):
    """Everything that a call must leave as it was, by name."""
    _, numbers, *place = np.random.get_state()  # most draws move the place alone
    state = {
        "torch": torch.get_rng_state(),
        "numpy": (torch.from_numpy(numbers.copy()), *place),
        "python": random.getstate(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }
    for name, module in model.named_modules():
        state[f"{name}: mode"] = module.training
        state[f"{name}: attributes"] = sorted(vars(module))
        for kind, hooks in vars(module).items():
            if "hook" in kind:
                state[f"{name}: {kind}"] = list(hooks.items()) if isinstance(hooks, dict) else hooks
        for key, buffer in module._buffers.items():
            state[f"{name}.{key}: buffer"] = _kept(buffer)
    for name, tensor in [*model.named_parameters(), *((str(i), t) for i, t in enumerate(tensors))]:
        version = None if tensor.is_inference() else tensor._version
        state[f"{name}: values"] = (version, _kept(tensor))
        state[f"{name}: grad"] = (tensor.requires_grad, _kept(tensor.grad))
    return state


def _same(first, second):
    if isinstance(first, torch.Tensor):
        nan, nan_too = first != first, second != second
        return torch.equal(nan, nan_too) and bool(((first == second) | nan).all())
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and first == second


@contextmanager
def unchanged(model, *tensors):
    """Holds that the block leaves the model, the tensors and the process as they were."""
    torch.rand(1), np.random.rand(), random.random()  # else who seeds them anew may go unseen
    before = snapshot(model, *tensors)
    try:
        yield
    finally:
        after = snapshot(model, *tensors)
        assert before.keys() == after.keys()
        changed = [key for key in before if not _same(before[key], after[key])]
        assert not changed, changed


def mixed(net):
    """The net as a trainer might hand it over: modes, grads, `requires_grad` all mixed."""
    net.train()
    for index, module in enumerate(net.modules()):
        if index % 2:
            module.training = False
    for index, parameter in enumerate(net.parameters()):
        parameter.requires_grad_(index % 3 != 0)
        if index % 2:
            parameter.grad = torch.full_like(parameter, 0.25)
    return net


class Pooled(nn.Module):
    """Batch norm, an average pooling to one cell and a vector: what else a layer may be."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)
            )
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(8, 10)
            self.features[1].running_mean.uniform_(-0.2, 0.2)
            self.features[1].running_var.uniform_(0.5, 1.5)
        self.eval()

    def forward(self, images):
        return self.fc(self.avgpool(self.features(images)).flatten(1))


class Wrapped(nn.Module):
    """Gives the net's logits another form."""

    def __init__(self, net, form):
        super().__init__()
        self.net, self.form = net, form

    def forward(self, images):
        return self.form(self.net(images))
