"""torch.autocast("npu"), with the usual lists of operators that run in the lower precision or in fp32."""

from __future__ import annotations

import torch

from ..ascend.operator_facts import AUTOCAST_FLOAT32, AUTOCAST_LOWER

Tensor = torch.Tensor


def _kernel(op, lower: bool):
    key = torch._C.DispatchKey.AutocastPrivateUse1  # type: ignore[attr-defined]  # missing in the stubs
    autocast = torch._C.DispatchKeySet(key)

    def run(*args, **kwargs):
        dtype = torch.get_autocast_dtype("npu") if lower else torch.float32

        def cast(value):
            if isinstance(value, Tensor):
                eligible = value.is_floating_point() and value.dtype is not torch.float64 and not value.is_cpu
                return value.to(dtype) if eligible else value
            return [cast(x) for x in value] if type(value) in (list, tuple) else value

        with torch._C._ExcludeDispatchKeyGuard(autocast):
            return op(*[cast(a) for a in args], **{k: cast(v) for k, v in kwargs.items()})

    return run


def install(operators_library) -> list:
    """Register kernels on the autocast key; other operators fall through. Returns libraries to keep alive."""
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for names, lower in ((AUTOCAST_LOWER, True), (AUTOCAST_FLOAT32, False)):
        for name in names:
            packet, _, overload = name.partition(".")
            op = getattr(getattr(torch.ops.aten, packet), overload or "default")
            operators_library.impl(name, _kernel(op, lower), "AutocastPrivateUse1")
    return [everything]
