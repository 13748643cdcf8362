"""Profiles: the abilities of a simulated NPU, as data.

A profile is a JSON object in a file of `deskocr_kit/ascend/data/profiles/`, or in any file. Its entries:

    name         required
    description  what the profile describes
    source       the source of this knowledge
    device       {"name", "count", "memory_gib", "out_of_memory"}; out_of_memory is "torch" or "runtime",
                 the type of the error that is raised
    half         "round" (default): fp16 is computed in fp32 and rounded after each operator
                 "native": fp16 is computed as the CPU computes it
    block        the operators without a kernel: [operator] or {operator: kind of failure}
    allow        instead of `block`: the only operators that have a kernel (views always work)
    missing      kind of failure of the operators for which `block` names none (see KINDS)
    via          {operator: the operator that it becomes on the device}, for the text of the warning
    rules        [rule]: restrictions on some calls of an operator

A rule is an object:

    operators    [operator]
    when         the condition; without one the rule always applies; of several entries one is enough:
                   {"dtypes": [dtype]}             argument 0 has one of these dtypes, such as "float16"
                   {"dtypes_other_than": [dtype]}  argument 0 has none of these dtypes
                   {"mask_broadcasts": true}       argument 1 has another shape than argument 0
    then         a kind of failure, or "ai-cpu": correct and counted, slow on a card
    why, source  the reason and its source
    warning      the text of the warning that the device prints

An operator is "aten::name" or "aten::name.overload"; "aten::name.*" means all overloads.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

FOLDER = Path(__file__).with_name("data") / "profiles"
DEFAULT = "as-published"

#: The four reactions of a real device to a missing operator.
KINDS = ("cpu-fallback", "not-in-libopapi", "call-failed", "not-implemented")
#: torch's names, as in str(tensor.dtype): a rule with another word would never hold.
DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
    "complex32", "complex64", "complex128",
)  # fmt: skip


class ProfileError(ValueError):
    """A profile is invalid; the message names the file, the entry and the allowed values."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A restriction on some calls of an operator. The first rule with a true condition decides."""

    operators: tuple[str, ...]
    then: str
    when: dict = dataclasses.field(default_factory=dict)
    why: str = ""
    source: str = ""
    warning: str = ""

    def applies(self, args: tuple) -> bool:
        if not self.when:
            return True
        first = args[0] if args else None
        dtype = str(getattr(first, "dtype", "")).removeprefix("torch.")
        if dtype in self.when.get("dtypes", ()):
            return True
        if dtype and "dtypes_other_than" in self.when and dtype not in self.when["dtypes_other_than"]:
            return True
        return bool(self.when.get("mask_broadcasts")) and len(args) > 1 and args[0].shape != args[1].shape


@dataclasses.dataclass(frozen=True)
class Profile:
    """The description of a simulated device. `load` and `from_dict` create and check it."""

    name: str
    description: str = ""
    source: str = ""
    device_name: str = "Ascend910-sim"
    device_count: int = 1
    memory_gib: float = 64.0
    out_of_memory: str = "torch"
    half: str = "round"
    missing: str = "not-implemented"
    block: dict = dataclasses.field(default_factory=dict)
    allow: frozenset | None = None
    via: dict = dataclasses.field(default_factory=dict)
    rules: tuple = ()

    def kind_of(self, operator: str) -> str | None:
        """The kind of failure of `operator` ("aten::name.overload"), or None if it has a kernel."""
        if self.allow is not None:
            return None if _among(operator, self.allow) else self.missing
        for name in (operator, operator.partition(".")[0] + ".*"):
            if name in self.block:
                return self.block[name]
        return None

    def rules_of(self, operator: str) -> list[Rule]:
        return [rule for rule in self.rules if _among(operator, rule.operators)]

    def restricted(self) -> set[str]:
        """All operators that the profile removes or restricts.

        `x.*` in a rule is not included, because it only concerns overloads with a kernel.
        """
        return set(self.block) | {n for rule in self.rules for n in rule.operators if not n.endswith(".*")}


def _among(operator: str, names) -> bool:
    return operator in names or operator.partition(".")[0] + ".*" in names


