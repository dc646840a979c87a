"""Renders deploy/k8s/base and every overlay with kustomize, and validates each strictly (``… KUBERNETES_VALIDATE``).

Needs kubectl, whose kustomize renders, or kustomize itself. Objects of extensions (KEDA, Gateway API) have no schema
in kubernetes-validate; they are counted, and not validated.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_MANIFESTS: Final = _ROOT / "deploy" / "k8s"
_EXTENSIONS: Final = ("keda.sh/", "gateway.networking.k8s.io/")


def main(validate: str) -> int:
    if (renderer := renderer_found()) is None:
        print("check-deploy: install kubectl or kustomize, which render deploy/k8s", file=sys.stderr)
        return 1
    failed = False
    for folder in (_MANIFESTS / "base", *sorted((_MANIFESTS / "overlays").iterdir())):
        documents = render(renderer, folder).split("\n---\n")
        known = [each for each in documents if not any(f"apiVersion: {name}" in each for name in _EXTENSIONS)]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("\n---\n".join(known))
            file.flush()
            done = subprocess.run([validate, "--strict", "--quiet", "--no-warn", file.name], check=False)
        failed = failed or done.returncode != 0
        without = len(documents) - len(known)
        print(f"{folder.relative_to(_ROOT)}: {len(known)} objects validated, {without} without schema")
    return int(failed)


def renderer_found() -> list[str] | None:
    """Return the command that renders a folder; None if there is none."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return None


def render(renderer: list[str], folder: Path) -> str:
    """Return the objects of an overlay as YAML documents."""
    return subprocess.run([*renderer, str(folder)], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
