"""Builds the image of deploy/Dockerfile, and runs a gateway and a worker from it until ``curl`` has its answer.

Needs root, and from Debian: mmdebstrap, which makes a base image, buildah, which builds without a container engine,
curl and redis-server. Exits with 1 if the image cannot be built or does not work, and with 3 if this machine cannot
try it.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from image_build import DEBIAN, ImageError, Impossible, build_image, remove_images
from image_trial import check_machine, try_image

_IMAGE: Final = "localhost/headrace-test"


def main() -> int:
    began = time.monotonic()
    try:
        check_machine()
        with tempfile.TemporaryDirectory(prefix="headrace-image-") as folder:
            build_image(_IMAGE, DEBIAN, Path(folder))
            try_image(_IMAGE, Path(folder))
    except ImageError as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 1
    except Impossible as error:
        print(f"image-test: NOT TRIED: {error}", file=sys.stderr)
        return 3
    finally:
        remove_images(_IMAGE, DEBIAN)
    print(f"image-test: the image answers, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
