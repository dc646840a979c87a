"""Renders deploy/k8s/base and every overlay with kustomize, and validates each strictly.

``… KUBERNETES_VALIDATE EXTENSIONS``: the program of that name, and the folder where .ci/kubernetes_extensions is
installed, which has the schemas of KEDA and the Gateway API. Needs kubectl, whose kustomize renders, or kustomize.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

_ROOT: Final = Path(__file__).resolve().parent.parent
_MANIFESTS: Final = _ROOT / "deploy" / "k8s"
_EXTENSIONS: Final = ("keda.sh/", "gateway.networking.k8s.io/")


def main(validate: str, extensions: str) -> int:
    if (renderer := renderer_found()) is None:
        print("check-deploy: install kubectl or kustomize, which render deploy/k8s", file=sys.stderr)
        return 1
    failed = False
    for folder in (_MANIFESTS / "base", *sorted((_MANIFESTS / "overlays").iterdir())):
        objects = list(yaml.safe_load_all(render(renderer, folder)))
        further = [one for one in objects if one["apiVersion"].startswith(_EXTENSIONS)]
        known = [one for one in objects if one not in further]
        is_valid = is_valid_kubernetes(validate, known) & is_valid_extension(extensions, further)
        failed = failed or not is_valid
        print(f"{folder.relative_to(_ROOT)}: {len(objects)} objects {'valid' if is_valid else 'INVALID'}")
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


def is_valid_kubernetes(validate: str, objects: list[dict[str, Any]]) -> bool:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(objects, file)
        file.flush()
        done = subprocess.run([validate, "--strict", "--quiet", "--no-warn", file.name], check=False)
    return done.returncode == 0


def is_valid_extension(folder: str, objects: list[dict[str, Any]]) -> bool:
    node = str(Path(sys.executable).with_name("node"))
    command = [node, "validate.mjs"]
    return subprocess.run(command, input=json.dumps(objects), text=True, check=False, cwd=folder).returncode == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
