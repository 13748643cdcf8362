"""Rules for the card: npu-smi, memory and its users, device nodes, permissions, container mounts."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..ascend import errors, versions
from .case import Case
from .report import Row

# The official checkpoint: 6,672,212,480 bytes of bf16 (its index file's total_size). Activations come on top.
WEIGHTS_MIB = 6363
COMFORT_MIB = 10 * 1024
SHOWN = 16  # processes of one chip in a row
MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
NO_SMI = "Container: -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi -v /usr/local/dcmi:/usr/local/dcmi"
MOUNTS = ("/usr/local/dcmi", "/usr/local/Ascend/driver/lib64", "/usr/local/Ascend/driver/version.info")


def rules(case: Case) -> Iterator[Row]:
    missing = case.capture.notes.get("npu-smi.txt", "not captured")
    given = missing != "not captured" and "npu-smi.txt" not in case.capture.unread
    if not case.hardware and not case.live and given and case.package("torch-npu"):
        # torch-npu was installed for a card, so a missing card is a finding
        yield Row("NPU", "npu-smi", "WARN", missing, f"{NO_SMI} Or this machine has no NPU driver.")
        return
    if not case.hardware:
        where = "here" if case.live else "in these files"
        yield Row(
            "NPU",
            "NPU",
            "SKIP",
            f"no NPU {where}: no card, driver or npu-smi. This kit runs on the CPU or on npu-sim.",
        )
        return
    if case.live:
        yield from _nodes(case)
        yield from _mounts(case)
        yield from _libraries(case)
    yield from _npu_smi(case)
    yield from _chips(case)


def label(chip: dict) -> str:
    number = "?" if chip["id"] is None else chip["id"]
    several = chip["chip"] or chip["phy_id"] is not None or chip["logic_id"] is not None
    return f"NPU {number}" + (f" chip {chip['chip']}" if several else "")


def _nodes(case: Case) -> Iterator[Row]:
    if not case.nodes:
        remedy = "Container: --device /dev/davinci0 (one per card). Host: install or load the driver."
        yield Row("NPU", "device nodes", "FAIL", "no /dev/davinciN", remedy)
        return
    names = ", ".join(node.name for node in case.nodes)
    lost = [name for name in MANAGERS if not case.at(f"/dev/{name}").exists()]
    closed = [node for node in case.nodes if not os.access(node, os.R_OK | os.W_OK)]
    if lost:
        flags = " ".join(f"--device /dev/{name}" for name in lost)
        yield Row(
            "NPU",
            "device nodes",
            "FAIL",
            f"{names}, but no {', '.join(lost)}",
            f"Container: start it with {flags}",
        )
    elif closed:
        group = _group(case)
        yield Row(
            "NPU", "device nodes", "FAIL", f"{closed[0]}: no permission for this user (group {group})",
            f"sudo usermod -aG {group} $USER   then log in again; container: docker run --group-add {group}",
        )  # fmt: skip
    else:
        yield Row("NPU", "device nodes", "OK", f"{names}; {', '.join(MANAGERS)}")


def _group(case: Case) -> str:
    """The driver's group, from /etc/ascend_install.info."""
    try:
        text = case.at("/etc/ascend_install.info").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "HwHiAiUser"
    found = [line.split("=", 1)[1].strip() for line in text.splitlines() if line.startswith("UserGroup=")]
    return found[0] if found and found[0] else "HwHiAiUser"


def _in_container(case: Case) -> bool:
    if case.at("/.dockerenv").exists() or case.at("/run/.containerenv").exists():
        return True
    try:
        text = case.at("/proc/1/cgroup").read_text(errors="replace")
    except OSError:
        return False
    return any(word in text for word in ("docker", "kubepods", "containerd", "libpod"))


