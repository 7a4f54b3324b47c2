"""The commands of README.md; needs nothing but Python 3.10 to 3.13 and makes its own environment in `.venv`.

python tasks.py demo [--out DIR]     the shipped example case: evidence in, faces and candidates out
python tasks.py test [PYTEST ARGS]   style, types and all tests; one closing line
python tasks.py train ARGS           make the embedded model again (the arguments of `identiface train`)
python tasks.py run|gallery ARGS     any other command of `identiface`
python tasks.py install              only make the environment

The environment is made at the first call and again when pyproject.toml or constraints.txt change.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "identiface-stamp"
STOPPED = 130
"""Exit code after Ctrl-C."""
OLDEST, NEWEST = (3, 10), (3, 13)
IMPORTS = "import torch, numpy, safetensors.torch, faiss, PIL.Image, rich.console, diffusers, pytest"
SUPPORTED = f"import pip, sys; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"


def main(arguments: list[str]) -> int:
    """Run one command; the exit code is that of the program it starts."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        print(
            f"IdentiFace needs Python {version(OLDEST)} to {version(NEWEST)}; "
            f"this is {version(sys.version_info)} ({sys.executable}).\n"
            f"Start it with another one, for example: python{version(NEWEST)} tasks.py ...",
            file=sys.stderr,
        )
        return 2
    commands = ("demo", "test", "train", "run", "gallery", "install")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if arguments[0] not in commands:
        print(f"unknown command '{arguments[0]}': choose one of {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        problem = install()
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on with the installation.", file=sys.stderr)
        return STOPPED
    if problem:
        print(problem, file=sys.stderr)
        return 1
    if arguments[0] == "install":
        return 0
    if arguments[0] == "test":
        return test(arguments[1:])
    return call(venv_python(), "-m", "identiface_core", *arguments)


def version(numbers: Sequence[object]) -> str:
    return ".".join(str(number) for number in numbers[:2])


def venv_python() -> str:
    return str(VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python")


def call(*command: str, cwd: Path | None = None, quiet: bool = False) -> int:
    """The exit code of `command`, or STOPPED. Ctrl-C reaches the child too, which ends in its own way."""
    environment = dict(os.environ, PYTHONUTF8="1", PYTHONPATH=str(ROOT))
    # On shared cores, threads that spin while waiting take the time from those that work.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    out = subprocess.DEVNULL if quiet else None
    stopped = False
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=out) as process:
        while True:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                stopped = True
            else:
                return STOPPED if stopped and code else code


def install() -> str:
    """Make `.venv` fit pyproject.toml and constraints.txt; return what went wrong, or "" when all is well."""
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted_stamp() and usable():
        return ""
    for attempt in ("update", "from scratch"):
        if attempt == "from scratch" or not usable():
            problem = create()
            if problem:
                return problem
        print(f"Installing into {VENV} (a few minutes the first time) ...", flush=True)
        STAMP.unlink(missing_ok=True)
        pip = [venv_python(), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        if not sys.stdout.isatty():
            pip.append("--quiet")
        pinned = ("--constraint", str(ROOT / "constraints.txt"))
        # torch goes first, so that the build chosen for this machine is the one that everything else meets.
        failed = (
            call(*pip, *pinned, "torch", "numpy", "setuptools")
            or call(*pip, *pinned, "--no-build-isolation", "--editable", f"{ROOT}[dev,train,photos]")
            # controlnet-aux asks for torchvision, which it can do without as we use it.
            or call(*pip, *pinned, "--no-deps", "controlnet-aux", "einops")
            or call(venv_python(), "-c", IMPORTS)
        )
        if failed == STOPPED:
            raise KeyboardInterrupt
        if not failed:
            STAMP.write_text(wanted_stamp(), encoding="utf-8")
            return ""
    return (
        "The installation did not succeed; the message above says why. Check the network, the free disk\n"
        f"space and pip's settings, then start again: what is already in {VENV} is used again."
    )


def usable() -> bool:
    return Path(venv_python()).exists() and call(venv_python(), "-c", SUPPORTED, quiet=True) == 0


def create() -> str:
    print(f"Making {VENV} with Python {version(sys.version_info)} ...", flush=True)
    try:
        venv.EnvBuilder(with_pip=True, clear=True).create(VENV)
    except (OSError, subprocess.CalledProcessError) as error:
        return (
            f"Python's venv module cannot make {VENV}: {error}\n"
            "On Debian and Ubuntu install the package python3-venv; else check that the folder is writable."
        )
    return ""


def wanted_stamp() -> str:
    digest = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def test(arguments: list[str]) -> int:
    """ruff, mypy, then pytest with `arguments`; all three run, and the last line sums up."""
    python, start = venv_python(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        checks = (
            ("ruff", "check", "."),
            ("mypy",),
            ("pytest", f"--junitxml={report}", *arguments),
        )
        failed = []
        for check in checks:
            code = call(python, "-m", *check, cwd=ROOT)
            if code == STOPPED:
                return STOPPED
            if code:
                failed.append(check[0])
        counts = summary(report)
    verdict = f"FAILED ({', '.join(failed)})" if failed else "PASSED (ruff, mypy, pytest)"
    print(f"{verdict}: {counts}, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


def summary(report: Path) -> str:
    """How many tests passed, failed and were skipped, from pytest's JUnit file."""
    try:
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return "no tests were run"
    total, skipped, failures, errors = (
        sum(int(suite.get(name, "0")) for suite in suites)
        for name in ("tests", "skipped", "failures", "errors")
    )
    bad = failures + errors
    return f"{total - skipped - bad} tests passed, {bad} failed, {skipped} skipped"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
