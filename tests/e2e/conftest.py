"""What holds for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane.translate.filters import ratelimit


@pytest.fixture(scope="session", autouse=True)
def patient_envoys() -> Iterator[None]:
    """Lets Envoys wait for the rate limit service as long as a busy machine may need.

    What takes longer than they wait passes undecided, by default after 100 ms, and tests count what passes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ratelimit, "_TIMEOUT_S", 2.0)
        yield