def _mounts(case: Case) -> Iterator[Row]:
    if not _in_container(case):
        return
    lost = [path for path in MOUNTS if not case.at(path).exists()]
    if lost:
        flags = " ".join(f"-v {path}:{path}" for path in lost)
        yield Row(
            "NPU", "container mounts", "WARN", f"not mounted: {', '.join(lost)}", f"docker run ... {flags}"
        )
    else:
        yield Row("NPU", "container mounts", "OK", ", ".join(MOUNTS))


def _libraries(case: Case) -> Iterator[Row]:
    if not case.libraries:
        return
    bad = {name: why for name, why in case.libraries.items() if why != "ok"}
    optional = bad.pop("libatb.so", None)
    if bad:
        listed = "; ".join(f"{name}: {why}" for name, why in bad.items())
        known = errors.explain("\n".join(f"ImportError: {why}" for why in bad.values()))
        remedy = (
            known[0].remedy
            if known
            else "Source CANN's set_env.sh; `ldd` of the library lists what is missing."
        )
        yield Row("NPU", "libraries", "FAIL", f"cannot be loaded: {listed}", remedy)
    else:
        yield Row(
            "NPU",
            "libraries",
            "OK",
            f"{len(case.libraries) - bool(optional)} libraries of CANN and driver can be loaded",
        )
    if optional:
        remedy = "Only ATB operators need it: source /usr/local/Ascend/nnal/atb/set_env.sh"
        yield Row("NPU", "NNAL (ATB)", "SKIP", f"libatb.so: {optional}", remedy)


def _npu_smi(case: Case) -> Iterator[Row]:
    smi, probe = case.facts["npu_smi"], case.probes.get("npu-smi")
    if case.facts["npus"]:
        cards, dies = case.facts["npu_count"], len(case.facts["npus"])
        seen = f"{cards} card(s), {dies} chip(s)" if dies != cards else f"{cards} card(s)"
        yield Row("NPU", "npu-smi", "OK", seen + (f", version {smi['version']}" if smi["version"] else ""))
        return
    message = smi["complaint"] or (probe.how if probe and probe.state != "ok" else "")
    if message:
        known = errors.explain(message)
        remedy = (
            known[0].remedy
            if known
            else "Run `npu-smi info` in a terminal; if it hangs, reload the driver or reboot."
        )
        if probe and probe.state == "missing":
            yield Row("NPU", "npu-smi", "WARN", message, NO_SMI)
        else:
            yield Row("NPU", "npu-smi", "FAIL", message, remedy)
    else:
        yield Row(
            "NPU", "npu-smi", "SKIP", f"npu-smi.txt: {case.capture.notes.get('npu-smi.txt', 'not captured')}"
        )


def _health(chip: dict) -> str:
    """OK, WARN or FAIL. A page without a health field counts as OK."""
    word = (chip["health"] or "OK").upper()
    return "OK" if word == "OK" else "WARN" if word.startswith("WARN") else "FAIL"


def _chips(case: Case) -> Iterator[Row]:
    chips = case.facts["npus"]
    if not chips:
        return
    yield from _generations(chips)
    states = {label(chip): _health(chip) for chip in chips}
    sick = [f"{label(chip)}: {chip['health']}" for chip in chips if _health(chip) != "OK"]
    if sick:
        # One healthy card is enough, so a faulty one beside it is only a warning.
        status = "FAIL" if all(state == "FAIL" for state in states.values()) else "WARN"
        first = next(chip for chip in chips if _health(chip) != "OK")
        ask = f"npu-smi info -t health -i {first['id']} -c {first['chip']}"
        remedy = f"{ask}   names the fault; ASCEND_RT_VISIBLE_DEVICES can exclude a card."
        yield Row("NPU", "health", status, "; ".join(sick), remedy)
    elif any(chip["health"] for chip in chips):
        yield Row("NPU", "health", "OK", "all chips report OK")
    yield from _memory([chip for chip in chips if _health(chip) != "FAIL"] or chips)


