"""The perturbation protocol of Appendix D.4: schedule, metrics, runner, results on disk."""

from lmd_cli.evaluation.finish import RunSummary
from lmd_cli.evaluation.runner import contribute, evaluate

__all__ = ["RunSummary", "contribute", "evaluate"]
