"""Convert captured texts to facts: plain dicts and lists for JSON. The rules judge them."""

from __future__ import annotations

import re

from ..ascend import versions
from . import npu_smi, variables
from .capture import Capture
from .captured_lists import packages_and_rest, parse_env


def _known(env: dict[str, str]) -> dict[str, str]:
    """The variables of variables.py; of proxies only that they are set, because they contain passwords."""
    known = {name: value for name, value in sorted(env.items()) if name in variables.SHAPES}
    return {
        name: "<set>" if variables.SHAPES[name] == variables.PRESENT else value
        for name, value in known.items()
    }


def _board(smi: npu_smi.NpuSmi, name: str) -> str | None:
    found = [page[name] for page in smi.details if page.get(name, "NA") not in ("", "NA", "-")]
    return found[0] if found else None


def _cann(capture: Capture, env: dict[str, str]) -> dict:
    info = versions.parse_toolkit(capture.files.get("ascend_toolkit_install.info", ""))
    cfg = versions.parse_version_cfg(capture.files.get("version.cfg", ""))
    home = env.get("ASCEND_HOME_PATH") or env.get("ASCEND_TOOLKIT_HOME")
    in_path = re.search(r"(?:ascend-toolkit/|cann-)(\d[\w.-]{0,40})", home or "")
    stated = {
        "ascend_toolkit_install.info": info["version"],
        "version.cfg": cfg["version"],
        "ASCEND_HOME_PATH": in_path.group(1) if in_path else None,
    }
    stated = {where: version for where, version in stated.items() if version}
    source = next(iter(stated), None)
    return {
        **info,
        "version": stated[source] if source else None,
        "source": source,
        "stated": stated,
        "version_cfg": cfg,
        "home": home,
    }


def collect(capture: Capture) -> dict:
    """All facts in the captured files. A missing fact is None, [] or {}.

    Keys: npus, one dict per chip (id, chip, name, health, hbm_total_mib, hbm_used_mib, processes, ...); cann,
    driver, firmware, each {version, innerversion, ...}; packages, {normalised name: version}; env, the
    variables that affect an NPU; missing and unread, {file: why it is not there, or says nothing}.
    """
    env = parse_env(capture.files.get("env.txt", ""))
    packages, strange = packages_and_rest(capture.files.get("pip-list.txt", ""))
    smi = npu_smi.parse(capture.files.get("npu-smi.txt", ""))
    driver = versions.parse_driver(capture.files.get("driver_version.info", ""))
    driver["source"] = "driver_version.info" if driver["version"] else None
    if not driver["version"]:  # npu-smi is part of the driver package and has its version
        driver["version"] = _board(smi, "Software Version") or smi.version
        driver["source"] = "npu-smi" if driver["version"] else None
    firmware = versions.parse_firmware(capture.files.get("firmware_version.info", ""))
    firmware["source"] = "firmware_version.info" if firmware["version"] else None
    if not firmware["version"]:
        firmware["version"] = _board(smi, "Firmware Version")
        firmware["source"] = "npu-smi" if firmware["version"] else None
    chips = []
    for chip in smi.chips:
        kind = versions.chip_kind(chip.name, chip.memory_total_mib, chip.hbm_total_mib)
        chips.append({**chip.as_dict(), "generation": kind["generation"] if kind else None})
    return {
        "npus": chips,
        "npu_count": len({chip.id for chip in smi.chips}) or smi.card_count or 0,
        "npu_smi": {"version": smi.version, "complaint": smi.complaint, "pages": smi.details},
        "cann": _cann(capture, env),
        "driver": driver,
        "firmware": firmware,
        "packages": packages,
        "package_lines_not_understood": strange,
        "env": _known(env),
        "missing": capture.notes,
        "unread": capture.unread,
        "paths": capture.paths,
    }
