"""How this package was installed, and settings that other packages read from the environment."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def install_command(requirement: str, *, alone: bool = False) -> str:
    """The command that adds a package to this installation, by the tool that made it: pipx, uv or pip.

    Args:
        requirement: The package, or this one with an extra, such as ``spikingir[web]``.
        alone: Without what the package asks for.
    """
    prefix = Path(sys.prefix)
    quoted = f"'{requirement}'" if "[" in requirement else requirement
    if (prefix / "pipx_metadata.json").exists():
        return f"pipx inject {prefix.name} {quoted}" + " --pip-args=--no-deps" * alone
    if (prefix / "uv-receipt.toml").exists() and not alone:
        return f"uv tool install --with {quoted} {prefix.name}"
    pip = f"uv pip install --python '{prefix}'" if _is_of_uv(prefix) else "pip install"
    return f"{pip} {'--no-deps ' * alone}{quoted}"


def _is_of_uv(prefix: Path) -> bool:
    """Whether an environment is one of uv's, in which there is no pip."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # the system's Python
        return False
    return any(line.partition("=")[0].strip() == "uv" for line in lines)


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Settings that hold as long as the context is open, and are then what they were before."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
