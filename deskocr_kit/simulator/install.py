"""Install the simulated NPU in this process, and change its profile."""

from __future__ import annotations

import contextlib
import sys

import torch

from ..ascend import operator_facts
from ..ascend.dispatch import kernels_for_composites
from ..ascend.profiles import DEFAULT, Profile, ProfileError, load
from . import (
    autocast,
    backend,
    composite,
    failures,
    guard,
    kernels,
    linear,
    memory,
    patches,
    recurrent,
    special,
    state,
    stub,
)


class RealNpuPresent(RuntimeError):
    """A real torch_npu (or another PrivateUse1 backend) is active in this process."""


_libraries: list = []  # a torch.library.Library removes its kernels when it is deleted
_profile: Profile | None = None


def installed() -> bool:
    """Whether this process has the simulated NPU."""
    return _profile is not None


def profile() -> Profile:
    """The profile in use. Raises RuntimeError before `install`."""
    if _profile is None:
        raise RuntimeError("the simulated NPU is not installed: call deskocr_kit.simulator.install() first")
    return _profile


def install(
    profile=DEFAULT, device_count: int | None = None, half: str | None = None, torch_npu_stub: bool = False
):
    """Make "npu" a device of this process and return the Profile in use.

    This cannot be undone; a second call only changes the profile.

    Args:
        profile: name, path of a JSON file, dict, or Profile.
        device_count: overrides that of the profile.
        half: "round" or "native"; overrides that of the profile.
        torch_npu_stub: make `import torch_npu` import a stand-in.

    Raises:
        RealNpuPresent: a real torch_npu is active.
        ProfileError: the profile is invalid.
    """
    chosen = load(profile)
    if not installed():
        _check_alone()
        module = backend.build()
        guard.install(module)
        sys.modules["torch.npu"] = module  # the C++ lazy initialisation imports it by name
        _register_kernels()
        patches.storages()
        patches.loading()
        patches.generators()
        patches.streams()
        patches.accelerator(module)
        # From 2.13 on, a real torch_npu imported later aborts the process ("multiple backend fallbacks").
        # None hides it from programs that probe for it, such as transformers.
        sys.modules.setdefault("torch_npu", None)  # type: ignore[arg-type]
    if torch_npu_stub and not getattr(sys.modules.get("torch_npu"), "simulated", False):
        stub.install()
    return use(chosen, device_count=device_count, half=half)


def use(profile, device_count: int | None = None, half: str | None = None, survey: bool = False) -> Profile:
    """Change the profile of the installed device and return it. Existing tensors do not change.

    Args: as for `install`; survey: operators that would raise are counted as "refused" and computed anyway.
    """
    global _profile
    chosen = load(profile)
    if half not in (None, "round", "native"):
        raise ProfileError(f'half={half!r}: use "round" (fp16 computed in fp32) or "native"')
    if torch._C._get_privateuse1_backend_name() != "npu":
        raise RuntimeError("the simulated NPU is not installed: call deskocr_kit.simulator.install() first")
    state.round_half = (half or chosen.half) == "round"
    state.device_count = device_count or chosen.device_count
    state.current = min(state.current, state.device_count - 1)
    full = torch.OutOfMemoryError if chosen.out_of_memory == "torch" else RuntimeError
    memory.resize(state.device_count, int(chosen.memory_gib * memory.GIB), full)
    named = f"{chosen.device_name} (simulated)"
    torch.npu.get_device_name = lambda device=None: named  # type: ignore[attr-defined]  # our module
    for name in chosen.restricted():
        _make_blockable(name)
    failures.apply(chosen, survey)
    _profile = chosen
    return chosen


@contextlib.contextmanager
def using(profile, device_count: int | None = None, half: str | None = None, survey: bool = False):
    """`use` as a context manager, which restores the profile."""
    before, count, rounded = _profile, state.device_count, "round" if state.round_half else "native"
    try:
        yield use(profile, device_count, half, survey)
    finally:
        use(before, count, rounded)


def _check_alone() -> None:
    real = sys.modules.get("torch_npu")
    name = torch._C._get_privateuse1_backend_name()
    if real is not None or hasattr(torch, "npu") or name != "privateuseone":
        raise RealNpuPresent(
            f"the device {name!r} is already active in this process"
            + (" (torch_npu is imported)" if real is not None else "")
            + ": use that device; to use the simulated NPU instead, start Python with "
            "TORCH_DEVICE_BACKEND_AUTOLOAD=0 and do not import torch_npu"
        )


def _register_kernels() -> None:
    library = torch.library.Library("aten", "IMPL")
    _libraries.append(library)
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    own = special.all_kernels()
    kernels.always.update(own)
    whole = kernels_for_composites() - operator_facts.LEFT_TO_PYTORCH
    for name in torch._C._dispatch_get_all_op_names():
        if not name.startswith("aten::") or name in operator_facts.ONE_KERNEL:
            continue
        if name in own:
            kernels.register(library, name, own[name])
        elif (
            name in whole
            or name in recurrent.FUSED
            or has_kernel(name, "CPU")
            or has_kernel(name, "CompositeExplicitAutogradNonFunctional")
        ):
            try:
                body = recurrent.body_of(name) or kernels.make(name)
            except AttributeError:  # in the dispatcher, but not in torch.ops, so it cannot be called
                continue
            kernels.register(library, name, body)
    for name in operator_facts.ONE_KERNEL:
        composite.register(library, name, composite.body_of(name))
    linear.register(library)
    library.impl("_has_compatible_shallow_copy_type", special.compatible_shallow_copy, "AutogradPrivateUse1")
    for name in ("_copy_from", "_copy_from_and_resize"):
        # Otherwise resolving a conjugate view would clone, which copies, which resolves again, without end.
        for key in ("Conjugate", "Negative", "ZeroTensor"):
            library.impl(name, torch.library.fallthrough_kernel, key)
    library.impl("_pin_memory", special.pin_memory, "CPU")
    library.impl("is_pinned", special.is_pinned, "CPU")
    _libraries.extend(autocast.install(library))


def _make_blockable(name: str) -> None:
    """Register a kernel that decomposes an operator, so that a profile can replace it by a failure.

    A profile can name an operator that PyTorch decomposes above the backend.
    """
    packet, _, overload = name.removeprefix("aten::").partition(".")
    if overload == "*":
        found = getattr(torch.ops.aten, packet, None)
        for each in found.overloads() if found is not None else ():
            _make_blockable(f"aten::{packet}" + ("" if each == "default" else f".{each}"))
        return
    if name in kernels.plain or name in kernels.always:
        return
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    try:
        op = kernels.operator(name)
    except AttributeError:
        return  # an operator of another torch version
    if name not in torch._C._dispatch_get_all_op_names():
        return  # TorchScript's own, such as sort.int
    library = _libraries[0]
    if has_kernel(name, "CompositeImplicitAutograd"):
        composite.register(library, name, op.decompose, blockable=True)
    elif has_kernel(name, "CompositeExplicitAutograd"):
        kernels.register(
            library, name, lambda *args, **kwargs: op.redispatch(kernels.CPU_KEYS, *args, **kwargs)
        )
