"""The stubs are true, and the Python half is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(tmp_path: Path, *command: str) -> None:
    ran = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_stubs_are_true(tmp_path) -> None:
    run(tmp_path, "mypy.stubtest", "halo_cmm")


def test_the_package_is_typed(tmp_path) -> None:
    run(tmp_path, "mypy", "--strict", "--cache-dir", str(tmp_path), "--package", "halo_cmm")


def test_types_reach_users(tmp_path) -> None:
    (tmp_path / "user.py").write_text(
        "import numpy as np\n"
        "import halo_cmm\n"
        "result = halo_cmm.simulate({'a': np.arange(3)}, protocol='hmss')\n"
        "reveal_type(result.frequency)\n"
        "reveal_type(halo_cmm.LiquidLegions.from_vids([1]).reach().value)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "user.py"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert '"dict[int, float]"' in ran.stdout.replace("builtins.", "") and '"float"' in ran.stdout.replace("builtins.", "")
