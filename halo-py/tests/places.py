"""Where things are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The real publishers' data, which lie beside the repository.
MSNBC = ROOT.parent / "shared" / "data" / "msnbc"
