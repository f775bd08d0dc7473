"""What holds for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane.translate.filters import ext_authz, ratelimit


@pytest.fixture(scope="session", autouse=True)
def patient_envoys() -> Iterator[None]:
    """Lets Envoys wait for the services as long as a busy machine may need.

    A request whose limits take longer than 100 ms passes undecided by default, and tests count what passes; one whose
    credentials take longer than 500 ms is refused.
    """
    with pytest.MonkeyPatch.context() as patch:
        for each in (ratelimit, ext_authz):
            patch.setattr(each, "_TIMEOUT_S", 2.0)
        yield
