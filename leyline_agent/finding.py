"""Where the name of a policy leads: to an installed one, a module, or a file.

    keep_last            an entry point of the group `leyline.policies`
    my_package.mine.Mine a name in a module that Python can import
    ./mine.py:Mine       a name in a file

The last two run the code they name, so such text must come from the user: from the command line
or a program, never from a trajectory, a recording, a journal or a request.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from leyline_agent import options
from leyline_agent.errors import PolicyError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["OWN", "available", "find", "split_name"]

GROUP = "leyline.policies"

OWN = "one of your own is my_module.MyPolicy or ./my_file.py:MyPolicy"


def available() -> dict[str, EntryPoint]:
    """Names of the installed policies (entry points `leyline.policies`), not yet imported."""
    from importlib.metadata import entry_points  # A third of what importing this package costs.

    return {point.name: point for point in entry_points(group=GROUP)}


def split_name(spec: str) -> tuple[str, str]:
    """The name and the options of "name:options"; a file's name has a colon of its own.

    A path that holds "=", a comma or brackets is taken for options: make such a policy in Python.
    """
    file, colon, rest = spec.partition(".py:")
    if colon and not set(file) & set("=,()"):
        name, _, given = rest.partition(":")
        return f"{file.strip()}.py:{name.strip()}", given
    name, _, given = spec.partition(":")
    return name.strip(), given


def find(name: str) -> Any:
    """What `name` leads to: a class or an instance of policies, or a function.

    Raises:
        PolicyError: it leads nowhere, or to what cannot be imported.
    """
    file, is_file, inside = f"{name}:".partition(".py:")
    if is_file:
        inside = inside.rstrip(":")
        return _named(_module_of(f"{file}.py", inside), inside, f"{file}.py")
    if "/" in name:
        raise PolicyError(f"{name!r} is no policy; {OWN}")
    if "." in name:
        module, _, inside = name.rpartition(".")
        return _named(_imported(module, name), inside, module)
    return _installed(name)


def _installed(name: str) -> Any:
    found = available()
    if name not in found:
        raise PolicyError(
            f"no policy named {name!r}; {options.hint(name, found)}installed: "
            f"{', '.join(sorted(found)) or 'none'}; {OWN}"
        )
    try:
        loaded = found[name].load()
    except (ImportError, AttributeError) as error:
        raise PolicyError(
            f"policy {name!r} cannot be imported from {found[name].value!r}: {error}; repair or "
            "uninstall the package that offers it"
        ) from error
    if not callable(loaded) and not _is_policy(loaded):
        raise PolicyError(f"entry point {name!r} ({found[name].value}) is {loaded!r}, not a policy")
    return loaded


def _imported(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _unimportable(name, error) from error
        raise PolicyError(
            f"policy {name!r}: there is no module {error.name!r} that Python can import; install "
            "the package, or write the file: ./my_file.py:MyPolicy"
        ) from error
    except Exception as error:  # Whatever a user's module raises while it is imported.
        raise _unimportable(name, error) from error


def _module_of(file: str, inside: str) -> ModuleType:
    """The module of a file, run once a process, as imports are."""
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise PolicyError(f"policy {file}:{inside}: there is no file {path}")
    digest = hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()
    name = f"leyline_file_{digest}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # Annotations are looked up there while classes are made.
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _unimportable(f"{file}:{inside}", error) from error
    return module


def _named(module: ModuleType, name: str, where: str) -> Any:
    found = getattr(module, name, None) if name else None
    if found is not None and (callable(found) or _is_policy(found)):
        return found
    known = sorted(key for key, value in vars(module).items() if _is_own(value, key, module))
    there = f"policies in it: {', '.join(known)}" if known else "there is no policy in it"
    if not name:
        raise PolicyError(f"{where}: say which policy of it, {where}:{known[0] if known else 'P'}")
    if found is not None:
        raise PolicyError(f"{name} of {where} is {found!r:.80}, not a policy; {there}")
    raise PolicyError(f"{where} has no {name!r}; {options.hint(name, known)}{there}")


def _is_policy(value: object) -> bool:
    """Whether it is a policy or a class of policies; this module must not import them."""
    return hasattr(value, "propose")


def _is_own(value: object, key: str, module: ModuleType) -> bool:
    kind = value if isinstance(value, type) else type(value)
    imported = isinstance(value, type) and value.__module__ != module.__name__
    return _is_policy(kind) and not imported and not key.startswith("_")


def _unimportable(name: str, error: Exception) -> PolicyError:
    return PolicyError(f"policy {name!r} cannot be imported: {type(error).__name__}: {error}")
