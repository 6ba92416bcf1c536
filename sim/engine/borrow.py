"""Structs that somebody else keeps alive: their arrays are read without counting references.

Numba counts a reference up and down, atomically, wherever it reads an array out of a struct: more than half of the time of a hot kernel. Inside a
kernel the caller holds the state, and the state its arrays, so nothing needs counting: ``view(s)`` has the same fields, whose arrays and
structs are borrowed. Only numbers can be assigned to its fields; what replaces an array (growth) does so by ``keep(s)``, the struct itself, and
whoever looked the old array up before must look it up again. Both take either and give back what they have where there is nothing to do.
``lend(t)`` is the same for a tuple of arrays, or of such tuples, that the caller of a kernel holds: it must not outlive the call.
"""

# mypy: disable-error-code="no-untyped-call, no-untyped-def, misc, import-untyped"

from sim.jit import JIT, T

if JIT:
    from numba import types
    from numba.core import cgutils, imputils
    from numba.core.datamodel import models, register_default
    from numba.core.errors import TypingError
    from numba.core.typing.templates import AttributeTemplate
    from numba.experimental.structref import _Utils
    from numba.extending import infer_getattr, intrinsic, lower_getattr_generic, lower_setattr_generic

    class View(types.Type):
        """Type of a view of the struct ``owned``."""

        def __init__(self, owned: types.StructRef) -> None:
            self.owned = owned
            super().__init__(name=f"view({owned.name})")

    register_default(View)(models.OpaqueModel)

    def _payload(context, builder, owned, meminfo):
        """The fields of a struct, and the struct."""
        made = cgutils.create_struct_proxy(owned)(context, builder)
        made.meminfo = meminfo
        value = made._getvalue()
        return _Utils(context, builder, owned).get_data_struct(value), value

    @infer_getattr
    class _Fields(AttributeTemplate):
        key = View

        def generic_resolve(self, typ, attr):
            kind = typ.owned.field_dict.get(attr)
            return View(kind) if isinstance(kind, types.StructRef) else kind

    @lower_getattr_generic(View)
    def _get(context, builder, typ, val, attr):
        fields, _ = _payload(context, builder, typ.owned, val)
        found = getattr(fields, attr)
        kind = typ.owned.field_dict[attr]
        if isinstance(kind, types.StructRef):
            return cgutils.create_struct_proxy(kind)(context, builder, value=found).meminfo
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, value=found)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            return array._getvalue()
        return imputils.impl_ret_borrowed(context, builder, kind, found)

    @lower_setattr_generic(View)
    def _set(context, builder, sig, args, attr):
        view, given = sig.args
        kind = view.owned.field_dict[attr]
        if not isinstance(kind, types.Number | types.Boolean):
            raise TypingError(f"{view.owned.name}.{attr} cannot be replaced in a view: write keep(s).{attr} = …")
        fields, _ = _payload(context, builder, view.owned, args[0])
        setattr(fields, attr, context.cast(builder, args[1], given, kind))

    def seen_as(struct_type: type) -> type:
        """The type in which kernels get such a struct: a view where its class says so (`sim.jit.struct`)."""
        return View(struct_type) if getattr(struct_type, "viewed", False) else struct_type

    @intrinsic
    def view(typingctx, s):
        """A view of the struct if its class says that kernels get one."""
        to = s if isinstance(s, View) else seen_as(s)

        def codegen(context, builder, sig, args):
            if sig.args[0] == sig.return_type:
                return imputils.impl_ret_borrowed(context, builder, sig.return_type, args[0])
            return cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).meminfo

        return to(s), codegen

    @intrinsic
    def keep(typingctx, s):
        """The struct itself."""
        owned = s.owned if isinstance(s, View) else s

        def codegen(context, builder, sig, args):
            value = args[0] if sig.args[0] == owned else _payload(context, builder, owned, args[0])[1]
            return imputils.impl_ret_borrowed(context, builder, owned, value)

        return owned(s), codegen

    def _lent(context, builder, kind, value):
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, value=value)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            return array._getvalue()
        if isinstance(kind, types.BaseTuple):
            parts = [_lent(context, builder, k, builder.extract_value(value, i)) for i, k in enumerate(kind.types)]
            return context.make_tuple(builder, kind, parts)
        return value

    @intrinsic
    def lend(typingctx, arrays):
        """The tuple, whose arrays nobody counts."""

        def codegen(context, builder, sig, args):
            return _lent(context, builder, sig.return_type, args[0])

        return arrays(arrays), codegen

else:

    def lend(arrays: T) -> T:
        """The tuple."""
        return arrays

    def seen_as(struct_type: type) -> type:
        """The type."""
        return struct_type

    def view(s: T) -> T:
        """The struct."""
        return s

    def keep(s: T) -> T:
        """The struct."""
        return s
