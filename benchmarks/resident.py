"""How much memory this process has taken, as the operating system accounts for it."""

import re
import sys
from pathlib import Path


def resident_peak() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes).

    Not ``ru_maxrss``, where there is better: Linux keeps that across ``exec``, so that a child begins with the peak of
    the process that started it.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        import resource  # not on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6
