"""One worker of the rate limit service: `python -m ratelimit_service SETTINGS.json` (what a pool of workers starts)."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from ratelimit_service.main import run
from ratelimit_service.settings import RateLimitSettings


def main() -> int:
    """Reads the settings, a JSON object, from the file that is named, or from standard input for `-`."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m ratelimit_service SETTINGS.json\n")
        return 2
    try:
        text = sys.stdin.read() if sys.argv[1] == "-" else Path(sys.argv[1]).read_text("utf-8")
        settings = RateLimitSettings.model_validate_json(text)
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"{error.errors(include_input=False) if isinstance(error, ValidationError) else error}\n")
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
