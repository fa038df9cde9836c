"""What the stock client's tests need: stubs made from the fact tables, and a Kingdom that serves.

`cargo xtask test` sets two environment variables: HALO_KINGDOM is the path of the built `halo-kingdom`,
HALO_FACT_PROTOS the directory of the .proto files that the example `fact_protos` of halo-core has written.
"""

import contextlib
import importlib
import os
import pathlib
import sys

import grpc_tools
import pytest
from google.type import interval_pb2
from grpc_tools import protoc

from organisation import Kingdom


def named_by(variable: str) -> pathlib.Path:
    """The path that an environment variable names."""
    path = os.environ.get(variable)
    if not path or not pathlib.Path(path).exists():
        pytest.fail(f"{variable} names nothing that exists ({path!r}); `cargo xtask test` sets it", pytrace=False)
    return pathlib.Path(path)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory):
    """Imports a module of the public API that grpcio-tools has generated from the fact tables: `api("crypto_pb2")`."""
    protos = named_by("HALO_FACT_PROTOS")
    generated = tmp_path_factory.mktemp("generated")
    # Google's own files, as their packages bring them.
    google = [pathlib.Path(grpc_tools.__file__).parent / "_proto", pathlib.Path(interval_pb2.__file__).parents[2]]
    files = [str(path.relative_to(protos)) for path in sorted(protos.rglob("*.proto"))]
    includes = [f"-I{directory}" for directory in (protos, *google)]
    outputs = [f"--python_out={generated}", f"--grpc_python_out={generated}"]
    assert protoc.main(["protoc", *includes, *outputs, *files]) == 0
    sys.path.insert(0, str(generated))
    yield lambda module: importlib.import_module(f"wfa.measurement.api.v2alpha.{module}")
    sys.path.remove(str(generated))


@pytest.fixture
def kingdom(api, tmp_path: pathlib.Path):
    """A Kingdom of a process of its own, which must end cleanly when it is asked to."""
    with contextlib.closing(Kingdom(api, named_by("HALO_KINGDOM"), tmp_path)) as kingdom:
        yield kingdom
