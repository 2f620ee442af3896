"""Build every stand-in that is missing: `python -m containers.standins [--force]`.

Prints one line per image and exits with 1 when one could not be had. An image that is there,
be it a stand-in or the real one, is left alone; `--force` builds the stand-ins anew, and never
replaces a real one.
"""

from __future__ import annotations

import sys

from containers.standins import images


def main() -> int:
    """Build what is missing, and give the exit code."""
    lacking = images.build_missing(is_forced="--force" in sys.argv[1:], tell=print)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
