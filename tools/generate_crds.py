"""Writes charts/dragoman/crds/: our CustomResourceDefinitions, made from the models. `--check` only compares them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from controlplane.api.crds import definitions

FOLDER = Path(__file__).resolve().parents[1] / "charts" / "dragoman" / "crds"
NOTE = "# Made from the models by `make crds`; changes made here are lost.\n"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def files() -> dict[str, str]:
    """Name and text of every file."""
    return {name: NOTE + yaml.dump(made, Dumper=_Dumper, width=120, sort_keys=False) for name, made in definitions()}


def main() -> int:
    """Writes the files, or with `--check` compares them; 1 if they are not current."""
    made = files()
    kept = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.yaml")}
    if "--check" in sys.argv[1:]:
        stale = sorted(name for name in {*made, *kept} if made.get(name) != kept.get(name))
        sys.stdout.write("".join(f"{name} is not current; run `make crds`\n" for name in stale))
        return 1 if stale else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in kept.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, "utf-8")
    sys.stdout.write(f"wrote {len(made)} definitions to {FOLDER}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
