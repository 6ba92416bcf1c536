# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, import-untyped, valid-type"
"""Rules of routers in compiled code, called by address: whoever calls them is compiled once, whatever the rule.

A rule is a plain function ``choose(memory, seen, row, now)`` that answers with a place among the replicas that it sees, or with `MORE`: nothing has
happened, its memory is to be enlarged, and it is asked again. It is compiled by itself and must not raise. What it remembers is a named tuple
of arrays whose annotations are Numba types; it begins with ``m = fields(memory, Tree)``. Whoever has the tuple in Python (`Rule.memory`) shares
the arrays and may change what is in them between two calls.
"""

import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from sim.jit import JIT, callback, f8, i4s, i8, i8s, inline

MORE: typing.Final = -2
"""Answer of a rule that needs more memory."""


class Seen(NamedTuple):
    """What a rule sees: of replicas [place], of a block of requests [row]."""

    outstanding: i8s  # requests sent to each replica and not yet finished
    numbers: i8s  # its number in the fleet
    prompt: i4s  # tokens of each prompt
    session: i8s  # −1: none
    span_off: i8s  # where the spans of each prompt begin
    span_id: i8s
    span_start: i8s
    span_len: i8s
    source: i8s  # of random numbers: see `draw`


class Rule:
    """``choose`` with its ``memory``. ``grow``: makes the memory larger and answers with it. ``prepare``: told of rows before they are routed."""

    def __init__(
        self,
        choose: Callable[..., int],
        memory: Any,
        grow: Callable[[], tuple[object, ...]] | None = None,
        prepare: Callable[[Any, int, int], None] | None = None,
    ) -> None:
        self.choose, self._grow = choose, grow
        self.prepare = prepare or (lambda block, lo, hi: None)
        self.memory = memory
        self.address = _address(choose)
        self.table = _table(memory)

    def workers(self, order: Sequence[int]) -> None:
        """Other replicas from now on, by number in the order of places: for rules that remember any."""

    def reported(self, values: NDArray[np.float64]) -> None:
        """[place]: what the replicas have reported, for rules that go by it."""

    def replace(self, memory: tuple[object, ...]) -> None:
        """Other arrays from now on."""
        self.memory, self.table = memory, _table(memory)

    def grow(self) -> None:
        """It has asked for `MORE`."""
        assert self._grow is not None
        self.replace(self._grow())


def for_workers(memory: Any, workers: int, **fill: int) -> Any:
    """The memory with room for so many workers in these arrays, whose new places hold the number given."""
    short = {name: value for name, value in fill.items() if len(getattr(memory, name)) < workers}
    longer = {name: workers - len(getattr(memory, name)) for name in short}
    return memory._replace(
        **{name: np.pad(getattr(memory, name), (0, longer[name]), constant_values=short[name]) for name in short}
    )


_functions: list[Callable[..., int]] = []
_compiled: dict[Callable[..., int], Any] = {}