def _generations(chips: list[dict]) -> Iterator[Row]:
    for name in dict.fromkeys(chip["name"] for chip in chips):
        mine = [chip for chip in chips if chip["name"] == name]
        kind = versions.chip_kind(name, mine[0]["memory_total_mib"], mine[0]["hbm_total_mib"])
        where = f"{len(mine)} x {name}" if len(mine) > 1 else str(name)
        if name is None:
            yield Row("NPU", "chip", "SKIP", "these pages do not name the chip")
        elif name.startswith("IT"):  # `-t board` names the board, not its chip
            yield Row("NPU", "chip", "SKIP", f"board {name}; `npu-smi info` names its chip")
        elif kind is None:
            yield Row("NPU", "chip", "WARN", f"{where}: this chip is not in this kit's table")
        elif kind["generation"] in ("A2", "A3", "950"):
            large = name.endswith("910B4") and (mine[0]["hbm_total_mib"] or 0) > 32768
            yield Row(
                "NPU",
                "chip",
                "OK",
                f"{where}: {kind['title']}" + (", the 64 GB variant 910B4-1" if large else ""),
            )
        elif kind["generation"] == "310":
            yield Row(
                "NPU",
                "chip",
                "FAIL",
                f"{where}: {kind['title']}, which torch_npu does not support",
                "Use a 910B, 910C or 310P.",
            )
        else:
            note = " (910B without a digit is not the A2 chip 910B1 - 910B4)" if name.endswith("910B") else ""
            yield Row(
                "NPU",
                "chip",
                "WARN",
                f"{where}: {kind['title']}{note}, no bf16",
                "Use --dtype float16; run `deskocr prove` first.",
            )


def _total(chip: dict) -> int:
    return chip["hbm_total_mib"] or chip["memory_total_mib"]


def _memory(chips: list[dict]) -> Iterator[Row]:
    known = [chip for chip in chips if chip["free_mib"] is not None]
    for chip in chips:
        if chip["processes"]:
            parts = []
            for process in chip["processes"][:SHOWN]:
                name = process["name"] or "name hidden: outside this container"
                size = "" if process["memory_mib"] is None else f" {process['memory_mib']} MiB"
                parts.append(f"pid {process['pid']} ({name}){size}")
            more = len(chip["processes"]) - SHOWN
            parts += [f"and {more} more"] if more > 0 else []
            yield Row("NPU", f"{label(chip)} in use", "OK", ", ".join(parts))
    if not known:
        yield Row("NPU", "free memory", "SKIP", "not reported by npu-smi")
        return
    best = max(known, key=lambda chip: chip["free_mib"])
    least = min(known, key=lambda chip: chip["free_mib"])
    shown = known if len(known) <= 4 else [best, least]
    free = "; ".join(f"{label(c)}: {c['free_mib']} of {_total(c)} MiB" for c in shown)
    if len(known) > 4:
        free = f"most and least of {len(known)} chips: {free}"
    if best["free_mib"] >= COMFORT_MIB:
        yield Row("NPU", "free memory", "OK", free)
        return
    holders = [p["pid"] for chip in known for p in chip["processes"]]
    remedy = (
        f"Stop the process that uses it (pid {', '.join(map(str, holders[:SHOWN]))})"
        if holders
        else "Look outside this container for the process that uses it"
    )
    if max(map(_total, known)) < WEIGHTS_MIB:
        remedy = "Use a card with more memory"
    if best["free_mib"] < WEIGHTS_MIB:
        seen = f"{free}; the official weights alone need {WEIGHTS_MIB} MiB in 16 bit"
        yield Row("NPU", "free memory", "FAIL", seen, f"{remedy}, or use the embedded nano checkpoint.")
    else:
        yield Row(
            "NPU",
            "free memory",
            "WARN",
            f"{free}; the official weights take {WEIGHTS_MIB} MiB of it, which leaves little",
            f"{remedy}; use a small mode.",
        )
