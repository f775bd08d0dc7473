"""One worker of ext_authz: `python -m ext_authz SETTINGS.json` (what a pool of workers starts)."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from ext_authz.main import run
from ext_authz.settings import AuthzSettings


def main() -> int:
    """Reads the settings, a JSON object, from the file that is named, or from standard input for `-`."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m ext_authz SETTINGS.json\n")
        return 2
    try:
        text = sys.stdin.read() if sys.argv[1] == "-" else Path(sys.argv[1]).read_text("utf-8")
        settings = AuthzSettings.model_validate_json(text)
    except ValidationError as error:
        sys.stderr.write(f"{error.errors(include_input=False, include_url=False)}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
