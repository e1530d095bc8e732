"""What an ablation puts something else in place of is there: a patch of a name that has gone would change nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

Script = Callable[[str], ModuleType]


def test_every_variant_replaces_what_the_search_has(script: Script) -> None:
    ablations = script("ablations")
    patches = [patch for variant in ablations.VARIANTS.values() for patch in variant]
    assert patches
    assert not [f"{owner.__name__}.{name}" for owner, name, _ in patches if not hasattr(owner, name)]


def test_what_was_replaced_is_put_back(script: Script) -> None:
    ablations = script("ablations")
    patches = ablations.VARIANTS["behind-1.5"]
    before = [getattr(owner, name) for owner, name, _ in patches]
    with ablations.patched(patches):
        assert [getattr(owner, name) for owner, name, _ in patches] == [1.5] * len(patches)
    assert [getattr(owner, name) for owner, name, _ in patches] == before
