"""Ask for what is needed soon: a wait for memory costs more than all that is done with an entry of a large table, and several waits pass at once."""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, misc"

from sim.jit import JIT

if JIT:
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    @intrinsic
    def prefetch(typingctx, array, i):
        """Bring ``array[i]`` (or the beginning of that row) into the processor's caches; ``i`` is within the array."""

        def codegen(context, builder, sig, args):
            kind = sig.args[0]
            made = context.make_array(kind)(context, builder, args[0])
            zero = context.get_constant(types.intp, 0)
            at = [context.cast(builder, args[1], sig.args[1], types.intp)] + [zero] * (kind.ndim - 1)
            place = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, made, at), cgutils.voidptr_t)
            i32 = ir.IntType(32)
            shape = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, i32, i32, i32])
            function = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], shape)
            builder.call(function, [place, i32(0), i32(3), i32(1)])
            return context.get_dummy_value()

        return types.void(array, i), codegen

else:

    def prefetch(array, i):
        """Nothing."""
