"""The four reactions of a device to a missing operator, with the messages of torch_npu and CANN.

A port must not rely on one class of exception or one message, so the simulator has them all. Each message
ends with a remark that it is simulated, so that no log of it is taken for that of a real card.
"""

from __future__ import annotations

import os
import time
import warnings

import torch

from ..ascend.profiles import Profile, Rule
from . import counters, kernels

Tensor = torch.Tensor


def apply(profile: Profile, survey: bool = False) -> None:
    """Replace the failures and rules in the kernel table by those of a profile.

    survey: operators that would raise are counted as refused and computed anyway, so that one run finds all.
    """
    kernels.table.update(kernels.plain)
    for name, body in kernels.plain.items():
        kind = None if name in kernels.always else profile.kind_of(name)
        if kind is not None:
            body = _failing(name, body, kind, profile, survey)
        for rule in reversed(profile.rules_of(name)):
            body = _ruled(name, body, rule, profile, survey)
        kernels.table[name] = body


def _failing(name: str, body, kind: str, profile: Profile, survey: bool):
    if kind == "cpu-fallback":
        return _fallback(name, body, profile)
    make_error = {
        "not-in-libopapi": _not_in_libopapi,
        "call-failed": _call_failed,
        "not-implemented": _not_implemented,
    }

    def refuse(*args, **kwargs):
        if counters.active:
            counters.note("refused", name)
        if survey:
            return body(*args, **kwargs)
        error = make_error[kind](name, f"{profile.name}; {counters.site()}")
        error.operator = name  # type: ignore[attr-defined]  # `prove` names it
        raise error

    return refuse


def _ruled(name: str, body, rule: Rule, profile: Profile, survey: bool):
    special = None if rule.then == "ai-cpu" else _failing(name, body, rule.then, profile, survey)
    warned: list[bool] = []

    def ruled(*args, **kwargs):
        if not rule.applies(args):
            return body(*args, **kwargs)
        if rule.warning and not warned:
            warned.append(True)
            _warn(rule.warning)
        if special is not None:
            return special(*args, **kwargs)
        if counters.active:
            counters.note("ai-cpu", name)
        return body(*args, **kwargs)

    return ruled


# ---------------------------------------------------------------------- the four ways
def _fallback(name: str, body, profile: Profile):
    """Copy inputs to the host, run the host's operator, copy results back; warn the first time."""
    shown = profile.via.get(name, name)
    warned: list[bool] = []

    def fallback(*args, **kwargs):
        if os.environ.get("TORCH_NPU_FALLBACK_CPU_DISABLE") == "1":
            raise RuntimeError(
                f"The operator '{shown}' would execute its main computation on CPU through dispatcher "
                "backend fallback because no kernel is registered for the NPU PrivateUse1 backend, but "
                "CPU fallback is disabled by TORCH_NPU_FALLBACK_CPU_DISABLE=1. ERR01007 OPS feature not "
                "supported (simulated)"
            )
        if not warned:
            warned.append(True)
            _warn(
                f"CAUTION: The operator '{shown}' is not currently supported on the NPU backend and will "
                "fall back to run on the CPU. This may have performance implications. (function "
                "npu_cpu_fallback)"
            )
        given = [(tensor, tensor.shape) for tensor in _tensors((args, tuple(kwargs.values())))]
        if counters.active:
            counters.note("fallback", shown)
            counters.note("sync", f"{shown} (CPU fallback)")
            for tensor, _ in given:
                counters.note("d2h", shown, tensor.nbytes)
        with _unrecorded():
            result = body(*args, **kwargs)
        if any(tensor.shape != shape for tensor, shape in given):
            raise RuntimeError(
                "_copy_from_and_resize now only support copy with same size! ERR01007 OPS feature not "
                f"supported (simulated, profile {profile.name}: give {shown} an out= of the right size)"
            )
        for tensor in _tensors(result) if counters.active else ():
            counters.note("h2d", shown, tensor.nbytes)
        return result

    return fallback


def _not_in_libopapi(name: str, where: str) -> Exception:
    aclnn = _aclnn(name)
    return RuntimeError(
        f"{aclnn} or {aclnn}GetWorkspaceSize not in libopapi.so, or libopapi.sonot found. (simulated, "
        f"profile {where})"
    )


def _call_failed(name: str, where: str) -> Exception:
    stamp = time.strftime("%Y-%m-%d-%H:%M:%S")
    short = name.removeprefix("aten::").partition(".")[0]
    return RuntimeError(
        f"{short}:build/CMakeFiles/torch_npu.dir/compiler_depend.ts:26 NPU function error: call "
        f"{_aclnn(name)} failed, error code is 561103\n[ERROR] {stamp} (PID:{os.getpid()}, Device:0, "
        f"RankID:-1) ERR00100 PTA call acl api failed. (simulated, profile {where})"
    )


def _not_implemented(name: str, where: str) -> Exception:
    return NotImplementedError(
        f"Could not run '{name}' with arguments from the 'npu' backend. This could be because the operator "
        "doesn't exist for this backend, or was omitted during the selective/custom build process (if "
        f"using custom build). (simulated, profile {where})"
    )


# ---------------------------------------------------------------------- helpers
def _aclnn(name: str) -> str:
    """aten::masked_scatter_ -> aclnnInplaceMaskedScatter, by the naming rule of CANN's operator library."""
    packet = name.removeprefix("aten::").partition(".")[0]
    words = "".join(word.capitalize() for word in packet.split("_") if word)
    return "aclnn" + ("Inplace" if packet.endswith("_") else "") + words


def _warn(text: str) -> None:
    frame = counters.frame_of_caller()
    file, line = (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("<unknown>", 0)
    warnings.warn_explicit(text, UserWarning, file, line, registry={})


def _tensors(value):
    if isinstance(value, Tensor):
        if not value.is_cpu:
            yield value
    elif type(value) in (list, tuple):
        for item in value:
            yield from _tensors(item)


class _unrecorded:
    """Suspends recording: the host's part of a fallback is not a launch on the device."""

    def __enter__(self):
        self.kept = list(counters.active)
        counters.active.clear()

    def __exit__(self, *error):
        counters.active.extend(self.kept)
