"""Do on captured files what a remedy of doctor says, as a user would do on the machine."""

from __future__ import annotations

import re

from deskocr_kit.ascend import versions
from deskocr_kit.doctor.captured_lists import normal, parse_env, parse_pip
from tests.helpers.doctor_cases import GOOD, SET_ENV
from tests.helpers.paths import ASCEND

#: Remedies that change no file: they inform, or concern hardware that nobody can change from here.
INFORMATION = (
    "See the release notes of CANN",
    "npu-smi info -t health",
    "Use --dtype float16",
    "Run `deskocr prove` again",
    "In your own scripts",
    "Measure speed in a subprocess",
)
#: What pip would find; it takes the newest that fits, and keeps what is installed and fits.
RELEASED = {
    "numpy": ("1.24.4", "1.26.4", "2.1.0", "2.4.6"),
    "transformers": ("4.46.0", "4.57.1", "5.23.0"),
    "torch": ("2.5.1", "2.6.0", "2.7.1", "2.8.0", "2.9.0", "2.10.0", "2.12.0", "2.15.0"),
}


class CannotFollow(AssertionError):
    """A remedy that a user could not follow, or that pip would refuse."""


def good(name: str) -> str:
    """The content of a healthy machine's file."""
    value = GOOD[name]
    sample = ASCEND / value if len(value) < 200 and "\n" not in value else None
    return sample.read_text("utf-8") if sample and sample.is_file() else value


def follow(files: dict[str, str], remedy: str) -> list[dict[str, str]]:
    """The files after the remedy, one result for each alternative; [] if it only informs."""
    if any(words in remedy for words in INFORMATION):
        return []
    return [_one(dict(files), each) for each in re.split(r" ; or (?=install|pip)", remedy)]


def _one(files: dict[str, str], remedy: str) -> dict[str, str]:
    done = False
    if match := re.search(r"Capture it again: .*?([\w.-]+\.(?:txt|info|cfg))(?: \.)?$", remedy):
        files[match[1]] = good(match[1]) if match[1] in GOOD else ""
        return files
    if match := re.search(r"\binstall CANN (\d[\w.]*\w)", remedy, re.I):
        _install_cann(files, match[1])
        done = True
    if match := re.search(r"\(HDK\) to (\S+?)(?: or|\.$)", remedy):
        files["driver_version.info"] = f"Version={match[1]}\n"
        files.pop("firmware_version.info", None)
        done = True
    if "Two CANN installations" in remedy or "same version of all CANN packages" in remedy:
        files.pop("version.cfg", None)
        done = True
    if "same HDK" in remedy:
        low = versions.parse_driver(files["driver_version.info"])["compatible_firmware"][0][0]
        files["firmware_version.info"] = f"Version={low}.1\n"
        done = True
    if re.search(r"Stop the|Container: |container|Use a (?:910B|card)|outside this container", remedy):
        files["npu-smi.txt"] = good("npu-smi.txt")
        done = True
    for command in re.split(r" ; |, then: ", remedy):
        done |= _command(files, command.strip())
    if not done:
        raise CannotFollow(f"nothing to do in {remedy!r}")
    return files


def _command(files: dict[str, str], command: str) -> bool:
    env = parse_env(files.get("env.txt", ""))
    command = re.sub(r"   \(.*", "", command)  # a note for the reader
    if command.startswith("pip uninstall -y "):
        gone = {normal(name) for name in command.removeprefix("pip uninstall -y ").split()}
        packages = parse_pip(files["pip-list.txt"]).items()
        kept = [f"{name}=={version}" for name, version in packages if normal(name) not in gone]
        files["pip-list.txt"] = "\n".join(kept) + "\n"
        return True
    if command.startswith("pip install "):
        _pip(files, command)
    elif match := re.match(r"export (\w+)=(\S+)", command):
        _write(files, env | {match[1]: match[2]})
    elif match := re.match(r"unset ((?:\w+ ?)+)", command):
        _write(files, {name: value for name, value in env.items() if name not in match[1].split()})
    elif match := re.match(r"source (\S+)/set_env\.sh", command):
        _source(files, match[1])
    else:
        return False
    return True


def _write(files: dict[str, str], env: dict[str, str]) -> None:
    files["env.txt"] = "".join(f"{name}={value}\n" for name, value in env.items())


def _source(files: dict[str, str], folder: str) -> None:
    home = folder if folder.endswith("cann") else f"{folder}/latest"
    script = parse_env(SET_ENV.format(home=home))
    _write(files, parse_env(files.get("env.txt", "")) | script)


def _install_cann(files: dict[str, str], version: str) -> None:
    if not any(versions.key(version) == versions.key(known) for known in versions.tables()["cann_releases"]):
        raise CannotFollow(f"there is no CANN {version}")
    sample = (ASCEND / "cann" / "ascend_toolkit_install.info_8.5.0").read_text("utf-8")
    files["ascend_toolkit_install.info"] = sample.replace("8.5.0", version)
    files.pop("version.cfg", None)
    new = versions.key(version) >= versions.key("8.5.0")
    _source(files, "/usr/local/Ascend/cann" if new else "/usr/local/Ascend/ascend-toolkit")


def _pip(files: dict[str, str], command: str) -> None:
    packages = parse_pip(files.get("pip-list.txt", ""))
    wanted = [word.strip('"') for word in command.removeprefix("pip install ").split()]
    pins = {}
    for requirement in wanted:
        match = re.match(r"([\w-]+?)(?:\[\w+\])?((?:[<>=!]=?[\w.]+,?)+)$", requirement)
        if not match:
            raise CannotFollow(f"pip cannot read {requirement!r} in {command!r}")
        pins[normal(match[1])] = [
            re.match(r"([<>=!]=?)(.+)", each).groups() for each in match[2].split(",") if each
        ]
    for name, limits in pins.items():
        exact = [version for sign, version in limits if sign == "=="]
        if exact:
            packages[name] = exact[0]
        elif name not in packages or not _fits(packages[name], limits):
            packages[name] = next(v for v in reversed(RELEASED[name]) if _fits(v, limits))
    build = packages.get("torch-npu")
    if build and "torch-npu" in pins:
        if not any(build in row["torch_npu"] for row in versions.tables()["torch_npu_sets"]):
            raise CannotFollow(f"there is no torch-npu {build}")
        if versions.key(packages["torch"]) != versions.key(versions.torch_of(build)):
            raise CannotFollow(f"pip refuses torch {packages['torch']} with torch-npu {build}")
    files["pip-list.txt"] = "".join(f"{name}=={version}\n" for name, version in packages.items())


def _fits(version: str, limits: list[tuple[str, str]]) -> bool:
    have = versions.key(version)
    return all(
        have >= versions.key(limit) if sign == ">=" else have < versions.key(limit) for sign, limit in limits
    )
