from __future__ import annotations

import pytest

from neuroca_backup import engines, registry, stores
from neuroca_backup.errors import ConfigurationError


@pytest.mark.parametrize(("package", "attribute"), [(engines, "ENGINE"), (stores, "STORE")])
def test_every_file_of_the_folder_is_a_kind_that_can_be_loaded(
    package: object, attribute: str
) -> None:
    kinds = registry.kinds(package)  # type: ignore[arg-type]
    assert kinds
    for kind in kinds:
        assert registry.load(package, kind, attribute)  # type: ignore[arg-type]


def test_an_engine_knows_its_own_name() -> None:
    for kind in registry.kinds(engines):
        assert registry.load(engines, kind, "ENGINE").kind == kind


def test_an_unknown_kind_is_told_with_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="'oracle' is not a known engine") as caught:
        registry.load(engines, "oracle", "ENGINE")
    assert "postgresql" in caught.value.remedy
