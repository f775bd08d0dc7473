"""What the tests of the quarantine share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """Rejections are a part of these tests, by the thousand: they are not logged."""
    logger = logging.getLogger("controlplane")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)
