"""Metrics of xcam, registered as a plugin like any other."""

from xcam.core import Metric
from xcam.hookspecs import hookimpl
from xcam.metrics.agreement import Agreement
from xcam.metrics.axioms.completeness import Completeness
from xcam.metrics.axioms.non_sensitivity import NonSensitivity
from xcam.metrics.localization.boxes import MaxBoxAcc, MaxBoxAccV2
from xcam.metrics.localization.pointing import (
    AttributionLocalization,
    EnergyPointingGame,
    Focus,
    PointingGame,
    RelevanceRank,
    TopKIntersection,
)
from xcam.metrics.localization.pxap import PxAP
from xcam.metrics.masked.accuracy import Accuracy, MaskedAccuracy
from xcam.metrics.masked.adcc import ADCC, ARCC
from xcam.metrics.masked.coherency import Coherency, Complexity
from xcam.metrics.masked.confidence import AverageDrop, AverageGain, IncreaseInConfidence
from xcam.metrics.randomization.data import DataRandomization
from xcam.metrics.randomization.input_invariance import InputInvariance
from xcam.metrics.randomization.mprt import MPRT, EfficientMPRT, SmoothMPRT
from xcam.metrics.randomization.random_logit import RandomLogit
from xcam.metrics.removal.faithfulness import (
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    SensitivityN,
)
from xcam.metrics.removal.insertion_deletion import Deletion, Insertion
from xcam.metrics.removal.irof import IROF
from xcam.metrics.removal.monotonicity import Monotonicity
from xcam.metrics.removal.perturbation_accuracy import NegativePerturbation, PositivePerturbation
from xcam.metrics.removal.pic import AIC, SIC
from xcam.metrics.removal.pixel_flipping import PixelFlipping
from xcam.metrics.removal.remove_and_classify import RemoveAndClassify
from xcam.metrics.removal.road import ROAD, ROADLeRF, ROADMoRF
from xcam.metrics.removal.selectivity import Selectivity
from xcam.metrics.robustness.continuity import Continuity
from xcam.metrics.robustness.infidelity import Infidelity
from xcam.metrics.robustness.lipschitz import LocalLipschitz
from xcam.metrics.robustness.relative_stability import (
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)
from xcam.metrics.robustness.sensitivity import MaxSensitivity
from xcam.metrics.shape import Entropy, Sparseness
from xcam.metrics.sufficiency import Sufficiency

__all__ = [
    "ADCC",
    "AIC",
    "ARCC",
    "IROF",
    "METRICS",
    "MPRT",
    "ROAD",
    "SIC",
    "Accuracy",
    "Agreement",
    "AttributionLocalization",
    "AverageDrop",
    "AverageGain",
    "Coherency",
    "Completeness",
    "Complexity",
    "Continuity",
    "DataRandomization",
    "Deletion",
    "EfficientMPRT",
    "EnergyPointingGame",
    "Entropy",
    "FaithfulnessCorrelation",
    "FaithfulnessEstimate",
    "Focus",
    "IncreaseInConfidence",
    "Infidelity",
    "InputInvariance",
    "Insertion",
    "LocalLipschitz",
    "MaskedAccuracy",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "MaxSensitivity",
    "Monotonicity",
    "NegativePerturbation",
    "NonSensitivity",
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
    "SensitivityN",
    "SmoothMPRT",
    "Sparseness",
    "Sufficiency",
    "TopKIntersection",
    "xcam_metrics",
]

METRICS: list[type[Metric]] = [
    Accuracy,
    ADCC,
    Agreement,
    AIC,
    ARCC,
    AttributionLocalization,
    AverageDrop,
    AverageGain,
    Coherency,
    Completeness,
    Complexity,
    Continuity,
    Deletion,
    EfficientMPRT,
    EnergyPointingGame,
    Entropy,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Focus,
    IncreaseInConfidence,
    Infidelity,
    InputInvariance,
    Insertion,
    IROF,
    LocalLipschitz,
    MaskedAccuracy,
    MaxBoxAcc,
    MaxBoxAccV2,
    Monotonicity,
    MPRT,
    MaxSensitivity,
    NegativePerturbation,
    NonSensitivity,
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
    SensitivityN,
    SIC,
    SmoothMPRT,
    Sparseness,
    Sufficiency,
    TopKIntersection,
]


@hookimpl
def xcam_metrics() -> list[type[Metric]]:
    """Return xcam's own metrics."""
    return METRICS
