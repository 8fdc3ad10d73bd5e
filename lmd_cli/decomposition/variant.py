"""The variant of the linearisation, named ``BN-NORM[-ACT][-SOFTMAX]``, the first two or three as in
the paper."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product

BATCH_NORM_RULES = ("identity", "uniform")
NORM_RULES = ("ratio", "identity", "uniform")
ACTIVATION_SPLITS = ("identity", "sum", "ratio")
#: Slopes between the values that coalitions of modalities make.
COALITION_RULES = ("shapley", "reveal", "rescale")
#: All of a variant: the values of all coalitions go through the network (:mod:`.coalitions`).
COALITIONS = "coalitions"
ACTIVATION_RULES = (*ACTIVATION_SPLITS, "taylor", *COALITION_RULES, COALITIONS)
_ALONE = (
    "coalitions runs every operation as it is and leaves no other rule open; write coalitions alone"
)
SOFTMAX_RULES = ("frozen", "taylor", "secant")
_RULES = (BATCH_NORM_RULES, NORM_RULES, ACTIVATION_RULES, SOFTMAX_RULES)


@dataclass(frozen=True)
class Variant:
    """Linearisation rules of LMD.

    Attributes:
        batch_norm: who gets the constant of eq. 10: the bias part (``identity``), or every
            modality and the bias in equal shares (``uniform``, section 4.2.4).
        norm: LayerNorm, InstanceNorm and GroupNorm: ``ratio`` (eq. 11, each part is centred by
            its own mean), or eq. 10 with the clean statistics, ``identity`` or ``uniform``.
        activation: eq. 9's slope, output / input, with Appendix C's splitting of the bias part:
            none (``identity``), ``sum`` (C.1) or ``ratio`` (C.2); or ``taylor``, the derivative
            at the operating point, what it misses of the output to the bias (eq. 1); or a slope
            for each modality from the bias part, ``shapley``, ``reveal`` or ``rescale``
            (:mod:`.coalition_slopes`). ``coalitions`` is a variant of its own, beside which no
            other field is chosen (:mod:`.coalitions`).
        softmax: attention weights are constants of the operating point (``frozen``), go through
            the derivative there (``taylor``), or through eq. 9's slope (``secant``, the paper's,
            guarded where a logit is near zero).
    """

    batch_norm: str = "identity"
    norm: str = "ratio"
    activation: str = "identity"
    softmax: str = SOFTMAX_RULES[0]

    def __post_init__(self) -> None:
        fields = ("batch_norm", "norm", "activation", "softmax")
        for field, choices in zip(fields, _RULES, strict=True):
            if getattr(self, field) not in choices:
                value = getattr(self, field)
                raise ValueError(f"variant: {field} must be one of {choices}, not {value!r}")
        others = (self.batch_norm, self.norm, self.softmax)
        if self.activation == COALITIONS and others != ("identity", "ratio", SOFTMAX_RULES[0]):
            raise ValueError(f"variant: {_ALONE}")

    @classmethod
    def parse(cls, name: str | Variant) -> Variant:
        """Reads a name such as ``identity-ratio`` or ``uniform-identity-sum``.

        Raises:
            ValueError: the name is not a variant; the nearest one is suggested. Or it ends in
                ``taylor`` as the third word, which may be the activations' or the softmax's.
        """
        if isinstance(name, Variant):
            return name
        words = str(name).strip().lower().split("-")
        if COALITIONS in words:
            if len(words) > 1:
                raise ValueError(f"{name!r}: {_ALONE}")
            return cls(activation=COALITIONS)
        softmax = {"softmax": words.pop()} if words[-1] in SOFTMAX_RULES else {}
        if len(words) == 2 and softmax == {"softmax": "taylor"}:
            both = "-".join(words)
            raise ValueError(
                f"{name!r} is ambiguous: {both}-taylor-frozen takes the derivative for activations,"
                f" {both}-identity-taylor for attention weights, {both}-taylor-taylor for both"
            )
        if len(words) in (2, 3):
            try:
                return cls(*words, **softmax)
            except ValueError:
                pass
        every = [Variant(*rules).name for rules in product(*_RULES[:2], ACTIVATION_RULES[:-1])]
        near = get_close_matches(str(name), [*every, COALITIONS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        own = [word for word in words[2:] if word in ACTIVATION_RULES]
        if len(own) > 1 and len(set(own)) == len(own):
            hint = f": {' and '.join(own)} are rules for activations, of which it has one"
        raise ValueError(
            f"{name!r} is not a variant{hint} (BN-NORM[-ACT][-SOFTMAX]: "
            f"BN {'|'.join(BATCH_NORM_RULES)}, "
            f"NORM {'|'.join(NORM_RULES)}, ACT {'|'.join(ACTIVATION_RULES[:-1])}, "
            f"SOFTMAX {'|'.join(SOFTMAX_RULES)}; or {COALITIONS})"
        )

    @property
    def name(self) -> str:
        """The paper's name; the activation rule is left out where it is ``identity``, the softmax
        rule where it is the default (neither where the other one is ``taylor``)."""
        if self.activation == COALITIONS:
            return COALITIONS
        words = [self.batch_norm, self.norm]
        plain = self.activation == "identity" and self.softmax != "taylor"
        words += [] if plain else [self.activation]
        plain_softmax = self.softmax == SOFTMAX_RULES[0] and self.activation != "taylor"
        words += [] if plain_softmax else [self.softmax]
        return "-".join(words)

    def __str__(self) -> str:
        return self.name


def variant_names() -> list[str]:
    """Names of the paper's variants (with the default softmax rule), the default first."""
    return [
        Variant(*rules).name for rules in product(BATCH_NORM_RULES, NORM_RULES, ACTIVATION_SPLITS)
    ]
