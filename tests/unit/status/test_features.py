from __future__ import annotations

import csv

import pytest

from controlplane.status.features import FEATURES
from tests.support.cluster_rig import Rig, why_no_rig


def test_features_fit_into_a_class_sorted_and_without_repeats() -> None:
    assert list(FEATURES) == sorted(set(FEATURES))
    assert len(FEATURES) <= 64
    assert not any(name.startswith("Mesh") for name in FEATURES)


def test_every_feature_that_the_conformance_suite_tests_is_claimed() -> None:
    rig = Rig.find()
    if rig is None:
        pytest.skip(why_no_rig() or "")
    with (rig.folder / "tests.tsv").open() as file:
        tested = {name for row in csv.DictReader(file, delimiter="\t") for name in row["features"].split(",")}
    assert {name for name in tested if name and not name.startswith("Mesh")} <= set(FEATURES)
