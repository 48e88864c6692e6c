"""Where a number comes from: the commit of the checkout that made it."""

import subprocess
from pathlib import Path


def commit() -> str:
    """Commit of the checkout that runs; ``unknown`` outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    except OSError:  # no git
        return "unknown"
