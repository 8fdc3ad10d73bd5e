"""Locates the weights in a checkpoint's content, and the prefixes of their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from torch import Tensor

from lmd_cli.networks.checkpoints.stored import MalformedError, Placeholder, Stored, printable

Weight = Tensor | Stored
#: Where people keep the weights, the likeliest first; any other key comes after these.
KNOWN = (
    *("model_state_dict", "state_dict", "model", "model_state", "module", "network", "net"),
    *("weights", "params"),
)
#: What wrappers put before every name.
WRAPPERS = ("module.", "model.", "_orig_mod.")
#: Different prefixes in one dict that are tried.
PREFIXES = 16
#: Dicts in dicts in which weights are looked for.
LEVELS = 3
#: BatchNorm's number of training steps, which no prediction needs.
COUNTER = "num_batches_tracked"
#: Words in keys for running means of the weights, and for what is no network's.
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged)([._]|$)", re.IGNORECASE)
#: What running means have in place of the dots of a name, which a buffer's name may not hold.
_JOINTS = ("_", "")
#: BatchNorm's statistics, which running means of the parameters alone do not hold.
_STATISTICS = ("running_mean", "running_var")
#: Where Lightning's averaging callback keeps the weights, when ``state_dict`` has their means.
_CURRENT = "current_model_state"
_OTHER = re.compile("optim|sched|scaler|callback|loop|hyper", re.IGNORECASE)


class Place(NamedTuple):
    """Tensors by name, somewhere in a file.

    Attributes:
        keys: those of the dicts around them; none for the outermost.
        prefix: what stands before the names that are meant.
        weights: the tensors, without the prefix.
        beside: names of all other entries of the same dict.
        rank: the lower the likelier.
        means: whether these are running means of the weights, by what is around them.
    """

    keys: tuple[str, ...]
    prefix: str
    weights: Mapping[str, Weight]
    beside: list[str]
    rank: int
    means: bool

    @property
    def averaged(self) -> bool:
        """Whether these are running means of the weights, by what is around them or their names."""
        return self.means or bool(_AVERAGED.search(self.prefix))

    def behind(self, prefix: str) -> Place:
        """What is behind a prefix here."""
        chosen = {
            name.removeprefix(prefix): value
            for name, value in self.weights.items()
            if name.startswith(prefix)
        }
        others = [name for name in self.weights if not name.startswith(prefix)]
        return self._replace(prefix=prefix, weights=chosen, beside=[*self.beside, *others])

    def __str__(self) -> str:
        where = "".join(f"[{key!r}]" for key in self.keys)
        behind = f"names behind {self.prefix!r}" if self.prefix else ""
        return " ".join(filter(None, (where, behind))) or "the names as they are"


def places(content: Any) -> list[Place]:
    """Every dict in a file that holds tensors by name, but for the optimiser's and the like."""
    return list(_places(content, (), set(), means=False))


def _places(content: Any, keys: tuple[str, ...], seen: set[int], *, means: bool) -> Iterator[Place]:
    if not isinstance(content, Mapping) or id(content) in seen:
        return
    seen.add(id(content))
    weights = {n: v for n, v in content.items() if isinstance(n, str) and isinstance(v, Weight)}
    if weights:
        beside = [str(name) for name in content if name not in weights]
        yield Place(keys, "", weights, beside, _rank(keys), means)
    if len(keys) < LEVELS:
        for key, value in content.items():
            if isinstance(key, str) and not _OTHER.search(key):
                inner = means or bool(_AVERAGED.search(key))
                inner |= key == "state_dict" and _CURRENT in content
                yield from _places(value, (*keys, key), seen, means=inner)


def _rank(keys: tuple[str, ...]) -> int:
    if not keys:
        return -1
    return KNOWN.index(keys[0]) if keys[0] in KNOWN else len(KNOWN)


def unwrapped(place: Place) -> Place:
    """Without the prefixes of wrappers that all names have."""
    prefix = ""
    while shared := [w for w in WRAPPERS if all(n.startswith(prefix + w) for n in place.weights)]:
        prefix += shared[0]
    return place.behind(prefix)


def fitting(place: Place, expected: Mapping[str, Any], averaged: bool) -> Iterator[Place]:
    """The place as it is, and behind every prefix under which an expected name is found.

    Running means whose names have lost their dots get them back.

    Raises:
        MalformedError: such a name stands for two expected ones, and ``averaged`` ones are wanted.
    """
    averages = [
        candidate for joint in _JOINTS for candidate in _dotted(place, expected, joint, averaged)
    ]
    yield from averages
    means = tuple(candidate.prefix for candidate in averages if candidate.prefix)
    others = {name: v for name, v in place.weights.items() if not name.startswith(means)}
    dropped = [name for name in place.weights if name not in others]
    yield place._replace(weights=others, beside=[*place.beside, *dropped])
    ends = {n: a for n in place.weights for a in _anchors(expected) if n.endswith(f".{a}")}
    prefixes = dict.fromkeys(name.removesuffix(end) for name, end in ends.items())
    yield from map(place.behind, islice(prefixes, PREFIXES))


