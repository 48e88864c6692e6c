"""Photographs restored on a Ray cluster of this machine: a head, and two workers that can be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikingir.cli import main
from spikingir.restoration import cluster as module
from spikingir.restoration.batch import Options
from spikingir.restoration.choice import Wishes
from spikingir.restoration.cluster import ClusterError, restore_on_cluster
from spikingir.restoration.jobs import plan
from spikingir.store import StorageError

pytest.importorskip("ray", reason="Ray is not installed: make test-ray installs it and runs these")

# Ray leaves sockets and files to the end of the process
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

COUNT = 8
PATIENCE = 300  # seconds


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    small = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    cluster.wait_for_nodes(PATIENCE)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(COUNT):
        noise = np.random.default_rng(seed).integers(0, 256, (700, 900), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{seed}.png", compress_level=1)
    return folder


@pytest.fixture(scope="module")
def expected(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine makes of the photographs."""
    out = tmp_path_factory.mktemp("expected")
    assert main(["denoise", str(photos), "-o", str(out), "--model", str(tiny_model), "--quiet"]) == 0
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(photos: Path, out: Path, tiny_model: Path, address: str, *others: str) -> list[str]:
    arguments = ["denoise", str(photos), "-o", str(out), "--model", str(tiny_model), "--ray", address, *others]
    return [sys.executable, "-m", "spikingir.cli", *arguments]


def busy(node: Any) -> list[int]:
    """Processes of a node that restore a photograph at this moment."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title, parent = (
                (folder / "cmdline").read_bytes(),
                int((folder / "stat").read_text().split(")")[1].split()[1]),
            )
        except OSError:  # ended meanwhile
            continue
        if parent == raylet.process.pid and title.startswith(b"ray::_restore"):
            found.append(int(folder.name))
    return found


def kill_process(cluster: Any, node: Any) -> None:
    """The process that restores, as when memory runs out; its node lives on."""
    for process in busy(node):
        os.kill(process, signal.SIGKILL)


def kill_node(cluster: Any, node: Any) -> None:
    """A whole machine of the cluster, as when its plug is pulled."""
    cluster.remove_node(node, allow_graceful=False)


def test_a_cluster_does_what_one_machine_does(
    ray_cluster: Any, photos: Path, expected: dict[str, bytes], tiny_model: Path, tmp_path: Path
) -> None:
    broken = photos / "broken.png"
    broken.write_bytes((photos / "0.png").read_bytes()[:-100])
    empty = photos / "empty.jpg"
    empty.touch()
    report = tmp_path / "report.json"
    arguments = command(photos, tmp_path / "out", tiny_model, ray_cluster.address, "--report", str(report))
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=PATIENCE)
    broken.unlink()
    empty.unlink()
    assert done.returncode == 1
    assert contents(tmp_path / "out") == expected
    assert done.stdout.count("_denoised.png: 900 x 700") == COUNT
    *failures, summary = done.stderr.splitlines()
    assert summary == f"spikingir: 2 of {COUNT + 2} failed"
    assert sorted(line.partition(" is ")[2][:7] for line in failures) == ["a damag", "empty; "]
    said = json.loads(report.read_text())
    assert (said["done"], said["failed"]) == (COUNT, 2)
    assert [Path(image["input"]).stem for image in said["images"]] == [*map(str, range(COUNT)), "broken", "empty"]
    assert all(image["model"] == str(tiny_model) and image["spikes"] > 0 for image in said["images"][:COUNT])


@pytest.mark.parametrize("kill", [kill_process, kill_node])
def test_what_is_killed_is_done_elsewhere(
    ray_cluster: Any,
    photos: Path,
    expected: dict[str, bytes],
    tiny_model: Path,
    tmp_path: Path,
    kill: Callable[[Any, Any], None],
) -> None:
    out = tmp_path / "out"
    arguments = command(photos, out, tiny_model, ray_cluster.address)
    victim = next(iter(ray_cluster.worker_nodes))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        until = time.monotonic() + PATIENCE
        while not (out.is_dir() and any(out.glob("*.png")) and busy(victim)):
            assert run.poll() is None, "all was done before anything could be killed"
            assert time.monotonic() < until
            time.sleep(0.01)
        kill(ray_cluster, victim)
        before = len(list(out.glob("*.png")))
        said, errors = run.communicate(timeout=PATIENCE)
    assert 0 < before < COUNT
    assert (run.returncode, errors) == (0, "")
    assert said.count("\n") == COUNT
    assert contents(out) == expected  # and no other files
    if kill is kill_node:
        ray_cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


def test_what_is_wrong_with_the_model_is_said_before_all_else(photos: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"dear diary")
    jobs = plan([str(photos)], str(tmp_path / "out"), "denoised")
    with pytest.raises(StorageError, match=r"wrong\.safetensors"):
        list(restore_on_cluster(jobs, Wishes(str(wrong)), Options(), "nowhere:1"))
    assert not (tmp_path / "out").exists()


def test_cluster_of_another_version(
    ray_cluster: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "__version__", "0.0.0")
    jobs = plan([str(photos)], str(tmp_path / "out"), "denoised")
    with pytest.raises(ClusterError, match=r"this one 0\.0\.0; install the same"):
        list(restore_on_cluster(jobs, Wishes("denoise-gray-25"), Options(), ray_cluster.address))


def test_no_cluster_there(photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(photos, tmp_path / "out", tiny_model, "not an address")
    assert main(arguments[3:]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "no Ray cluster can be reached at 'not an address'" in err


def test_a_cluster_of_this_machine(photos: Path, expected: dict[str, bytes], tiny_model: Path, tmp_path: Path) -> None:
    arguments = command(photos / "0.png", tmp_path / "0_denoised.png", tiny_model, "local")
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path)["0_denoised.png"] == expected["0_denoised.png"]
