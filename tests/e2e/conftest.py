"""What holds for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType

import pytest

from controlplane.translate.filters import ext_authz, ratelimit


@pytest.fixture(scope="module", autouse=True)
def patient_envoys() -> Iterator[Mapping[ModuleType, float]]:
    """Lets Envoys wait for the services as long as a busy machine may need; what they wait in the product is given.

    A request whose limits take longer than 100 ms passes undecided by default, and tests count what passes; one whose
    credentials take longer than 500 ms is refused.
    """
    products = {each: each._TIMEOUT_S for each in (ratelimit, ext_authz)}
    with pytest.MonkeyPatch.context() as patch:
        for each in products:
            patch.setattr(each, "_TIMEOUT_S", 2.0)
        yield products


@pytest.fixture
def envoys_as_ever(patient_envoys: Mapping[ModuleType, float]) -> Iterator[None]:
    """Has this process translate as those of the product do, for tests that compare the two."""
    with pytest.MonkeyPatch.context() as patch:
        for each, timeout_s in patient_envoys.items():
            patch.setattr(each, "_TIMEOUT_S", timeout_s)
        yield
