from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from leyline_agent import cli
from leyline_agent.cli import checks
from leyline_agent.cli.checks import Check
from leyline_agent.cli.doctor import DoctorReport, report
from leyline_agent.serving.kernels.dispatch import VARIABLE
from leyline_agent.serving.models import embedded


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", *arguments])
    return int(stop.value.code or 0)


def find(name: str) -> Check:
    return next(check for check in report().checks if check.name == name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_json_validates_and_the_status_is_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    status = run("--json")
    found = DoctorReport.model_validate_json(capsys.readouterr().out)
    seen = {check.status for check in found.checks}
    assert found.status == next(s for s in ("fail", "warn", "ok") if s in seen)
    assert status == (1 if found.status == "fail" else 0)


def test_the_text_shows_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    out = capsys.readouterr().out
    for check in report().checks:
        assert check.name in out
        assert check.todo in out


def test_a_check_that_is_not_ok_says_what_to_do() -> None:
    for check in report().checks:
        assert check.status == "ok" or check.todo, check.name


def test_a_missing_model_is_a_warning(home: Path) -> None:
    found = find(f"model {embedded.DEFAULT}")
    assert (found.status, found.todo) == ("warn", "leyline models fetch")


def test_a_changed_model_is_a_failure(home: Path) -> None:
    weights = embedded.KNOWN[embedded.DEFAULT]
    target = home / "models" / weights.file
    target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        file.truncate(weights.size)
    assert find(f"model {embedded.DEFAULT}").status == "fail"
    assert run() == 1


def test_a_data_folder_that_is_a_file(home: Path) -> None:
    home.write_text("not a folder")
    found = find("data folder")
    assert found.status == "fail"
    assert "LEYLINE_HOME" in found.todo


@pytest.mark.parametrize(
    ("value", "status"), [("passive", "ok"), ("PASSIVE", "ok"), ("active", "warn"), (None, "warn")]
)
def test_the_wait_policy(monkeypatch: pytest.MonkeyPatch, value: str | None, status: str) -> None:
    if value is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", value)
    assert find("OMP_WAIT_POLICY").status == status


def test_packages_are_told_apart() -> None:
    assert checks._package("pydantic", "tests").detail == importlib.metadata.version("pydantic")
    missing = checks._package("no_such_package", "tests", extra="serve")
    assert missing.status == "warn"
    assert "leyline-agent[serve]" in missing.todo
    assert checks._package("no_such_package", "a GPU").status == "ok"


def test_a_shadowing_folder_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shadow_of_torch").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert checks._package("shadow_of_torch", "tests").status == "warn"


def test_a_lost_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "lost-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lost\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[leyline.policies]\nlost = no_such_package.x:Lost\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = find("plugins")
    assert found.status == "fail"
    assert "lost = no_such_package.x:Lost" in found.detail


def test_the_kernels_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(checks, "_gpu_driver", lambda: "")
    assert find("kernels").detail == "torch: the device is cpu"
    monkeypatch.setenv(VARIABLE, "cuda")
    assert find("kernels").status == "fail"
    assert "set auto, torch or triton" in find("kernels").detail


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(checks, "_gpu_driver", lambda: "NVRM version: 570")
    found = find("kernels")
    assert (found.status, found.detail) == ("warn", "torch: the device is cpu")
    assert "build of torch" in found.todo
    monkeypatch.setenv(VARIABLE, "fast")
    assert find("kernels").status == "fail"
    assert "LEYLINE_KERNELS=fast is not known" in find("kernels").detail


@pytest.mark.gpu
def test_a_gpu_gets_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert find("kernels").detail == "triton: Triton sees the GPU"


def test_llama_cpp_goes_by_another_name_than_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "llama_cpp.py").touch()
    assert find("llama.cpp").status == "warn"
    about = tmp_path / "llama_cpp_python-0.3.36.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Name: llama-cpp-python\nVersion: 0.3.36\n")
    found = find("llama.cpp")
    assert (found.status, found.detail) == ("ok", "llama-cpp-python 0.3.36")