def available() -> list[str]:
    """Names of the included profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load(profile: str | Path | dict | Profile = DEFAULT) -> Profile:
    """Load a profile by name, from a JSON file, or from a dict. Raises ProfileError if it is invalid."""
    if isinstance(profile, Profile):
        return profile
    if isinstance(profile, dict):
        return from_dict(profile, "the given dict")
    path = FOLDER / f"{profile}.json"
    if not path.is_file():
        path = Path(profile)
    if not path.is_file():
        known = ", ".join(available())
        raise ProfileError(f"no profile {str(profile)!r}: use one of {known}, or the path of a JSON file")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProfileError(f"{path}: not JSON: {error}") from error
    return from_dict(data, str(path))


def from_dict(data: dict, where: str = "profile") -> Profile:
    """Check plain data and convert it to a Profile."""
    if not isinstance(data, dict):
        raise ProfileError(f"{where}: a profile is an object, not a {type(data).__name__}")
    allowed = {"name", "description", "source", "device", "half", "block", "allow", "missing", "via", "rules"}
    _only(data, allowed, where)
    if not isinstance(data.get("name"), str) or not data["name"]:
        raise ProfileError(f'{where}: "name" is missing')
    if "block" in data and "allow" in data:
        raise ProfileError(f'{where}: give "block" or "allow", not both')
    device = data.get("device", {})
    _only(device, {"name", "count", "memory_gib", "out_of_memory"}, f"{where}: device")
    missing = _one_of(data.get("missing", "not-implemented"), KINDS, f"{where}: missing")
    block = data.get("block", {})
    if not isinstance(block, dict):
        block = dict.fromkeys(block, missing)
    for name, kind in block.items():
        _one_of(kind, KINDS, f"{where}: block: {name}")
    rules = []
    for i, rule in enumerate(data.get("rules", [])):
        place = f"{where}: rules[{i}]"
        _only(rule, {"operators", "when", "then", "why", "source", "warning"}, place)
        when = rule.get("when", {})
        _only(when, {"dtypes", "dtypes_other_than", "mask_broadcasts"}, f"{place}: when")
        for dtype in (*when.get("dtypes", ()), *when.get("dtypes_other_than", ())):
            _one_of(dtype, DTYPES, f"{place}: when: dtype")
        _one_of(rule.get("then"), (*KINDS, "ai-cpu"), f"{place}: then")
        rules.append(Rule(**{**rule, "operators": tuple(_names(rule.get("operators", []), place))}))
    count = device.get("count", 1)
    if not isinstance(count, int) or not 1 <= count <= 16:
        raise ProfileError(f"{where}: device count {count!r}: expected an integer from 1 to 16")
    return Profile(
        name=data["name"],
        description=data.get("description", ""),
        source=data.get("source", ""),
        device_name=device.get("name", Profile.device_name),
        device_count=count,
        memory_gib=float(device.get("memory_gib", Profile.memory_gib)),
        out_of_memory=_one_of(
            device.get("out_of_memory", "torch"), ("torch", "runtime"), f"{where}: out_of_memory"
        ),
        half=_one_of(data.get("half", "round"), ("round", "native"), f"{where}: half"),
        missing=missing,
        block={_names([n], where)[0]: kind for n, kind in block.items()},
        allow=frozenset(_names(data["allow"], where)) if "allow" in data else None,
        via=data.get("via", {}),
        rules=tuple(rules),
    )


def _only(data: dict, allowed: set, where: str) -> None:
    for key in data:
        if key not in allowed:
            raise ProfileError(f"{where}: unknown entry {key!r}; allowed: {', '.join(sorted(allowed))}")


def _one_of(value, allowed, where: str):
    if value not in allowed:
        raise ProfileError(f"{where}: {value!r} is not one of {', '.join(allowed)}")
    return value


def _names(names, where: str) -> list[str]:
    for name in names:
        if not isinstance(name, str) or not name.startswith("aten::"):
            raise ProfileError(f"{where}: {name!r} is not an operator name such as 'aten::convolution'")
    return list(names)
