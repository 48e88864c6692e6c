"""Where a number comes from: the commit of the checkout that made it."""

import subprocess
from functools import cache
from pathlib import Path

_CARDS = [f":(exclude)zoo/models/*/{name}" for name in ("README.md", "tests.json")]


@cache
def commit(*folders: Path) -> str:
    """Commit of the checkout that runs, at its first call; ``unknown`` outside of one.

    Marked ``-changed`` where the package differs from the commit, or one of the other folders whose code runs. Cards
    and their tests do not count: ``spikingir evaluate --card`` writes them, and nothing that is measured reads them.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    try:
        # installed within somebody's repository, the package is no part of it
        found = (git("ls-files", here.name) and git("rev-parse", "--short", "HEAD")) or "unknown"
        changed = found != "unknown" and git("status", "--porcelain", "-uno", ".", *map(str, folders), *_CARDS)
        return found + "-changed" * bool(changed)
    except OSError:  # no git
        return "unknown"
