"""The methods that xcam brings, one file each; a plugin like any other."""

from __future__ import annotations

from xcam.core import Method
from xcam.hookspecs import hookimpl
from xcam.methods.ablationcam import AblationCAM
from xcam.methods.abn import ABN
from xcam.methods.cam import CAM
from xcam.methods.center_gaussian import CenterGaussian
from xcam.methods.conv_output import ConvOutput
from xcam.methods.deconvnet import DeconvNet
from xcam.methods.eigencam import EigenCAM
from xcam.methods.eigengradcam import EigenGradCAM
from xcam.methods.gradcam import GradCAM
from xcam.methods.gradcam_plusplus import GradCAMPlusPlus
from xcam.methods.guided_backprop import GuidedBackprop
from xcam.methods.guided_gradcam import GuidedGradCAM
from xcam.methods.hirescam import HiResCAM
from xcam.methods.input_x_gradient import InputXGradient
from xcam.methods.integrated_gradients import IntegratedGradients
from xcam.methods.layercam import LayerCAM
from xcam.methods.lcam import LCAMFm, LCAMImg
from xcam.methods.lficam import LFICAM
from xcam.methods.opticam import OptiCAM
from xcam.methods.random import Random
from xcam.methods.rise import RISE
from xcam.methods.saliency import Saliency
from xcam.methods.scorecam import ScoreCAM
from xcam.methods.smoothgrad import SmoothGrad
from xcam.methods.smoothgrad_squared import SmoothGradSquared
from xcam.methods.sobel import Sobel
from xcam.methods.vargrad import VarGrad
from xcam.methods.xgradcam import XGradCAM

__all__ = [
    "ABN",
    "CAM",
    "LFICAM",
    "METHODS",
    "RISE",
    "AblationCAM",
    "CenterGaussian",
    "ConvOutput",
    "DeconvNet",
    "EigenCAM",
    "EigenGradCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "LCAMFm",
    "LCAMImg",
    "LayerCAM",
    "OptiCAM",
    "Random",
    "Saliency",
    "ScoreCAM",
    "SmoothGrad",
    "SmoothGradSquared",
    "Sobel",
    "VarGrad",
    "XGradCAM",
    "xcam_methods",
]

METHODS: list[type[Method]] = [
    AblationCAM,
    ABN,
    CAM,
    CenterGaussian,
    ConvOutput,
    DeconvNet,
    EigenCAM,
    EigenGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    LCAMFm,
    LCAMImg,
    LFICAM,
    OptiCAM,
    Random,
    RISE,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    SmoothGradSquared,
    Sobel,
    VarGrad,
    XGradCAM,
]


@hookimpl
def xcam_methods() -> list[type[Method]]:
    """Xcam's own methods."""
    return METHODS
