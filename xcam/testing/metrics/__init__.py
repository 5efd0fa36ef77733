"""The contract that every metric keeps."""

from xcam.testing.metrics.suite import check_metric, metric_checks

__all__ = ["check_metric", "metric_checks"]
