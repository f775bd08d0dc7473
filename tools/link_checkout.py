"""Puts this checkout's packages and the `dragoman` command into the virtual environment that runs this file.

An editable install without a build: a path file and an entry script. pip would fetch a build back end for it, unpinned.
"""

import site
import stat
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """#!{python}
import sys

from dragoman.cli import main

sys.exit(main())
"""


def main() -> None:
    # The path goes behind site-packages, so that the folder `envoy/` never hides the installed package `envoy`.
    (Path(site.getsitepackages()[0]) / "dragoman-checkout.pth").write_text(f"{ROOT}\n")
    script = Path(sysconfig.get_path("scripts")) / "dragoman"
    script.write_text(SCRIPT.format(python=sys.executable))
    script.chmod(script.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


main()
