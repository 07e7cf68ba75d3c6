from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyline_evals.solve import sandbox
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.sandbox import Bounds, command

BOUNDS = Bounds(memory=1 << 30, disk=4 << 20, processes=32)
PATH = {"PATH": "/usr/bin:/bin", "HOME": "/scratch"}

try:
    sandbox.require("bubblewrap")
    missing = ""
except EvalError as error:
    missing = str(error)
needs_bubblewrap = pytest.mark.skipif(bool(missing), reason=missing)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found out about this machine on another PATH."""
    yield
    sandbox._bubblewrap_problem.cache_clear()
    sandbox._docker_problem.cache_clear()


def run(script: str, *read_only: Path, bounds: Bounds = BOUNDS) -> subprocess.CompletedProcess[str]:
    words = command("bubblewrap", read_only, ["/scratch", "/tmp"], PATH, bounds)
    return subprocess.run(
        [*words, "bash", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


@needs_bubblewrap
def test_of_the_machine_only_what_is_named_is_there(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("yes\n")
    made = run(
        f"cat {tmp_path}/here; echo x > {tmp_path}/here; ls {Path.home()} /etc/passwd; pwd",
        tmp_path,
    )
    assert made.stdout.split() == ["yes", "/scratch"]
    assert "Read-only file system" in made.stderr
    assert made.stderr.count("No such file or directory") == 2
    assert (tmp_path / "here").read_text() == "yes\n"


def installed(root: Path) -> Path:
    """A copy of the evaluations, as an installation at a prefix leaves it."""
    ours = root / "lib" / "python3.12" / "site-packages" / "leyline_evals"
    for name in ("tasks/templates/hidden.py", "debug_gym/child/main.py"):
        (ours / name).parent.mkdir(parents=True)
        (ours / name).write_text(f"{name}\n")
    (ours.parent / "other.py").write_text("other\n")
    return ours


@needs_bubblewrap
@pytest.mark.parametrize("place", ["", "local", "envs/one", "link", "lib64"])
@pytest.mark.parametrize("is_system", [True, False])
def test_installed_evaluations_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, is_system: bool
) -> None:
    root = tmp_path / "base"
    ours = installed(root if place in ("link", "lib64") else root / place)
    if place == "link":
        root = tmp_path / "link"
        root.symlink_to("base")
        ours = root / ours.relative_to(tmp_path / "base")
    if place == "lib64":
        (root / "lib64").symlink_to("lib")
    if is_system:
        monkeypatch.setattr(sandbox, "SYSTEM", (*sandbox.SYSTEM, str(tmp_path / "base")))
    look = f"find {tmp_path} -name '*.py' | xargs cat; touch {ours}/a; ls {ours}/debug_gym"
    made = run(look, root, ours / "debug_gym" / "child")
    assert sorted(made.stdout.split()) == sorted(["debug_gym/child/main.py", "other", "child"])
    assert "Read-only file system" in made.stderr


@needs_bubblewrap
def test_the_evaluations_that_run_cannot_be_read_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "src" / "leyline" / "evals" / "leyline_evals"
    ours.mkdir(parents=True)
    (ours / "gold.patch").write_text("gold\n")
    monkeypatch.setattr(sandbox, "OURS", ours)
    assert run(f"find {tmp_path} -type f", tmp_path).stdout == ""
    assert run(f"cat {ours}/gold.patch", ours / "gold.patch").stdout == "gold\n"


@needs_bubblewrap
def test_there_is_no_network() -> None:
    made = run("cat /proc/net/dev | tail -n +3 | cut -d: -f1; (echo > /dev/tcp/127.0.0.1/9) 2>&1")
    assert made.stdout.split()[0] == "lo"
    assert "refused" in made.stdout


@needs_bubblewrap
def test_only_scratch_can_be_written_and_it_has_a_size() -> None:
    made = run("touch /scratch/a /tmp/b && touch /c; touch /dev/d; touch /usr/e")
    assert made.stderr.count("Read-only file system") == 3
    made = run("for n in 1 2 3; do head -c 2000000 /dev/zero > /scratch/$n; done; du -s /scratch")
    assert "No space left on device" in made.stderr
    assert int(made.stdout.split()[0]) <= 4096


@needs_bubblewrap
def test_a_folder_of_the_machine_can_be_worked_in(tmp_path: Path) -> None:
    words = sandbox.bubblewrap([], ["/tmp"], PATH, BOUNDS, {tmp_path: "/testbed"})
    subprocess.run([*words, "bash", "-c", "pwd > there"], timeout=60, check=True)
    assert (tmp_path / "there").read_text() == "/testbed\n"


@needs_bubblewrap
def test_variables_of_the_parent_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    made = run("env")
    assert "secret" not in made.stdout
    assert "HOME=/scratch" in made.stdout


@needs_bubblewrap
def test_it_has_no_rights_and_sees_only_its_processes() -> None:
    made = run("grep CapEff /proc/self/status; ls /proc | grep -c '^[0-9]'; ulimit -u -c -f")
    assert "CapEff:\t0000000000000000" in made.stdout
    assert int(made.stdout.splitlines()[1]) < 8


@needs_bubblewrap
@pytest.mark.skipif(os.getuid() == 0, reason="the kernel lets root's processes be")
def test_processes_are_counted() -> None:
    made = run("for n in $(seq 99); do sleep 3 & done; wait")
    assert "Resource temporarily unavailable" in made.stderr


def test_memory_of_a_process_is_limited_without_a_sandbox_too() -> None:
    words = command("none", (), (), PATH, BOUNDS)
    script = "x = bytearray(2 << 30)"
    made = subprocess.run(
        [*words, sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "MemoryError" in made.stderr


def test_a_missing_bubblewrap_is_told_with_the_install_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EvalError, match="apt-get install bubblewrap.*--sandbox docker"):
        sandbox.require("bubblewrap")
    with pytest.raises(EvalError, match="not installed"):
        sandbox.require("docker")
    sandbox.require("none")


@pytest.mark.parametrize("name", ["bwrap", "docker"])
def test_one_that_does_not_work_here_says_why(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / name
    program.write_text("#!/bin/sh\necho 'No permissions to create a new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    kind = "bubblewrap" if name == "bwrap" else "docker"
    with pytest.raises(EvalError, match="No permissions to create a new namespace"):
        sandbox.require(kind)


def test_a_container_has_what_a_bubblewrap_has(tmp_path: Path) -> None:
    words = " ".join(sandbox.docker([tmp_path], ["/scratch"], PATH, BOUNDS))
    assert "--network none --read-only --cap-drop ALL" in words
    assert f"--volume {tmp_path}:{tmp_path}:ro" in words
    assert "--pids-limit 32 --memory 1073741824 --memory-swap 1073741824" in words
    assert f"--tmpfs /scratch:rw,exec,size={4 << 20}" in words
    ours = installed(tmp_path)
    assert f"--tmpfs {ours}:size=1m,mode=755" in " ".join(
        sandbox.docker([tmp_path], ["/scratch"], PATH, BOUNDS)
    )
    assert words.index("--workdir /scratch") < words.index("debian:stable-slim prlimit")
