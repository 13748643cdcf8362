"""Version files of CANN, driver and firmware; comparison of versions; documented pairs.

Every table is data in `data/ascend_versions.json`, which names its sources. Nothing is guessed: a pair that
no document mentions is "not documented", which is a warning and not an error.

    cann_releases       every release, oldest first; the last one counts as the newest
    torch_npu_sets      [{"torch_npu": [version], "cann": release or null, "branch": torch_npu's
                        branch}]; "?" marks a branch that no document names
    hdk_for_cann        [{"cann": release, "hdk": [driver versions]}], oldest first; HDK is Huawei's name
                        for driver and firmware together
    hdk_seen_with_cann  pairs that were seen to work, without a document
    recommended         the newest pair that the documents recommend
    branches_sharing_cann   branches of torch_npu whose wheels run on each other's CANN
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

DATA = Path(__file__).with_name("data")
# Limits for files that others made; the real ones are far below them.
KEY, VALUE = 100, 4000  # characters of a name, and of its value
VERSION, DIGITS = 80, 18  # characters of a version, and digits of a number in it


@lru_cache(maxsize=1)
def tables() -> dict:
    return json.loads((DATA / "ascend_versions.json").read_text(encoding="utf-8"))


def key(version: str | None) -> tuple:
    """Sort key for CANN, driver and wheel versions: 8.3.RC1 < 8.3.RC2 < 8.3.0 and 25.0.rc1.b010 < 25.0.rc1.1.

    Release candidates, test builds (Tn), alpha and beta come before the plain release; `.postN` after it.
    """
    # One pair per part, so that pre-release < end of version < post < a further number, at every position.
    version = (version or "")[:VERSION]
    ranks = {"t": (-5, 0), "alpha": (-4, 0), "beta": (-3, 0), "b": (-3, 0), "rc": (-2, 0), "post": (0, 1)}
    parts = [part[:DIGITS] for part in re.findall(r"[A-Za-z]+|\d+", version.split("+")[0].lower())]
    size = next((i for i, part in enumerate(parts) if not part.isdigit()), len(parts))
    numbers = parts[:size]
    while len(numbers) > 2 and int(numbers[-1]) == 0:
        numbers.pop()  # 8.5.0 equals 8.5
    numbers = [(1, int(part)) for part in numbers]
    tail = [(1, int(part)) if part.isdigit() else ranks.get(part, (0, 0)) for part in parts[size:]]
    return (*numbers, *tail, (0, 0))


def release(version: str | None) -> str | None:
    """Public part without build letters: "8.2.RC1.B150" -> "8.2.RC1", "9.0.0-beta.2" -> "9.0.0"."""
    match = re.match(r"\s*(\d+\.\d+(?:\.(?:RC|T)?\d+)?)", version or "", re.I)
    return match.group(1) if match else None


def minor(version: str | None) -> str | None:
    """ "2.6.0.post5" -> "2.6"."""
    match = re.match(r"(\d+\.\d+)", version or "")
    return match.group(1) if match else None


def _pairs(text: str) -> dict[str, str]:
    """`Key=Value` and `Key : Value` lines without comments, keys in lower case. The first value counts."""
    out: dict[str, str] = {}
    for line in text.replace("\r", "").lstrip("\ufeff").splitlines():
        mark = min((at for at in (line.find("="), line.find(":")) if at > 0), default=0)
        name = line[:mark].strip() if mark < KEY else ""
        if re.match(r"[A-Za-z][\w .-]*\Z", name):
            out.setdefault(name.lower(), line[mark + 1 : mark + 1 + VALUE].strip().strip("\"'"))
    return out


def _bare(text: str) -> str | None:
    """The version in a file that contains nothing else, for instance a file written by hand."""
    match = re.fullmatch(r"v?(\d+(?:\.\w+)+(?:-\w[\w.]*)?)", text[:VALUE].strip())
    return match.group(1)[:VERSION] if match else None


def _version(text: str | None) -> str | None:
    return text[:VERSION] if text else text


def _codes(text: str | None) -> list[str]:
    return re.findall(r"V\d+R\d+C\d+", text or "", re.I)


def _train(innerversion: str | None) -> str | None:
    match = re.match(r"V\d+R\d+C\d+", innerversion or "", re.I)
    return match.group().upper() if match else None


def parse_toolkit(text: str) -> dict:
    """Parse `ascend_toolkit_install.info` or a package's `version.info` (public version: `version_dir`)."""
    pairs = _pairs(text)
    version = pairs.get("version_dir") or pairs.get("version")
    version = version or next(
        (v for k, v in pairs.items() if k.startswith("ascend-cann-")), None
    )  # NNAL's form
    if not version and (match := re.search(r"(?:ascend-toolkit/|cann-)(\d[^/\s]*)", pairs.get("path", ""))):
        version = match.group(1)
    version = version or _bare(text)
    return {
        "version": _version(version and version.removeprefix("cann-")),
        "innerversion": pairs.get("innerversion"),
        "compatible_version": _codes(pairs.get("compatible_version")),
        "arch": pairs.get("arch"),
        "path": pairs.get("path"),
        "package_name": pairs.get("package_name"),
    }


