"""The commit is that of the package's own checkout, or unknown."""

import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from spikingir import provenance


def test_a_strangers_repository_is_none_of_ours(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*arguments: str) -> str:
        author = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        command = ["git", "-C", str(tmp_path), *author, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    git("commit", "--allow-empty", "-m", "theirs")
    package, beside = tmp_path / "package", tmp_path / "beside"
    card, weights = (package / "zoo" / "models" / "one" / name for name in ("README.md", "snn.safetensors"))
    card.parent.mkdir(parents=True)
    beside.mkdir()
    file = Path(shutil.copy(provenance.__file__, package))
    (beside / "code.py").write_text("", encoding="utf-8")
    spec = spec_from_file_location("copied", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.commit() == "unknown"
    for of_model in (card, weights):
        of_model.write_text("", encoding="utf-8")
    git("add", str(package), str(beside))
    git("commit", "-m", "ours")
    module.commit.cache_clear()
    found = module.commit()
    assert found == git("rev-parse", "--short", "HEAD")
    (beside / "code.py").write_text("changed = True\n", encoding="utf-8")
    assert module.commit(beside) == found + "-changed"
    module.commit.cache_clear()
    assert module.commit() == found
    card.write_text("measured", encoding="utf-8")
    module.commit.cache_clear()
    assert module.commit() == found
    weights.write_text("trained", encoding="utf-8")
    module.commit.cache_clear()
    assert module.commit() == found + "-changed"
    git("commit", "-a", "-m", "weights")
    module.commit.cache_clear()
    found = module.commit()
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    git("commit", "--allow-empty", "-m", "later")
    assert module.commit() == found  # of the code that was loaded
    module.commit.cache_clear()
    assert module.commit() == git("rev-parse", "--short", "HEAD") + "-changed"