def _anchors(names: Iterable[str]) -> list[str]:
    """The names by which the others' prefix is told: the first, the last and the longest.

    Statistics and counters are none of them, which running means of the parameters lack.
    """
    names = [name for name in names if not name.endswith((COUNTER, *_STATISTICS))]
    return list(dict.fromkeys([*names[:1], *names[-1:], *sorted(names, key=len)[-1:]]))


def _dotted(
    place: Place, expected: Mapping[str, Any], joint: str, averaged: bool
) -> Iterator[Place]:
    """Running means under the expected names, where they have ``joint`` in place of the dots."""
    flat: dict[str, list[str]] = {}
    for name in expected:
        flat.setdefault(name.replace(".", joint), []).append(name)
    anchors = [name.replace(".", joint) for name in _anchors(n for n in expected if "." in n)]
    ends = {name: a for name in place.weights for a in anchors if name.endswith(a)}
    prefixes = dict.fromkeys(name.removesuffix(end) for name, end in ends.items())
    for behind in filter(lambda p: p.averaged, map(place.behind, islice(prefixes, PREFIXES))):
        known = {name: value for name, value in behind.weights.items() if name in flat}
        if averaged and (twice := [name for name in known if len(flat[name]) > 1]):
            raise MalformedError(
                f"running means without the dots of their names: {printable(twice[0])} stands for "
                f"{' and '.join(flat[twice[0]])}; save them under the network's own names"
            )
        weights = {flat[name][0]: value for name, value in known.items()}
        rest = [name for name in behind.weights if name not in flat]
        yield behind._replace(weights=weights, beside=[*behind.beside, *rest])


def with_statistics(place: Place, plain: list[Place]) -> Place:
    """Running means with BatchNorm's statistics of the weights beside them, if they lack them."""
    weights = dict(plain[0].weights) if len(plain) == 1 else {}
    taken = {name: value for name, value in weights.items() if name.endswith(_STATISTICS)}
    return place._replace(weights={**taken, **place.weights})


def best(content: Any, expected: Mapping[str, Any], averaged: bool) -> list[Place]:
    """The places where the most of the expected names are; several if none is the likeliest.

    Args:
        content: a file's.
        expected: the network's own names.
        averaged: running means of the weights, rather than the weights.
    """
    candidates = [f for place in places(content) for f in fitting(place, expected, averaged)]
    candidates = [place for place in candidates if place.averaged == averaged]
    counts = [sum(name in expected for name in place.weights) for place in candidates]
    top = [p for p, count in zip(candidates, counts, strict=True) if count == max(counts)]
    likeliest = min((place.rank for place in top), default=0)
    return [place for place in top if place.rank == likeliest]


def named_means(content: Any, plain: Place) -> Place | None:
    """Running means under the names of the weights beside them; ``None`` if none has such names.

    Args:
        content: a file's.
        plain: the weights in it.

    Raises:
        MalformedError: a name there stands for two of the weights', or several places have means.
    """
    names = {name: value for name, value in plain.weights.items() if not _AVERAGED.search(name)}
    plain = plain._replace(weights=names)
    first = (name.partition(".")[0] + "." for name in names)
    prefixes = dict.fromkeys(["", unwrapped(plain).prefix, *first])
    likeliest: tuple[int, list[Place], Place] = (0, [], plain)
    for weights in map(plain.behind, islice(prefixes, PREFIXES)):
        means = best(content, weights.weights, averaged=True)
        known = sum(name in weights.weights for name in means[0].weights) if means else 0
        if known > likeliest[0]:
            likeliest = known, means, weights
    _, means, weights = likeliest
    if len(means) > 1:
        where = "; ".join(map(str, means))
        raise MalformedError(
            f"running means more than once ({where}); save the ones you mean alone"
        )
    return with_statistics(means[0], [weights]) if means else None


def whole_model(content: Any, levels: int = LEVELS) -> tuple[str, Placeholder] | None:
    """A model that was pickled as an object, in place of its weights.

    Dicts in dicts are searched where no tensors are beside them.

    Returns:
        the key under which it is, as Python has it (``['model']``), and what it is.
    """
    values = {"": content}
    if isinstance(content, Mapping):
        values = {f"[{key!r}]": content[key] for key in (*KNOWN, "ema") if key in content}
    for key, value in values.items():
        if isinstance(value, Placeholder) and not value.name.startswith("torch._utils."):
            return key, value
    if levels and isinstance(content, Mapping) and not places(content):
        for name, value in content.items():
            if not isinstance(name, str) or _OTHER.search(name):
                continue
            likely = isinstance(value, Mapping) or _AVERAGED.search(name)
            if likely and (entry := whole_model(value, levels - 1)):
                return f"[{name!r}]{entry[0]}", entry[1]
    return None
