"""Where a number comes from: the commit of the checkout that made it."""

import subprocess
from pathlib import Path


def commit() -> str:
    """Commit of the checkout that runs; ``unknown`` outside of one."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    try:
        # installed within somebody's repository, the package is no part of it
        return (git("ls-files", here.name) and git("rev-parse", "--short", "HEAD")) or "unknown"
    except OSError:  # no git
        return "unknown"
