"""Metrics of xcam, registered as a plugin like any other."""

from xcam.core import Metric
from xcam.hookspecs import hookimpl
from xcam.metrics.agreement import Agreement
from xcam.metrics.localization.boxes import MaxBoxAcc, MaxBoxAccV2
from xcam.metrics.localization.pointing import EnergyPointingGame, PointingGame, RelevanceRank
from xcam.metrics.localization.pxap import PxAP
from xcam.metrics.masked.accuracy import Accuracy, MaskedAccuracy
from xcam.metrics.masked.adcc import ADCC, ARCC
from xcam.metrics.masked.coherency import Coherency, Complexity
from xcam.metrics.masked.confidence import AverageDrop, AverageGain, IncreaseInConfidence
from xcam.metrics.randomization.input_invariance import InputInvariance
from xcam.metrics.randomization.mprt import MPRT, EfficientMPRT, SmoothMPRT
from xcam.metrics.randomization.random_logit import RandomLogit
from xcam.metrics.removal.insertion_deletion import Deletion, Insertion
from xcam.metrics.removal.irof import IROF
from xcam.metrics.removal.perturbation_accuracy import NegativePerturbation, PositivePerturbation
from xcam.metrics.removal.pixel_flipping import PixelFlipping
from xcam.metrics.removal.remove_and_classify import RemoveAndClassify
from xcam.metrics.removal.road import ROAD, ROADLeRF, ROADMoRF
from xcam.metrics.removal.selectivity import Selectivity
from xcam.metrics.robustness.continuity import Continuity
from xcam.metrics.robustness.lipschitz import LocalLipschitz
from xcam.metrics.robustness.relative_stability import (
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)
from xcam.metrics.robustness.sensitivity import MaxSensitivity
from xcam.metrics.shape import Entropy, Sparseness

__all__ = [
    "ADCC",
    "ARCC",
    "IROF",
    "METRICS",
    "MPRT",
    "ROAD",
    "Accuracy",
    "Agreement",
    "AverageDrop",
    "AverageGain",
    "Coherency",
    "Complexity",
    "Continuity",
    "Deletion",
    "EfficientMPRT",
    "EnergyPointingGame",
    "Entropy",
    "IncreaseInConfidence",
    "InputInvariance",
    "Insertion",
    "LocalLipschitz",
    "MaskedAccuracy",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "MaxSensitivity",
    "NegativePerturbation",
    "PixelFlipping",
    "PointingGame",
    "PositivePerturbation",
    "PxAP",
    "ROADLeRF",
    "ROADMoRF",
    "RandomLogit",
    "RelativeInputStability",
    "RelativeOutputStability",
    "RelativeRepresentationStability",
    "RelevanceRank",
    "RemoveAndClassify",
    "Selectivity",
    "SmoothMPRT",
    "Sparseness",
    "xcam_metrics",
]

METRICS: list[type[Metric]] = [
    Accuracy,
    ADCC,
    Agreement,
    ARCC,
    AverageDrop,
    AverageGain,
    Coherency,
    Complexity,
    Continuity,
    Deletion,
    EfficientMPRT,
    EnergyPointingGame,
    Entropy,
    IncreaseInConfidence,
    InputInvariance,
    Insertion,
    IROF,
    LocalLipschitz,
    MaskedAccuracy,
    MaxBoxAcc,
    MaxBoxAccV2,
    MPRT,
    MaxSensitivity,
    NegativePerturbation,
    PixelFlipping,
    PointingGame,
    PositivePerturbation,
    PxAP,
    RandomLogit,
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
    RelevanceRank,
    RemoveAndClassify,
    ROAD,
    ROADLeRF,
    ROADMoRF,
    Selectivity,
    SmoothMPRT,
    Sparseness,
]


@hookimpl
def xcam_metrics() -> list[type[Metric]]:
    """Return xcam's own metrics."""
    return METRICS