if JIT:
    from llvmlite import ir
    from numba.core import cgutils
    from numba.extending import intrinsic
    from numba.np.arrayobj import populate_array

    _HINTS = typing.get_type_hints(Seen)
    _SEEN = types.NamedTuple([_HINTS[name] for name in Seen._fields], Seen)
    _ARGUMENTS: Any = (i8s, _SEEN, i8, f8)
    _SIGNATURE = types.int64(*_ARGUMENTS)

    def _address(choose):
        if choose not in _compiled:
            _compiled[choose] = callback(_SIGNATURE, choose)
        return int(_compiled[choose].address)

    def _table(memory):
        """i8[field, 3]: where each array is, and its shape."""
        rows = []
        for name, kind in typing.get_type_hints(type(memory)).items():
            array = getattr(memory, name)
            assert array.flags.c_contiguous and array.dtype == np.dtype(str(kind.dtype)) and array.ndim == kind.ndim, name
            rows.append([array.ctypes.data, array.shape[0], array.shape[1] if array.ndim == 2 else 0])
        return np.array(rows, np.int64).reshape(-1)

    @intrinsic
    def _fields(typingctx, memory, cls):
        """The named tuple ``cls`` of the arrays in a rule's memory."""
        made = cls.instance_class
        kinds = list(typing.get_type_hints(made).values())
        result = types.NamedTuple(kinds, made)

        def codegen(context, builder, sig, args):
            table = context.make_array(sig.args[0])(context, builder, args[0])
            word = ir.IntType(64)
            found = []
            for k, kind in enumerate(kinds):
                first, *shape = (
                    builder.load(builder.gep(table.data, [context.get_constant(types.intp, 3 * k + j)]))
                    for j in range(1 + kind.ndim)
                )
                array = context.make_array(kind)(context, builder)
                size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
                strides = [context.get_constant(types.intp, size)]
                if kind.ndim == 2:
                    strides.insert(0, builder.mul(shape[1], strides[0]))
                populate_array(
                    array,
                    data=builder.inttoptr(first, context.get_data_type(kind.dtype).as_pointer()),
                    shape=cgutils.pack_array(builder, shape, ty=word),
                    strides=cgutils.pack_array(builder, strides, ty=word),
                    itemsize=context.get_constant(types.intp, size),
                    meminfo=None,
                )
                found.append(array._getvalue())
            return context.make_tuple(builder, sig.return_type, found)

        return result(memory, cls), codegen

    @intrinsic
    def _ask(typingctx, address, memory, seen, row, now):
        """Call the rule at ``address``."""
        sig = types.int64(types.int64, *_ARGUMENTS)

        def codegen(context, builder, sig, args):
            kinds = [context.get_value_type(kind) for kind in sig.args[1:]]
            function = ir.FunctionType(ir.IntType(64), kinds).as_pointer()
            return builder.call(builder.inttoptr(args[0], function), list(args[1:]))

        return sig, codegen

    @intrinsic
    def _drawn(typingctx, function, state):
        def codegen(context, builder, sig, args):
            pointer = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.IntType(32), [pointer]).as_pointer()
            drawn = builder.call(builder.inttoptr(args[0], kind), [builder.inttoptr(args[1], pointer)])
            return builder.zext(drawn, ir.IntType(64))

        return types.uint64(types.int64, types.int64), codegen

    _next_uint32: Any = _drawn

    def source_of(rng: np.random.Generator) -> i8s:
        """i8[2]: the numbers of ``rng`` for rules."""
        import ctypes

        found = rng.bit_generator.ctypes
        return np.array([ctypes.cast(found.next_uint32, ctypes.c_void_p).value, found.state_address], np.int64)

    @inline
    def draw(source, n):
        """What ``rng.integers(0, n)`` would draw, 1 ≤ n < 2³² (Lemire's method, as NumPy has it)."""
        if n == 1:
            return np.int64(0)
        span = np.uint64(n)
        low = np.uint64(0xFFFFFFFF)
        m = _next_uint32(source[0], source[1]) * span
        if (m & low) < span:
            threshold = (low - (span - np.uint64(1))) % span
            while (m & low) < threshold:
                m = _next_uint32(source[0], source[1]) * span
        return np.int64(m >> np.uint64(32))

else:
    _sources: list[np.random.Generator] = []

    def _address(choose):
        if choose not in _functions:
            _functions.append(choose)
        return _functions.index(choose)

    def _table(memory):
        return memory

    def _fields(memory, cls):
        """The memory itself."""
        return memory

    def _ask(address, memory, seen, row, now):
        """Call it."""
        return _functions[address](memory, seen, row, now)

    def source_of(rng: np.random.Generator) -> i8s:
        """i8[1]: its number."""
        if not any(r is rng for r in _sources):
            _sources.append(rng)
        return np.array([next(i for i, r in enumerate(_sources) if r is rng)], np.int64)

    def draw(source, n):
        """One draw."""
        return int(_sources[source[0]].integers(0, n))


fields: Any = _fields
"""``fields(memory, cls)``: the named tuple ``cls`` of the arrays in a rule's memory."""
ask: Any = _ask
"""``ask(address, memory, seen, row, now)``: what the rule at an address answers."""


def seen_of(outstanding: i8s, numbers: i8s, block: Any, source: i8s) -> Seen:
    """Replicas, and the columns of a `sim.policy.requests.Requests`."""
    return Seen(
        outstanding, numbers, block.prompt_tokens, block.session, block.span_off, block.span_id, block.span_start, block.span_len, source
    )  # fmt: skip
