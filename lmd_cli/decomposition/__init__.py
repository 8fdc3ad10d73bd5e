"""Layer-Wise Modality Decomposition at the level of torch functions.

``decompose`` is the way in; ``rules/`` holds the method, one file for each kind of operation.
"""

from lmd_cli.decomposition.api import decompose, decompose_bias, decompose_onward
from lmd_cli.decomposition.audit import OperationRecord
from lmd_cli.decomposition.coverage import Coverage, CoverageRow, explain_coverage
from lmd_cli.decomposition.errors import (
    ConservationError,
    DecompositionError,
    InputError,
    LeakError,
    NoRuleError,
)
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.overrides import module_rules, set_module_rules
from lmd_cli.decomposition.registry import Rule, find_rule, register_rule, unregister_rule
from lmd_cli.decomposition.result import Decomposition, Parts
from lmd_cli.decomposition.tensor import DecomposedTensor
from lmd_cli.decomposition.variant import Variant, variant_names

__all__ = [
    "ConservationError",
    "Coverage",
    "CoverageRow",
    "DecomposedTensor",
    "Decomposition",
    "DecompositionError",
    "InputError",
    "Layout",
    "LeakError",
    "NoRuleError",
    "OperationRecord",
    "Parts",
    "Rule",
    "Variant",
    "decompose",
    "decompose_bias",
    "decompose_onward",
    "explain_coverage",
    "find_rule",
    "module_rules",
    "register_rule",
    "set_module_rules",
    "unregister_rule",
    "variant_names",
]
