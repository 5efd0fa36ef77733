"""Methods of xcam, one file each, registered as a plugin like any other."""

from __future__ import annotations

from xcam.core import Method
from xcam.hookspecs import hookimpl
from xcam.methods.attention.attention_gradient import AttentionGradient
from xcam.methods.attention.attention_rollout import AttentionRollout
from xcam.methods.attention.cbam import CBAMAttention
from xcam.methods.attention.legrad import LeGrad
from xcam.methods.attention.ran import RANAttention
from xcam.methods.attention.warn import WARNAttention
from xcam.methods.bridges import BRIDGES
from xcam.methods.cam.aug_smooth import AugSmooth
from xcam.methods.cam.cam import CAM
from xcam.methods.cam.conv_output import ConvOutput
from xcam.methods.cam.eigen_smooth import EigenSmooth
from xcam.methods.cam.eigencam import EigenCAM
from xcam.methods.cam.eigengradcam import EigenGradCAM
from xcam.methods.cam.gradcam import GradCAM
from xcam.methods.cam.gradcam_plusplus import GradCAMPlusPlus
from xcam.methods.cam.hirescam import HiResCAM
from xcam.methods.cam.layer_fusion import LayerFusion
from xcam.methods.cam.layercam import LayerCAM
from xcam.methods.cam.xgradcam import XGradCAM
from xcam.methods.control.center_gaussian import CenterGaussian
from xcam.methods.control.random import Random
from xcam.methods.control.sobel import Sobel
from xcam.methods.gradient.deconvnet import DeconvNet
from xcam.methods.gradient.guided_backprop import GuidedBackprop
from xcam.methods.gradient.guided_gradcam import GuidedGradCAM
from xcam.methods.gradient.input_x_gradient import InputXGradient
from xcam.methods.gradient.integrated_gradients import IntegratedGradients
from xcam.methods.gradient.saliency import Saliency
from xcam.methods.gradient.smoothgrad import SmoothGrad
from xcam.methods.gradient.smoothgrad_squared import SmoothGradSquared
from xcam.methods.gradient.vargrad import VarGrad
from xcam.methods.perturbation.ablationcam import AblationCAM
from xcam.methods.perturbation.opticam import OptiCAM
from xcam.methods.perturbation.rise import RISE
from xcam.methods.perturbation.scorecam import ScoreCAM
from xcam.methods.trainable.abn import ABN
from xcam.methods.trainable.calm import CALM
from xcam.methods.trainable.castream import CAStream
from xcam.methods.trainable.lcam import LCAMFm, LCAMImg
from xcam.methods.trainable.lficam import LFICAM

__all__ = [
    "ABN",
    "CALM",
    "CAM",
    "LFICAM",
    "METHODS",
    "RISE",
    "AblationCAM",
    "AttentionGradient",
    "AttentionRollout",
    "AugSmooth",
    "CAStream",
    "CBAMAttention",
    "CenterGaussian",
    "ConvOutput",
    "DeconvNet",
    "EigenCAM",
    "EigenGradCAM",
    "EigenSmooth",
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
    "LayerFusion",
    "LeGrad",
    "OptiCAM",
    "RANAttention",
    "Random",
    "Saliency",
    "ScoreCAM",
    "SmoothGrad",
    "SmoothGradSquared",
    "Sobel",
    "VarGrad",
    "WARNAttention",
    "XGradCAM",
    "xcam_methods",
]

METHODS: list[type[Method]] = [
    AblationCAM,
    ABN,
    AugSmooth,
    AttentionGradient,
    AttentionRollout,
    CALM,
    CAM,
    CAStream,
    CBAMAttention,
    CenterGaussian,
    ConvOutput,
    DeconvNet,
    EigenCAM,
    EigenGradCAM,
    EigenSmooth,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    LayerFusion,
    LCAMFm,
    LCAMImg,
    LeGrad,
    LFICAM,
    OptiCAM,
    Random,
    RANAttention,
    RISE,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    SmoothGradSquared,
    Sobel,
    VarGrad,
    WARNAttention,
    XGradCAM,
    *BRIDGES,
]


@hookimpl
def xcam_methods() -> list[type[Method]]:
    """Return xcam's own methods."""
    return METHODS
