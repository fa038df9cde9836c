"""Google's Tink reads what this library encrypts, with the keysets that this library writes."""

import os
import pathlib
import subprocess

import pytest
from tink import hybrid

import tink_interop

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("HALO_TARGET_DIR", HERE.parents[2] / "target" / "debug"))


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    hybrid.register()


def test_tink_decrypts_what_rust_encrypted(tmp_path: pathlib.Path) -> None:
    vectors = tmp_path / "vectors.json"
    with vectors.open("wb") as out:
        subprocess.run([TARGET / "examples" / "tink_vectors"], check=True, stdout=out)
    assert vectors.stat().st_size > 1_000
    assert tink_interop.check(vectors) == 0


def test_the_vectors_of_the_rust_tests_are_tinks_own() -> None:
    assert tink_interop.check(HERE.parent / "vectors" / "tink_from_python.json") == 0


def test_a_difference_is_noticed(tmp_path: pathlib.Path) -> None:
    text = (HERE.parent / "vectors" / "tink_from_python.json").read_text(encoding="utf-8")
    altered = tmp_path / "altered.json"
    position = text.index('"ciphertext": "') + 40
    digit = "0" if text[position] != "0" else "1"
    altered.write_text(text[:position] + digit + text[position + 1 :], encoding="utf-8")
    assert tink_interop.check(altered) == 1
