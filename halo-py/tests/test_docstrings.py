"""Everything public is documented in NumPy's style, and every example gives what it says."""

from __future__ import annotations

import doctest
import inspect
import types

import pytest

import halo_cmm

MODULES = {
    name: module
    for name, module in vars(halo_cmm).items()
    if isinstance(module, types.ModuleType) and not name.startswith("_")
}


def documented() -> dict[str, str]:
    """The docstring of every public object, by its name."""
    found = {"halo_cmm": halo_cmm}
    for prefix, module in {"halo_cmm": halo_cmm, **{f"halo_cmm.{name}": module for name, module in MODULES.items()}}.items():
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, types.ModuleType) or inspect.isclass(value) or callable(value):
                found.setdefault(f"{prefix}.{name}", value)
            if inspect.isclass(value) and value.__module__.startswith("halo_cmm"):
                for attribute, member in vars(value).items():
                    if not attribute.startswith("_") and (
                        callable(member) or isinstance(member, (property, classmethod, staticmethod))
                        or inspect.isdatadescriptor(member)
                    ):
                        found.setdefault(f"{prefix}.{name}.{attribute}", getattr(value, attribute, member))
    slots = {"value", "standard_error", "shares", "standard_errors"}
    return {name: inspect.getdoc(value) or "" for name, value in found.items() if name.rsplit(".", 1)[-1] not in slots}


DOCUMENTED = documented()
EXAMPLES = sorted(name for name, text in DOCUMENTED.items() if ">>>" in text)


def test_everything_public_is_documented() -> None:
    missing = [name for name, text in DOCUMENTED.items() if not text.strip()]
    assert not missing
    assert len(EXAMPLES) > 40


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_give_what_they_say(name: str) -> None:
    example = doctest.DocTestParser().get_doctest(DOCUMENTED[name], {}, name, None, None)
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)
