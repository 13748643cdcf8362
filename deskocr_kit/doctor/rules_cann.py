"""Rules for CANN, driver, firmware and set_env.sh."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from ..ascend import versions
from ..ascend.versions import key
from .case import Case
from .report import Row


def rules(case: Case) -> Iterator[Row]:
    yield from _cann(case)
    yield from _driver(case)
    yield from _set_env(case)


def _cann(case: Case) -> Iterator[Row]:
    cann = case.facts["cann"]
    files = ("ascend_toolkit_install.info", "version.cfg")
    if not case.cann:
        unreadable = [
            f"{n}: {case.capture.notes[n]}" for n in files if "readable" in case.capture.notes.get(n, "")
        ]
        unread = [name for name in files if name in case.capture.unread]
        if unread:
            yield Row("CANN", "CANN", "SKIP", f"no version: {' and '.join(unread)} said nothing, see Files")
        elif unreadable:
            yield Row(
                "CANN",
                "CANN",
                "WARN",
                "; ".join(unreadable),
                "Read it as root, or add yourself to the group HwHiAiUser.",
            )
        elif case.live and case.hardware:
            remedy = (
                "Install CANN (toolkit and the operator package for your chip), or use an image with CANN."
            )
            yield Row("CANN", "CANN", "FAIL", "no CANN found under /usr/local/Ascend or ~/Ascend", remedy)
        elif case.live:
            yield Row("CANN", "CANN", "SKIP", "not installed, and not needed: no NPU here")
        else:
            yield Row("CANN", "CANN", "SKIP", "its version files were not captured")
        return
    seen = f"{case.cann} (from {case.capture.paths.get(cann['source'], cann['source'])})"
    newest = versions.tables()["cann_releases"][-1]
    others = {
        w: v
        for w, v in cann["stated"].items()
        if key(versions.release(v)) != key(versions.release(case.cann))
    }
    machine = platform.machine()
    if others:
        stated = ", ".join(f"{where} states {version}" for where, version in others.items())
        yield Row(
            "CANN",
            "CANN",
            "WARN",
            f"{seen}, but {stated}",
            "Two CANN installations are mixed: unset the ASCEND_* variables, then source ONE set_env.sh.",
        )
    elif case.live and cann["arch"] and cann["arch"] != machine:
        yield Row(
            "CANN",
            "CANN",
            "FAIL",
            f"{seen} is for {cann['arch']}, this machine is {machine}",
            f"Install CANN for {machine}.",
        )
    elif key(case.cann) > key(newest):
        yield Row(
            "CANN",
            "CANN",
            "WARN",
            f"{seen}: newer than the newest release in this kit's tables ({newest})",
            "Run `deskocr prove` again with it.",
        )
    elif not any(key(versions.release(case.cann)) == key(r) for r in versions.tables()["cann_releases"]):
        known = [r for r in versions.tables()["cann_releases"] if key(r) > key(case.cann)]
        yield Row(
            "CANN",
            "CANN",
            "WARN",
            f"{seen}: not in this kit's tables; the next known release is {known[0]}",
        )
    else:
        yield Row("CANN", "CANN", "OK", seen)
    packages = set(cann["version_cfg"]["packages"].values())
    if len(packages) > 1:
        listed = ", ".join(f"{k} {v}" for k, v in cann["version_cfg"]["packages"].items())
        yield Row(
            "CANN",
            "CANN packages",
            "WARN",
            f"different versions: {listed}",
            "Install the same version of all CANN packages.",
        )


def _driver(case: Case) -> Iterator[Row]:
    driver, firmware, cann = case.facts["driver"], case.facts["firmware"], case.facts["cann"]
    if not driver["version"]:
        note = case.capture.notes.get("driver_version.info", "")
        if case.live and case.hardware:
            remedy = (
                "Container: -v /usr/local/Ascend/driver/version.info:/usr/local/Ascend/driver/version.info"
            )
            yield Row("CANN", "driver", "WARN", f"version not readable: {note}", remedy)
        else:
            yield Row(
                "CANN",
                "driver",
                "SKIP",
                "no NPU driver here" if case.live else f"driver_version.info: {note or 'no version in it'}",
            )
        return
    yield Row("CANN", "driver", "OK", f"{driver['version']} (from {driver['source']})")
    if case.cann:
        status, why = versions.driver_fits(cann, driver)
        remedy = ""
        if status != "OK":
            listed = [r for r in versions.tables()["hdk_for_cann"] if key(r["cann"]) >= key(case.cann)]
            best = (listed or versions.tables()["hdk_for_cann"])[-1 if not listed else 0]
            remedy = f"Upgrade driver and firmware (HDK) to {' or '.join(best['hdk'])}."
            if status == "WARN" and key(case.cann) < key(versions.tables()["hdk_for_cann"][0]["cann"]):
                remedy = f"See the release notes of CANN {case.cann} for the matching driver (HDK)."
        yield Row(
            "CANN", "driver + CANN", status, f"driver {driver['version']}, CANN {case.cann}: {why}", remedy
        )
    if firmware["version"]:
        fits = versions.firmware_fits(driver, firmware)
        seen = f"{firmware['version']} (from {firmware['source']})"
        if fits is False:
            ranges = ", ".join(f"{low} - {high}" for low, high in driver["compatible_firmware"])
            remedy = "Install firmware and driver of the same HDK, firmware first, then reboot."
            yield Row("CANN", "firmware", "WARN", f"{seen}; the driver accepts {ranges}", remedy)
        else:
            yield Row("CANN", "firmware", "OK", seen + ("; accepted by the driver" if fits else ""))
    elif case.hardware:
        yield Row(
            "CANN",
            "firmware",
            "SKIP",
            f"firmware_version.info: {case.capture.notes.get('firmware_version.info', 'no version in it')}",
        )


def _set_env(case: Case) -> Iterator[Row]:
    if "env.txt" not in case.capture or not (case.cann or case.hardware or case.homes):
        return
    env = case.facts["env"]
    home = env.get("ASCEND_HOME_PATH") or env.get("ASCEND_TOOLKIT_HOME")
    script = _script(case)
    again = f"source {script}   (before Python or Jupyter starts; a Jupyter kernel does not read ~/.bashrc)"
    status = "FAIL" if case.hardware or case.package("torch-npu") else "WARN"
    if not home:
        if case.cann or case.homes:
            yield Row(
                "CANN",
                "set_env.sh",
                status,
                "not sourced in this process: ASCEND_HOME_PATH is not set",
                again,
            )
        return
    if case.live and not case.at(home).is_dir():
        yield Row(
            "CANN",
            "set_env.sh",
            status,
            f"ASCEND_HOME_PATH={home} does not exist",
            f"unset ASCEND_HOME_PATH ; {again}",
        )
        return
    lost = [name for name in ("ASCEND_OPP_PATH",) if not env.get(name)]
    paths = env.get("LD_LIBRARY_PATH", "")
    if not any(mark in paths for mark in (home.rstrip("/"), "ascend-toolkit", "/cann")):
        lost.append("LD_LIBRARY_PATH with CANN's lib64")
    if lost:
        yield Row("CANN", "set_env.sh", "WARN", f"only partly in effect: {' and '.join(lost)} not set", again)
    else:
        yield Row("CANN", "set_env.sh", "OK", f"ASCEND_HOME_PATH={home}")
    if "PYTHONPATH" not in env:
        yield Row(
            "CANN", "PYTHONPATH", "WARN", "not set: Python will not find the packages of CANN (tbe)", again
        )


def _script(case: Case) -> str:
    """Path of the set_env.sh to source: an existing one, else the default of this CANN version."""
    for home in case.homes:
        for path in (f"{home}/set_env.sh", f"{home}/../set_env.sh"):
            if case.at(path).exists():
                return str(path).replace("/latest/../", "/")
    if case.cann and key(case.cann) < key("8.5.0"):
        return "/usr/local/Ascend/ascend-toolkit/set_env.sh"
    if case.cann:
        return "/usr/local/Ascend/cann/set_env.sh"
    return (
        "/usr/local/Ascend/cann/set_env.sh   (before CANN 8.5: /usr/local/Ascend/ascend-toolkit/set_env.sh)"
    )
