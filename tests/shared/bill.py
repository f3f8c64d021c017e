"""What each backend's environment consists of, and under which licences: `bill.py FOLDER`, which is `make sbom`.

An environment is what `pip install "unitp-torch[framework]"` and its like bring along, in the versions that are installed
here. For each of them FOLDER gets a CycloneDX document that is valid by its schema, and for all of them `licences.md`. Two runs
on one environment write the same bytes: nothing in them is random, dated, or a path of this machine.

What is listed are distributions; what these bundle (libraries under MPICH, a framework's BLAS) is in their licence files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from distributions import BACKENDS, environment
from licences import SPELLED, rows, table
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SCHEMA = SchemaVersion.V1_6


def dependencies(requirement: str) -> dict[str, set[str]]:
    """All distributions that a requirement installs, each with those that it asks for itself, extras included."""
    found: dict[str, set[str]] = {}
    todo, seen = [Requirement(requirement)], set()
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if (name, *sorted(one.extras)) in seen:
            continue
        seen.add((name, *sorted(one.extras)))
        wanted = found.setdefault(name, set())
        for more in map(Requirement, distribution(name).requires or ()):
            if more.marker is None or any(more.marker.evaluate({"extra": extra}) for extra in one.extras or {""}):
                wanted.add(canonicalize_name(more.name))
                todo.append(more)
    return found


@cache
def everything_installed() -> str:
    """A CycloneDX document of everything that is installed here."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--no-validate"]
    command += ["--spec-version", SCHEMA.to_version(), "--output-format", "JSON", sys.executable]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def bill(backend: str) -> dict[str, Any]:
    """The CycloneDX document of a backend's environment. Its subject is the backend's distribution."""
    document: dict[str, Any] = json.loads(everything_installed())
    wanted = dependencies(environment(backend))
    found = {name: one for one in document["components"] if (name := canonicalize_name(one["name"])) in wanted}
    for name, one in found.items():
        _complete(one, str(distribution(name).metadata.json.get("license", "")).strip())
    refs: dict[str, str] = {name: one["bom-ref"] for name, one in found.items()}
    document["metadata"]["component"] = found.pop(canonicalize_name(BACKENDS[backend].name))
    document["components"] = [found[name] for name in sorted(found)]
    document["dependencies"] = [
        {"ref": refs[name], "dependsOn": sorted(refs[other] for other in wanted[name])} for name in sorted(wanted)
    ]
    return document


def _complete(component: dict[str, Any], declared: str) -> None:
    """Add a licence that is named in words (of a whole text, its title); take away where this machine has a package from."""
    title = declared.partition("\n")[0].strip()
    if not component.get("licenses") and (title == declared or title.lower() in SPELLED) and title:
        component["licenses"] = [{"license": {"acknowledgement": "declared", "name": title}}]
    kept = [one for one in component.pop("externalReferences", ()) if not one["url"].startswith("file:")]
    if kept:
        component["externalReferences"] = kept


def text_of(document: dict[str, Any]) -> str:
    """A document as it is written."""
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def require_valid(text: str) -> None:
    """Raise ValueError where a document is not as CycloneDX's schema wants it. Each address in it takes some 50 ms."""
    if error := JsonStrictValidator(SCHEMA).validate_str(text):
        raise ValueError(f"no valid CycloneDX {SCHEMA.to_version()} document: {error}")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    documents = {backend: bill(backend) for backend in BACKENDS}
    for backend, document in documents.items():
        path = folder / f"{canonicalize_name(BACKENDS[backend].name)}.cdx.json"
        text = text_of(document)
        require_valid(text)
        path.write_text(text, "utf-8")
        print(f"{path}: {len(document['components'])} packages beside {canonicalize_name(BACKENDS[backend].name)}")
    found = rows(documents)
    (folder / "licences.md").write_text(table(found), "utf-8")
    look = [f"{row.package} ({': '.join(filter(None, (row.licence, row.look)))})" for row in found if row.look]
    print(f"{folder / 'licences.md'}: {len(found)} packages; to be looked at: {', '.join(look) or 'none'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
