"""The verb `fit`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from xcam._explain.checks import check_model
from xcam._fit.counted import tabulate
from xcam._fit.loop import Training
from xcam._fit.optimization import NamedArguments
from xcam._fit.progress import Progress, make_folder, open_board, resume
from xcam._fit.settings import Criterion, Runtime, TrainingSettings, check_count
from xcam._fit.source import Images, Source
from xcam._fit.start import Start
from xcam.checkpoints import load_net
from xcam.core import Method, attached_method
from xcam.core.instantiate import check_names, check_number
from xcam.engine import gradients, random_states
from xcam.engine.forward import Precision
from xcam.errors import warn

__all__ = ["fit"]

_BATCH = 128
SGD: NamedArguments = MappingProxyType({"name": "SGD", "lr": 0.01, "momentum": 0.9})
NONE: Mapping[str, Any] = MappingProxyType({})


def fit(
    model: nn.Module,
    data: Images,
    method: str | Method | None = None,
    *,
    epochs: int,
    out: str | Path | None = None,
    validation: Images | None = None,
    test: Images | None = None,
    batch_size: int | None = None,
    optimizer: NamedArguments = SGD,
    schedule: NamedArguments | None = None,
    groups: Mapping[str, NamedArguments] = NONE,
    criterion: Criterion | None = None,
    label_smoothing: float = 0.0,
    mix: Mapping[str, float] = NONE,
    ema: Mapping[str, Any] | None = None,
    accumulate: int = 1,
    clip: float | None = None,
    precision: Precision = "full",
    seed: int = 0,
    workers: int = 0,
    drop_last: bool = False,
    keep_every: int | None = None,
    save_minutes: float = 5.0,
    board_path: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
    **params: Any,  # noqa: ANN401
) -> nn.Module:
    """Train a classifier, alone or with the head of a method; it may be stopped at any moment.

    With `out` a training that was interrupted, or killed, goes on when it is called again with the
    same arguments, and on a CPU ends with the same bits: the order of the images follows from
    (seed, epoch), what augmentation draws from (seed, epoch, index), what dropout and mixing draw
    from (seed, epoch, step, process, part), whatever was drawn before and however many workers
    load. `model` and the global generators are left as they were.

    Under `accelerate launch` or `torchrun` the processes share every batch, and average their
    gradients: nets without batch norm and dropout end where one process ends, up to rounding.

    Args:
        model: From images (B, C, H, W) in [0, 1] to logits (B, K). Parameters with
            `requires_grad=False` stay as they are.
        data: A map-style data set of `(image, label)`: a float (C, H, W) tensor, and an int below
            K, or (K,) bool of an image that may show several classes: the loss is the mean binary
            cross-entropy then, and the best epoch has the highest mAP. Classes that both the data
            set and the model name are compared by name. Or a
            `DataLoader` of one, of which batch size, workers, collation and `drop_last`
            are used; the order is drawn by `seed`.
        method: A trainable method by name, or such an object, whose head is attached to a copy of
            the model; None trains a plain classifier, or the head that the model carries.
        epochs: Times through the data. With more than before, a folder's training goes on.
        out: The folder: `best.safetensors`, `last.safetensors` (`xcam.load` reads both),
            `log.csv`, `test.csv`, and what a training needs to go on. None writes nothing.
        validation: Images that are measured after every epoch; the best epoch is returned. Their
            labels are checked before the first step: an image is read for that only where the data
            set does not list them.
        test: Images that are measured at the end of each call, with the net that is returned:
            `test.csv`, see `xcam.accuracy`.
        batch_size: Images an optimiser step, over all processes and parts; None takes the
            loader's, or 128.
        optimizer: The name of a class of `torch.optim`, and its arguments.
        schedule: The name of a class of `torch.optim.lr_scheduler`, and its arguments, in epochs,
            or in steps with `"per": "step"`. `"warmup": 5` precedes it with as many epochs in
            which the rate rises linearly from `"warmup_factor"` (0.1) of it.
        groups: Settings of the parameters whose names match a regular expression, such as
            `{"bias": {"lr_factor": 2, "weight_decay": 0}}`; the first match counts.
        criterion: `(logits, labels) -> scalar`, the mean over the images; None is the model's
            `training_loss(images, labels) -> (loss, logits)` if it has one, else cross-entropy.
            Not for methods with a loss of their own, as all but `castream` have.
            A folder tells modules apart by class and tensors, functions by name, not by arguments.
        label_smoothing: Label smoothing of the cross-entropy, in [0, 1).
        mix: The α of `"mixup"`, of `"cutmix"`, or of both, of which one is drawn a batch. Labels
            are shares of the classes then, (B, K).
        ema: `{"decay": 0.999, "every": 1}` for a moving average of the weights, taken every so many
            steps: it is measured, kept and returned in their place. With `"warmup": True` update n
            has a decay of at most (1 + n) / (10 + n), so that the average of a short training
            forgets its beginning; a warning says where the decay is too high for the steps.
        accumulate: Parts in which a process computes a step, one after the other; it saves memory.
            Their gradients add up to the step's, also of a criterion with weights, ignored classes
            or `reduction="sum"`.
        clip: The largest norm of the gradient of all parameters together.
        precision: `"full"`, or `"bf16"`/`"fp16"` to train under autocast.
        seed: The seed for all random numbers.
        workers: Processes that load images, where no loader says how many.
        drop_last: Leave an epoch's last images out if they do not fill a step; so does a loader
            with it.
        keep_every: Epochs between nets that are kept beside the best and the last, such as
            `epoch_0010.safetensors`.
        save_minutes: Between two saves within an epoch; every epoch's end is saved.
        board_path: A folder for TensorBoard (the extra `xcam[train]`).
        device: Where to train; None takes an accelerator if there is one.
        progress: Print a line an epoch to stderr, with the time that is left; in a terminal or a
            notebook also show bars with running loss and accuracy.
        **params: Hyper-parameters of the method.

    Returns:
        A new net in eval mode, on the device: the epoch with the highest validation accuracy, or,
        where no logit depends on what is trained, the lowest validation loss (the last of equals);
        the last without `validation`. Its `Normalized`, if it has one, has the size of the training
        images as `input_size`. Where it named no classes, its `categories` are theirs; those
        of outputs to spare are placeholders.

    Raises:
        TypeError: An argument of the wrong kind, or items that are not `(image, label)`.
        ValueError: An argument out of its range, images or labels that do not fit the model, or an
            `out` of another training, each difference named.
        UnknownNameError: No such method, optimiser or schedule.
        ModelOutputError: The model's output is not one (B, K) tensor.
        DivergenceError: The loss or a weight is not finite; what was saved before stays.
        FileFormatError: A damaged file in `out`.
        OSError: `out` cannot be written to, or another process works there; raised before training.
        ImportError: `board_path` without TensorBoard.
        KeyboardInterrupt: Ctrl-C, after the step and a save; a second one interrupts at once.
    """
    check_model(model)
    if method is None and attached_method(model) is None:
        check_names("fit", params, [*inspect.signature(fit).parameters][:-1])
    _check_counts(epochs=epochs, accumulate=accumulate, keep_every=keep_every, workers=workers)
    check_number("save_minutes", save_minutes)
    if not save_minutes >= 0:
        raise ValueError(f"save_minutes must be at least 0, got {save_minutes!r}")
    if out is None and test is not None:
        raise ValueError("the result on test is a file: give out=…, or use xcam.accuracy")
    train, validation_source, test_source = (
        None if part is None else Source.wrap(part, name, workers)
        for name, part in (("data", data), ("validation", validation), ("test", test))
    )
    if train is None:
        raise TypeError("data must be a data set or a DataLoader of one, got None")
    train = replace(train, drop_last=train.drop_last or drop_last)
    settings = TrainingSettings(
        batch_size=(train.batch_size or _BATCH) if batch_size is None else batch_size,
        optimizer=optimizer,
        schedule=schedule,
        groups=groups,
        criterion=criterion,
        label_smoothing=label_smoothing,
        mix=mix,
        ema=ema,
        clip=clip,
        precision=precision,
        seed=seed,
    )
    runtime = Runtime.choose(device, precision)
    sources = (train, validation_source, test_source)
    with random_states(), gradients(model):
        start = Start(settings, *sources, runtime, accumulate, *train.load_one(seed))
        net, trained_method = start.attach_head(model, method, params)
        start = start.fit_net(net, trained_method)
        learner = start.make_learner(net, trained_method)
        learner.optimization.check_length(epochs, learner.order.steps)
        if learner.averaging is not None and runtime.processes.is_main:
            slowness = learner.averaging.describe_slowness(epochs * learner.order.steps)
            if slowness is not None:
                warn(slowness)
        folder = None if out is None else make_folder(out)
        start.check_all_labels(is_begun=folder is not None and folder.is_begun)
        with folder.lock() if folder and runtime.processes.is_main else nullcontext():
            progress_so_far = Progress()
            if folder is not None:
                described = start.describe(model, trained_method), start.fingerprint(model)
                progress_so_far = resume(folder, learner, epochs, *described)
            training = Training(
                learner=learner,
                source=start.source,
                validation=start.validation,
                epochs=epochs,
                progress=progress_so_far,
                folder=folder,
                keep_every=keep_every,
                save_minutes=save_minutes,
                show_progress=progress,
            )
            return _finish(training, board_path, start.test)


def _check_counts(workers: int, keep_every: int | None, **others: int) -> None:
    for name, value in others.items():
        check_count(name, value)
    check_count("workers", workers, least=0)
    if keep_every is not None:
        check_count("keep_every", keep_every)


def _finish(training: Training, board_path: str | Path | None, test: Source | None) -> nn.Module:
    """Train to the end, measure the net on the test images, and return it."""
    learner, folder = training.learner, training.folder
    processes = learner.runtime.processes
    if folder is not None and processes.is_main and training.progress.epoch < training.epochs:
        folder.remove("test.csv")  # of fewer epochs
    with open_board(board_path if processes.is_main else None, training.steps) as training.board:
        training.run()
    processes.wait()  # the main process has written its files
    net = _load_best(training).eval()
    net.to(memory_format=torch.contiguous_format)
    net.zero_grad(set_to_none=True)
    if folder is not None and test is not None:
        counted = training.measure(net, test)
        table = tabulate(counted, test.categories)  # where it raises, it does in all processes
        if processes.is_main:
            folder.write("test.csv", table.to_csv(index=False).encode())
    processes.wait()
    return net


def _load_best(training: Training) -> nn.Module:
    """Return the net of the best epoch; the last one's if there is no validation."""
    net, folder = training.learner.net, training.folder
    if training.validation is None:
        return net
    if folder is None:
        net.load_state_dict(training.best)
        return net
    best = load_net(folder.path / "best.safetensors", model=net)
    return best.to(training.learner.runtime.device)
