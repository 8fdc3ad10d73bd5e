"""Interprets pickles with a stack machine that imports and calls nothing that they name.

It knows the instructions that PyTorch and its users' programs write, and builds lists, tuples,
dicts, text and numbers. Everything is bounded: the number of instructions, so that none of them
can cost more than its own bytes; the depth; the memo; integers. Keys that are neither text nor
numbers are never hashed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any

from lmd_cli.networks.checkpoints.stored import MalformedError, Names, Placeholder, key_of

#: Instructions that a small file may have; a large one, one more for every so many bytes.
INSTRUCTIONS, BYTES_EACH = 2**17, 64
#: How many containers may be in each other.
DEPTH = 1000
#: Bits of an integer; the magic number of files before PyTorch 1.6 has 77.
BITS = 80


class Machine:
    """Runs the pickles of one file, one after the other.

    Args:
        names: what names, calls and references stand for.
        size: the file's, bytes.
    """

    def __init__(self, names: Names, size: int):
        self.names = names
        self.left = INSTRUCTIONS + size // BYTES_EACH
        self.stack: list[Any] = []
        self.depths: list[int] = []  # of what is on the stack
        self.marks: list[int] = []  # places in the stack
        self.memo: dict[int, tuple[Any, int]] = {}

    def load(self, file: IO[bytes]) -> Any:
        """What the pickle that begins here holds; the file is then at its end.

        Raises:
            MalformedError: an unknown instruction, or a limit.
            Exception: of any kind, if it is damaged.
        """
        self.memo.clear()
        for instruction, value, _ in pickletools.genops(file):
            self.spend(1)
            self.do(instruction.name, value)
        return self.pop()

    def spend(self, count: int) -> None:
        """Takes instructions from those that are left."""
        self.left -= count
        if self.left < 0:
            raise MalformedError("its pickle has too many instructions for a file of its size")

    def do(self, name: str, value: Any) -> None:
        """One instruction and its argument."""
        if name in LITERALS:
            self.push(value)
        elif name in STEPS:
            STEPS[name](self, value)
        else:
            raise MalformedError(f"its pickle holds {name}, which no checkpoint needs")

    def push(self, value: Any, depth: int = 0) -> None:
        """Puts a value on the stack; ``depth`` counts the containers in it, itself included."""
        if depth > DEPTH:
            raise MalformedError(f"more than {DEPTH} containers in each other")
        if type(value) is int and value.bit_length() > BITS:
            raise MalformedError(f"an integer of more than {BITS} bits")
        self.stack.append(value)
        self.depths.append(depth)

    def pop(self) -> Any:
        """Takes the value on top."""
        self.depths.pop()
        return self.stack.pop()

    def take(self, count: int | None = None) -> tuple[list[Any], int]:
        """Takes so many values, or all since the last mark; and the greatest of their depths."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if not 0 <= start <= len(self.stack):
            raise MalformedError("its pickle takes more than it has put down")
        values, depth = self.stack[start:], max(self.depths[start:], default=0)
        del self.stack[start:], self.depths[start:]
        return values, depth

    def remember(self, index: int | None = None) -> None:
        """Keeps the value on top for later."""
        index = len(self.memo) if index is None else index
        if index > INSTRUCTIONS + len(self.memo):
            raise MalformedError(f"entry {index} in a memo of {len(self.memo)}")
        self.memo[index] = self.stack[-1], self.depths[-1]

    def tuple(self, count: int | None = None) -> None:
        """Puts values together."""
        values, depth = self.take(count)
        self.push(tuple(values), depth + 1)

    def fill(self, count: int | None, put: Callable[[Any, list[Any]], None]) -> None:
        """Hands values to the container below them."""
        values, depth = self.take(count)
        below, own = self.stack[-1], self.depths[-1]
        put(below, values)
        self.pop()
        self.push(below, max(own, depth + 1 if values else 0))

    def call(self, count: int) -> None:
        """Calls what is below so many arguments, the first of which is a tuple."""
        (function, arguments, *_), depth = self.take(1 + count)
        # One that copies its argument could do so again and again.
        self.spend(sum(len(a) for a in arguments if isinstance(a, list | tuple | dict)))
        self.push(self.names.call(function, arguments), depth)

    def name(self) -> None:
        """A name from the module and the name on the stack."""
        (module, name), _ = self.take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise MalformedError("a name that is no text")
        self.push(self.names.named(module, name))


def _append(container: Any, values: list[Any]) -> None:
    """To a list; whatever else there is stays as it is."""
    if isinstance(container, list):
        container.extend(values)


def _set(container: Any, values: list[Any]) -> None:
    """Keys and values into a dict; whatever else there is stays as it is."""
    if isinstance(container, dict):
        for key, value in zip(values[::2], values[1::2], strict=True):
            container[key_of(key)] = value


def _ignore(container: Any, values: list[Any]) -> None:
    """Nothing else is built."""


#: Instructions whose argument is the value.
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
#: What the other instructions do, given their argument.
STEPS: dict[str, Callable[[Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "STOP": lambda m, _: None,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_LIST": lambda m, _: m.push([], 1),
    "EMPTY_DICT": lambda m, _: m.push({}, 1),
    "EMPTY_TUPLE": lambda m, _: m.push((), 1),
    "EMPTY_SET": lambda m, _: m.push(Placeholder("builtins.set")),
    "FROZENSET": lambda m, _: m.push(Placeholder("builtins.frozenset"), m.take()[1]),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.pop(),
    "POP_MARK": lambda m, _: m.take(),
    "DUP": lambda m, _: m.push(m.stack[-1], m.depths[-1]),
    "TUPLE": lambda m, _: m.tuple(),
    "TUPLE1": lambda m, _: m.tuple(1),
    "TUPLE2": lambda m, _: m.tuple(2),
    "TUPLE3": lambda m, _: m.tuple(3),
    "APPEND": lambda m, _: m.fill(1, _append),
    "APPENDS": lambda m, _: m.fill(None, _append),
    "SETITEM": lambda m, _: m.fill(2, _set),
    "SETITEMS": lambda m, _: m.fill(None, _set),
    "ADDITEMS": lambda m, _: m.fill(None, _ignore),
    "BUILD": lambda m, _: m.fill(1, _ignore),
    "REDUCE": lambda m, _: m.call(1),
    "NEWOBJ": lambda m, _: m.call(1),
    "NEWOBJ_EX": lambda m, _: m.call(2),
    "GLOBAL": lambda m, name: m.push(m.names.named(*name.split(" ", 1))),
    "STACK_GLOBAL": lambda m, _: m.name(),
    "BINPERSID": lambda m, _: m.push(m.names.reference(m.pop())),
    "BINPUT": lambda m, index: m.remember(index),
    "LONG_BINPUT": lambda m, index: m.remember(index),
    "MEMOIZE": lambda m, _: m.remember(),
    "BINGET": lambda m, index: m.push(*m.memo[index]),
    "LONG_BINGET": lambda m, index: m.push(*m.memo[index]),
}
