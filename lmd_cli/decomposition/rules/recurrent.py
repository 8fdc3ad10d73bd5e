"""Fused recurrent layers and cells, made of linear layers, sigmoids, tanhs and products.

A gate is a sigmoid that multiplies the state again at every step, and parts of a gate times parts
of the state (appendix D.2) grow exponentially where weights are large. So a gate is a constant of
the operating point, as attention weights are, unless the variant's softmax rule is ``taylor`` or
``secant``: then it takes its slope from the derivative (eq. 1; :mod:`.activation`). Layers that
torch does not fuse reach the rules as these single operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lmd_cli.decomposition.maps import Affine
from lmd_cli.decomposition.registry import aten_rule
from lmd_cli.decomposition.tracing.calls import Call, Result

_EQUATION = "eq. 1, 3, App. D.2"


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden and cell state after one step, from (B, 4 H) sums of both linear layers."""
    entry, forget, candidate, exit_ = gates.chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(entry) * torch.tanh(candidate)
    return torch.sigmoid(exit_) * torch.tanh(cell), cell


def gru_step(input_gates: Tensor, hidden_gates: Tensor, hidden: Tensor) -> Tensor:
    """Hidden state after one step, from (B, 3 H) of each linear layer."""
    (reset, update, new), (h_reset, h_update, h_new) = (
        g.chunk(3, -1) for g in (input_gates, hidden_gates)
    )
    candidate = torch.tanh(new + torch.sigmoid(reset + h_reset) * h_new)
    return candidate + torch.sigmoid(update + h_update) * (hidden - candidate)


@aten_rule("_pack_padded_sequence", kind="structure", equation="eq. 13")
def packed(call: Call, input: Tensor, lengths: Tensor, batch_first: bool) -> Result:
    """Padded sequences without their padding, one step of all after the other."""
    steps = input.shape[1] if batch_first else input.shape[0]
    there = (torch.arange(steps).unsqueeze(1) < lengths).to(input.device)  # (T, B)

    def run(h: Tensor) -> Tensor:
        return (h.transpose(1, 2) if batch_first else h)[:, there]

    return call.plain(), [Affine(run, (input,))]


@aten_rule("_thnn_fused_lstm_cell", kind="composite", equation=_EQUATION)
def lstm_cell(call: Call, cx: Tensor, **given: Any) -> Result:
    """``nn.LSTMCell`` on a GPU, behind its linear layers."""
    made = call.compose_recurrent(lambda: lstm_step(torch.add(*_gates(given)), cx))
    return call.plain(), list(made)


@aten_rule("_thnn_fused_gru_cell", kind="composite", equation=_EQUATION)
def gru_cell(call: Call, hx: Tensor, **given: Any) -> Result:
    """``nn.GRUCell`` on a GPU, behind its linear layers."""
    return call.plain(), [call.compose_recurrent(lambda: gru_step(*_gates(given), hx))]


def _gates(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Of the input and of the hidden state, with their biases."""
    pairs = ((given[f"{x}_gates"], given.get(f"{x}_bias")) for x in ("input", "hidden"))
    first, second = (gates if bias is None else gates + bias for gates, bias in pairs)
    return first, second


@aten_rule("mkldnn_rnn_layer", kind="composite", equation=_EQUATION)
def lstm_layer(
    call: Call, input: Tensor, hx_: Tensor, cx_: Tensor, reverse: bool, **given: Any
) -> Result:
    """One direction of one layer of ``nn.LSTM`` on a CPU, (T, B, C) to (T, B, H).

    Raises:
        NoRuleError: it is another layer than an LSTM, or of packed sequences.
    """
    if given["mode"] != 2 or len(given["batch_sizes"]):
        raise call.refused("of mkldnn's layers it has a rule for the LSTM of padded sequences")
    count = 4 if given["has_biases"] else 2
    w_input, w_hidden, *biases = (given[f"weight{i}"] for i in range(count))
    b_input, b_hidden = biases or (None, None)

    def made() -> tuple[Tensor, ...]:
        hidden, cell = (state.reshape(-1, state.shape[-1]) for state in (hx_, cx_))
        steps, outputs = F.linear(input, w_input, b_input).unbind(0), []
        for step in reversed(steps) if reverse else steps:
            hidden, cell = lstm_step(step + F.linear(hidden, w_hidden, b_hidden), cell)
            outputs.append(hidden)
        out = torch.stack(outputs[::-1] if reverse else outputs)
        return out, hidden.reshape(hx_.shape), cell.reshape(cx_.shape)

    return call.plain(), list(call.compose_recurrent(made))


@aten_rule("_cudnn_rnn", kind="composite", equation=_EQUATION)
def cudnn_layers(
    call: Call, input: Tensor, weight: Sequence[Tensor], hx: Tensor, cx: Tensor | None, **given: Any
) -> Result:
    """``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` on a GPU: the same layers without cuDNN.

    Raises:
        NoRuleError: dropout is on, or the layers project their outputs.
    """
    if given["train"] and given["dropout"] > 0:
        raise call.refused("dropout is random; call .eval() on the network")
    if given["proj_size"]:
        raise call.refused("proj_size has no rule on a GPU; run it on the CPU")
    layers = getattr(torch, ("rnn_relu", "rnn_tanh", "lstm", "gru")[given["mode"]])
    state, weights = hx if cx is None else (hx, cx), list(weight)
    biases, layout = given["weight_stride0"] == 4, (given["num_layers"], 0.0, False)
    options, batch_sizes = (biases, *layout, given["bidirectional"]), given["batch_sizes"]

    def made() -> tuple[Tensor, ...]:
        with torch.backends.cudnn.flags(enabled=False):
            if len(batch_sizes):
                sizes = torch.tensor(batch_sizes, dtype=torch.int64)
                return layers(input, sizes, state, weights, *options)
            return layers(input, state, weights, *options, given["batch_first"])

    return call.plain(), list(call.compose_recurrent(made))
