"""Layer-Wise Modality Decomposition of any function of tensors.

``decompose`` is the way in; ``rules/`` holds the method, one file for each kind of operation.
"""

from lmd_cli.decomposition.api import decompose, decompose_bias, decompose_onward
from lmd_cli.decomposition.coverage import Coverage, CoverageRow, explain_coverage
from lmd_cli.decomposition.errors import (
    ConservationError,
    DecompositionError,
    InputError,
    LeakError,
    NoRuleError,
)
from lmd_cli.decomposition.layout import Layout
from lmd_cli.decomposition.module_rules import (
    module_rules,
    plain_modules_of,
    set_module_rules,
    set_plain_modules,
)
from lmd_cli.decomposition.registry import Rule, RuleInfo, find_rule, register_rule, unregister_rule
from lmd_cli.decomposition.result import DecomposedTensor, Decomposition, Parts
from lmd_cli.decomposition.rules.activation import register_activation
from lmd_cli.decomposition.tracing.audit import OperationRecord
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
    "RuleInfo",
    "Variant",
    "decompose",
    "decompose_bias",
    "decompose_onward",
    "explain_coverage",
    "find_rule",
    "module_rules",
    "plain_modules_of",
    "register_activation",
    "register_rule",
    "set_module_rules",
    "set_plain_modules",
    "unregister_rule",
    "variant_names",
]
