"""Functions that networks call and that have no rule on purpose, each with the reason.

The message says what to do instead. What is not listed at all is refused too, without advice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch.overrides import resolve_name

from lmd_cli.decomposition.registry import aliases, register_rule

if TYPE_CHECKING:
    from lmd_cli.decomposition.session import Session

_RECURRENT = (
    "a fused recurrent layer has no rule; unroll it (nn.LSTMCell's equations with F.linear, "
    "torch.sigmoid and torch.tanh) or register one"
)
_RANDOM = "it is random; call .eval() on the network, or draw the noise outside as a constant"
_EIGEN = "it is not linear in the matrix; .detach() it where a constant is meant"
_LOSS = "a loss is not part of a prediction; decompose the network without it"
_SHAPE = "it changes a tensor's shape in place; use the out-of-place form"
_ANGLE = (
    "an angle has no linear part at any operating point; .detach() it where a constant is meant"
)

_REASONS: dict[str, tuple[str, str]] = {
    "recurrent": (
        "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell",
        _RECURRENT,
    ),
    "random": (
        "bernoulli multinomial poisson normal_ uniform_ random_ bernoulli_ exponential_ "
        "gumbel_softmax fractional_max_pool2d fractional_max_pool3d native_dropout dropout_ "
        "fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices",
        _RANDOM,
    ),
    "matrix functions": (
        "inverse inv pinverse pinv det slogdet logdet svd svdvals qr eig eigh eigvals eigvalsh "
        "cholesky matrix_exp matrix_power solve lstsq",
        _EIGEN,
    ),
    "losses": (
        "mse_loss l1_loss smooth_l1_loss huber_loss cross_entropy nll_loss kl_div "
        "binary_cross_entropy binary_cross_entropy_with_logits",
        _LOSS,
    ),
    "views in place": (
        "unsqueeze_ squeeze_ transpose_ swapaxes_ swapdims_ t_ resize_ resize_as_ as_strided_",
        _SHAPE,
    ),
    "angles": ("atan2 arctan2 atan2_ arctan2_ angle polar", _ANGLE),
}


def _functions(names: str) -> Iterable[Any]:
    """Those that torch's override protocol knows, and so can be met."""
    return [f for f in aliases(*names.split()) if resolve_name(f)]


def _refuse_all(functions: Iterable[Any], reason: str) -> None:
    def refuse(session: Session, func: Any, *args: Any, **kwargs: Any) -> Any:
        raise session.refuse(func, reason)

    register_rule(*functions, kind="refused", equation=reason)(refuse)


for _names, _reason in _REASONS.values():
    _refuse_all(_functions(_names), _reason)
