"""What many tests share: the real photographs, and the trained net that recognises them."""

import signal

import pytest
import torch

import xcam

# A shell's background jobs, and what they start, ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def photographs() -> torch.Tensor:
    """The demo's photographs, (6, 3, 224, 224) in [0, 1]."""
    import demo

    return demo.photographs(224)


@pytest.fixture(scope="session")
def lite0() -> torch.nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    return xcam.models.load("xcam:efficientnet_lite0", weights="DEFAULT")
