"""Operators that networks call and that have no rule on purpose, each with the reason.

The message says what to do instead. What is not listed at all is refused too, without advice.
"""

from __future__ import annotations

from typing import Any

from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.tracing.calls import Call

RECURRENT = (
    "a fused recurrent layer has no rule; unroll it (nn.LSTMCell's equations with F.linear, "
    "torch.sigmoid and torch.tanh) or register one"
)
RANDOM = "it is random; call .eval() on the network, or draw the noise outside as a constant"
MATRIX = "it is not linear in the matrix; .detach() it where a constant is meant"
LOSS = "a loss is not part of a prediction; decompose the network without it"
ANGLE = "an angle has no linear part at any operating point; .detach() it where a constant is meant"
RENORM = "max_norm rescales the rows of a table that carries parts; leave it out"
RESIZED = (
    "it changes the size of memory, and parts cannot follow; make another tensor (new_zeros, "
    "torch.cat) and copy into it"
)
NESTED = (
    "nested tensors have no rule; call torch.backends.mha.set_fastpath_enabled(False), or give the "
    "encoder enable_nested_tensor=False"
)
CUMULATIVE = "it has no rule (no single place to sum over); .detach() it where a constant is meant"

REASONS: dict[str, str] = {
    "miopen_rnn": RECURRENT,
    "bernoulli multinomial poisson binomial normal normal_functional uniform random exponential "
    "geometric cauchy log_normal native_dropout fractional_max_pool2d fractional_max_pool3d "
    "_sample_dirichlet _standard_gamma": RANDOM,
    "linalg_inv_ex linalg_pinv _linalg_det _linalg_slogdet _linalg_svd _linalg_eigh "
    "_linalg_eigvals linalg_eig linalg_qr geqrf cholesky linalg_cholesky_ex cholesky_inverse "
    "linalg_matrix_exp linalg_lstsq linalg_lu linalg_lu_factor_ex linalg_ldl_factor_ex": MATRIX,
    "mse_loss smooth_l1_loss huber_loss soft_margin_loss multi_margin_loss nll_loss_forward "
    "nll_loss2d_forward multilabel_margin_loss_forward binary_cross_entropy "
    "binary_cross_entropy_with_logits _ctc_loss": LOSS,
    "atan2 angle polar": ANGLE,
    "embedding_renorm": RENORM,
    "resize resize_as": RESIZED,
    "_nested_tensor_from_mask": NESTED,
    "logcumsumexp": CUMULATIVE,
}


def _refuse(names: str, reason: str) -> None:
    def refused(call: Call, **_: Any) -> Any:
        raise call.refused(reason)

    aten_rule(*names.split(), kind="refused", equation=reason)(refused)


for _names, _reason in REASONS.items():
    _refuse(_names, _reason)
