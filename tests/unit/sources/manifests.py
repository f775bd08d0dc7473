"""Manifests for tests of sources."""

from __future__ import annotations

from pathlib import Path

from controlplane.api.meta import ObjectKey


def config_map(name: str, value: str = "1") -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  key: '{value}'\n"


def key(name: str) -> ObjectKey:
    return ObjectKey("", "ConfigMap", "default", name)


def write(path: Path, *documents: str) -> Path:
    """Writes beside and renames into place, as careful editors do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text("---\n".join(documents), "utf-8")
    return beside.rename(path)
