"""Pins the base images (``python .ci/pin_images.py [REGISTRY]``).

Asks the registry of every image in deploy/images.env for the digest of its tag, writes the digest behind the tag, and
copies the lines into the files that use the images. REGISTRY is the URL for images without a host in their name. An
image whose registry does not answer keeps its line. Exits with 1 if no registry answered.
"""

import hashlib
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
IMAGES = "deploy/images.env"
USERS = (
    "deploy/Dockerfile",
    "docker-compose.yml",
    "deploy/compose/*.yml",
    "deploy/k8s/**/*.yaml",
    ".github/workflows/*.yml",
)

#: Docker's rule: a first component with a dot, a port or this name is a host. Others have no host.
_LOCAL_HOST = "localhost"
#: Docker's rule: the full name of an image with neither host nor owner begins with this.
_WITHOUT_OWNER = "library/"
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_TIMEOUT_S = 20
_MOST_BYTES = 4 * 1024 * 1024


class NoDigest(Exception):
    """The registry gave no digest; the message has the reason and the remedy."""


class Image(NamedTuple):
    """A parsed name. ``host`` is None if the name has none."""

    host: str | None
    repository: str
    tag: str


def main(registry: str | None) -> int:
    images = read_images()
    pinned = {name: pinned_image for name, image in images.items() if (pinned_image := _pin(name, image, registry))}
    copy_images(images | pinned)
    if not pinned:
        print("no image was pinned: no registry answered", file=sys.stderr)
    return 0 if pinned else 1


def read_images() -> dict[str, str]:
    return dict(re.findall(r"(?m)^([A-Z_]+_IMAGE)=(\S+)$", (ROOT / IMAGES).read_text()))


def copy_images(images: dict[str, str]) -> None:
    """Write the images into images.env and into every file that uses them."""
    for path in (path for pattern in (IMAGES, *USERS) for path in sorted(ROOT.glob(pattern))):
        text = path.read_text()
        copied = with_images(text, images)
        if copied != text:
            path.write_text(copied)


def with_images(text: str, images: dict[str, str]) -> str:
    """Return the text with each mention of a variable updated to its image."""
    for name, image in images.items():
        for pattern in (
            rf"(?m)^((?:ARG )?{name}=)\S+()$",  # images.env, Dockerfile
            rf"(\$\{{{name}:-)[^}}]*(\}})",  # Compose
            rf"(?m)(image: )\S+( +# {name})$",  # Kubernetes, workflows
        ):
            text = re.sub(pattern, rf"\g<1>{image}\g<2>", text)
    return text


def _pin(name: str, image: str, registry: str | None) -> str | None:
    """Return the image with its digest, or None after a message."""
    tagged, _, _ = image.partition("@")
    try:
        found = parse(tagged)
        digest = digest_of(found, _base_url(found, registry))
    except NoDigest as error:
        print(f"{name}: no digest for {tagged}: {error}; the line is unchanged", file=sys.stderr)
        return None
    print(f"{name}: {tagged}@{digest}")
    return f"{tagged}@{digest}"


def parse(image: str) -> Image:
    """Split a name with a tag by Docker's rules."""
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag:
        raise NoDigest("the image has no tag; add one")
    first, _, rest = name.partition("/")
    if rest and ("." in first or ":" in first or first == _LOCAL_HOST):
        return Image(first, rest, tag)
    return Image(None, name if rest else _WITHOUT_OWNER + name, tag)


def _base_url(image: Image, registry: str | None) -> str:
    if image.host is None:
        if not registry:
            raise NoDigest("its name has no host; set REGISTRY to the URL of its registry")
        return (registry if "://" in registry else f"https://{registry}").rstrip("/")
    plain = re.fullmatch(r"(localhost|127\.0\.0\.1)(:\d+)?", image.host)
    return f"{'http' if plain else 'https'}://{image.host}"


def digest_of(image: Image, base_url: str) -> str:
    """Ask for the tag's manifest, and return its digest."""
    url = f"{base_url}/v2/{image.repository}/manifests/{image.tag}"
    try:
        headers, manifest = _fetch_manifest(url)
    except urllib.error.HTTPError as error:
        raise NoDigest(f"{base_url} answered {error.code}; check the image's name and REGISTRY") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NoDigest(f"{base_url} did not answer ({reason}); check the network and REGISTRY") from error
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    if headers.get("Docker-Content-Digest", digest) != digest:
        raise NoDigest(f"{base_url} named another digest than that of the manifest it sent; do not use this registry")
    return digest


def _fetch_manifest(url: str) -> tuple[Message, bytes]:
    """Return headers and body. If the registry wants a token, get an anonymous one from the address it names."""
    accept = {"Accept": _MANIFESTS}
    try:
        return _get(url, accept)
    except urllib.error.HTTPError as error:
        challenge = error.headers.get("WWW-Authenticate", "")
        if error.code != 401 or not challenge.lower().startswith("bearer "):
            raise
    return _get(url, accept, authorization=f"Bearer {_token(url, challenge)}")


def _token(url: str, challenge: str) -> str:
    parameters = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = parameters.pop("realm", "")
    if urllib.parse.urlsplit(realm).scheme not in {"https", urllib.parse.urlsplit(url).scheme}:
        raise ValueError("its address for tokens is not encrypted")
    query = urllib.parse.urlencode({name: parameters[name] for name in ("service", "scope") if name in parameters})
    _, body = _get(f"{realm}?{query}", {})
    answer = json.loads(body)
    token = answer.get("token") or answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str):
        raise ValueError("it gave no token")  # noqa: TRY004  # the caller reports a ValueError as a bad answer
    return token


def _get(url: str, headers: dict[str, str], authorization: str | None = None) -> tuple[Message, bytes]:
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError("not a URL of http or https")
    request = urllib.request.Request(url, headers=headers)
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        body = response.read(_MOST_BYTES + 1)
        if len(body) > _MOST_BYTES:
            raise ValueError("its answer is too large")
        return response.headers, body


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else None))