def parse_version_cfg(text: str) -> dict:
    """Parse `version.cfg`: the part after the colon in `runtime_running_version=[7.6.0.1.220:8.0.0]`."""
    packages: dict[str, str] = {}
    pairs = _pairs(text)
    for name in sorted(pairs, key=lambda n: "running" in n):  # "running" replaces "installed"
        found = re.findall(r"\[([^\[\]]*)\]", pairs[name]) or re.findall(r"^\d\S*", pairs[name])
        if found and name.endswith("version"):
            package = re.sub(r"_(running|upgrade|installed)?_?version$", "", name)
            packages[package] = found[-1].split(":")[-1].strip()[:VERSION]
    values = list(packages.values())
    version = packages.get("toolkit") or packages.get("runtime") or (values[0] if values else None)
    version = version or _bare(text)
    return {"version": version, "packages": packages}


def parse_driver(text: str) -> dict:
    """Parse `driver/version.info`. `package_version` is preferred if present (24.1.rc1 has none)."""
    pairs = _pairs(text)
    firmware = re.findall(r"\[([\d.]+)\s*,\s*([\d.]+)\]", pairs.get("compatible_version_fw", ""))
    return {
        "version": _version(pairs.get("package_version") or pairs.get("version") or _bare(text)),
        "innerversion": pairs.get("innerversion"),
        "compatible_version": _codes(pairs.get("compatible_version")),
        "compatible_firmware": [list(pair) for pair in firmware],
    }


def parse_firmware(text: str) -> dict:
    pairs = _pairs(text)
    driver = re.findall(r"\[([\w.]+)\s*,\s*([\w.]+)\]", pairs.get("compatible_version_drv", ""))
    return {
        "version": _version(pairs.get("version") or pairs.get("firmware_version") or _bare(text)),
        "package_version": pairs.get("package_version"),
        "compatible_driver": [list(pair) for pair in driver],
    }


def set_of(torch_npu: str) -> dict | None:
    """The documented row of a torch_npu build, {"torch_npu": [...], "cann", "branch"}, or None."""
    wanted = torch_npu.split("+")[0]
    return next((row for row in tables()["torch_npu_sets"] if wanted in row["torch_npu"]), None)


def documented(torch_npu: str, cann: str) -> bool | None:
    """Whether this pair is documented. None if the document does not mention this torch_npu build."""
    row = set_of(torch_npu)
    if row is None or row["cann"] is None:
        return None
    if key(release(cann)) == key(row["cann"]):
        return True
    share = tables()["branches_sharing_cann"]
    return minor(row["branch"]) in share["branches"] and minor(cann) in share["cann"]


