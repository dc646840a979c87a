"""Self-made certificate for localhost."""

import subprocess
from pathlib import Path
from typing import Final

_COMMAND: Final = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_SUBJECT: Final = ("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return the files with the certificate and its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    command = [*_COMMAND, *_SUBJECT, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
