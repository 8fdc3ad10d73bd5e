"""The perturbation protocol of Appendix D.4: schedule, metrics, runner, results on disk."""

from lmd_cli.evaluation.runner import RunSummary, evaluate

__all__ = ["RunSummary", "evaluate"]