def builds_for(cann: str, torch: str | None = None) -> list[str]:
    """torch_npu builds documented for this CANN, those for the installed torch first."""
    rows = tables()["torch_npu_sets"]
    exact = [b for r in rows if r["cann"] and key(r["cann"]) == key(release(cann)) for b in r["torch_npu"]]
    if not exact:  # a patch release such as 8.5.2 or 8.3.RC2 uses the builds of its minor release
        exact = [b for r in rows if r["cann"] and minor(r["cann"]) == minor(cann) for b in r["torch_npu"]]
    mine = [b for b in exact if torch and minor(b) == minor(torch)]
    return mine or sorted(exact, key=key, reverse=True)


def driver_fits(cann: dict, driver: dict) -> tuple[str, str]:
    """Whether driver and CANN are compatible: ("OK" | "WARN" | "FAIL", reason).

    Each of the two files names the release trains (V100R001Cnn) that it was tested with; one match is enough.
    CANN 9 numbers its trains anew, so that the list in the release notes decides from there on.
    """
    cann_train, driver_train = _train(cann.get("innerversion")), _train(driver.get("innerversion"))
    version, hdk = cann.get("version"), driver.get("version")
    for row in tables()["hdk_for_cann"]:
        same_line = minor(row["cann"]) == minor(version)
        if hdk and same_line and any(key(hdk)[:2] == key(h)[:2] and key(hdk) >= key(h) for h in row["hdk"]):
            return "OK", f"the release notes of CANN {row['cann']} list driver {hdk} or an older one"
    for row in tables()["hdk_seen_with_cann"]:
        if (
            hdk
            and key(release(row["hdk"])) == key(release(hdk))
            and key(row["cann"]) == key(release(version))
        ):
            return "OK", f"public reports show driver {hdk} running with CANN {version}"
    if version and key(version) < key("9.0.0") and cann_train and driver_train:
        if cann_train in driver.get("compatible_version", []):
            return "OK", f"the driver lists the release train {cann_train} of CANN as compatible"
        if driver_train in cann.get("compatible_version", []):
            return "OK", f"CANN lists the release train {driver_train} of the driver as compatible"
        known = cann.get("compatible_version", [])
        if known and driver_train < min(known) and key(hdk) < key("26"):  # 26 numbers its trains anew
            return (
                "FAIL",
                f"the driver's release train {driver_train} is older than all that CANN lists "
                f"({min(known)} ...)",
            )
        return (
            "WARN",
            f"neither file lists the release train of the other (CANN {cann_train}, driver {driver_train})",
        )
    if not version or not hdk:
        return "WARN", "one of the two versions is unknown"
    listed = [row for row in tables()["hdk_for_cann"] if key(row["cann"]) <= key(release(version))]
    if listed:
        oldest = min(listed[-1]["hdk"], key=key)
        if key(hdk) >= key(oldest):
            return (
                "OK",
                f"driver {hdk} is not older than {oldest}, the oldest listed for CANN {listed[-1]['cann']}",
            )
        return "WARN", f"driver {hdk} is older than {oldest}, the oldest listed for CANN {listed[-1]['cann']}"
    return "WARN", "this pair is not documented"


def firmware_fits(driver: dict, firmware: dict) -> bool | None:
    """Whether the firmware is in a range that the driver accepts. None if either file does not say."""
    version, ranges = firmware.get("version"), driver.get("compatible_firmware") or []
    if not version or not ranges:
        return None
    depth = 3  # the ranges are written with three numbers, [7.0.0,7.7.99]

    def head(text: str) -> tuple[int, ...]:
        return tuple(int(part[:DIGITS]) for part in re.findall(r"\d+", text)[:depth])

    return any(head(low) <= head(version) <= head(high) for low, high in ranges)


def chip_kind(name: str | None, memory_mib: int | None = None, hbm_mib: int | None = None) -> dict | None:
    """The row of a chip's generation, or None. "910B" without a digit is the *first* 910.

    The first 910 has DDR in addition to 32 GiB of HBM.
    """
    for row in tables()["chips"]:
        if name and re.match(row["pattern"], name.strip(), re.I):
            if (
                row["generation"] == "A1"
                and re.search("910B$", name.strip())
                and not memory_mib
                and (hbm_mib or 0) > 32768
            ):
                return next(r for r in tables()["chips"] if r["generation"] == "A2")
            return row
    return None
