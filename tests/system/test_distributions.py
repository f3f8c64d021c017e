"""What is built is what people should get: whole, with its licence and its bounds, and with nothing of this machine."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tomllib
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
from bill import bill, dependencies, everything_installed, require_valid, text_of
from distributions import BACKENDS, DISTRIBUTIONS, ROOT, TRANSPORTS, UNITP, Distribution, environment
from licences import rows
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from unitp.plugins import hookspecs
from unitp.plugins.discover import backends

pytestmark = pytest.mark.system

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Files, Files]]:
    """The files of the sdist (without their common folder) and of the wheel of each distribution."""
    folder = tmp_path_factory.mktemp("dist")
    found = {}
    for one in DISTRIBUTIONS:
        sdist, wheel = one.build(folder)
        with tarfile.open(sdist) as tar:
            inside = {m.name.partition("/")[2]: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
        with ZipFile(wheel) as archive:
            found[one.name] = inside, {name: archive.read(name) for name in archive.namelist()}
    return found


each = pytest.mark.parametrize("one", DISTRIBUTIONS, ids=lambda one: one.name)


def metadata(one: Distribution, wheel: Files) -> Metadata:
    return Metadata.from_email(wheel[f"{information(one)}/METADATA"], validate=True)


def information(one: Distribution) -> str:
    return f"{one.package}-{one.project['version']}.dist-info"


def files_of_the_package(one: Distribution) -> set[str]:
    """As git knows them, with those that are yet to be added."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", one.package]
    found = subprocess.run(listed, cwd=one.folder, capture_output=True, text=True, check=True).stdout.split()
    return {name for name in found if (one.folder / name).exists()}


@each
def test_every_file_of_a_package_is_in_its_sdist_and_its_wheel_and_nothing_else_is(
    one: Distribution, built: dict[str, tuple[Files, Files]]
) -> None:
    sdist, wheel = built[one.name]
    package = files_of_the_package(one)
    assert f"{one.package}/py.typed" in package
    assert {name for name in wheel if not name.startswith(f"{information(one)}/")} == package
    around = {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", ".gitignore"}
    around |= {"CHANGELOG.md", "SECURITY.md"} if one is UNITP else set()
    assert set(sdist) == package | around
    assert all(sdist[name] == wheel[name] for name in package)


@each
def test_the_licence_goes_along(one: Distribution, built: dict[str, tuple[Files, Files]]) -> None:
    sdist, wheel = built[one.name]
    assert sdist["LICENSE"] == wheel[f"{information(one)}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    said = metadata(one, wheel)
    assert (said.license_expression, said.license_files) == ("Apache-2.0", ["LICENSE"])


@each
def test_nothing_of_this_machine_is_inside(one: Distribution, built: dict[str, tuple[Files, Files]]) -> None:
    places = [str(place).encode() for place in (ROOT, Path.home()) if place != Path("/")]
    for files in built[one.name]:
        assert [name for name, text in files.items() if any(place in text for place in places)] == []


@each
def test_it_says_what_it_is(one: Distribution, built: dict[str, tuple[Files, Files]]) -> None:
    said = metadata(one, built[one.name][1])
    assert said.summary
    assert said.description == (one.folder / "README.md").read_text("utf-8")
    assert said.description_content_type == "text/markdown"
    assert said.requires_python == SpecifierSet(UNITP.project["requires-python"])
    assert said.keywords
    assert not [c for c in said.classifiers or () if c.startswith("License ::")], "the expression says it"
    assert "Typing :: Typed" in (said.classifiers or ())


@each
def test_a_backend_fits_this_series_of_unitp_and_no_other(
    one: Distribution, built: dict[str, tuple[Files, Files]]
) -> None:
    """So do all of this checkout, which have one version; `unitp` wants its default backend so."""
    here = Version(UNITP.project["version"])
    major, minor = here.release[:2]
    needs = {r.name: r for r in metadata(one, built[one.name][1]).requires_dist or () if r.marker is None}
    bound = needs["unitp-numpy" if one is UNITP else "unitp"].specifier
    assert one.project["version"] == str(here)
    assert bound.contains(here, prereleases=True)
    assert not bound.contains(f"{major}.{minor + 1}.0")
    assert not bound.contains(f"{major + 1}.0")
    assert minor == 0 or not bound.contains(f"{major}.{minor - 1}.9")


@each
def test_it_is_found_by_its_entry_points(one: Distribution, built: dict[str, tuple[Files, Files]]) -> None:
    points = ConfigParser()
    points.read_string(built[one.name][1][f"{information(one)}/entry_points.txt"].decode())
    found = {group: dict(points[group]) for group in points.sections()}
    name = one.package.removeprefix("unitp_")
    assert found == (
        {"console_scripts": {"unitp": "unitp.cli:main"}} if one is UNITP else {"unitp": {name: one.package}}
    )


def test_every_backend_and_transport_has_a_distribution_that_its_spec_names() -> None:
    assert {name: backends()[name].distribution for name in BACKENDS} == {n: one.name for n, one in BACKENDS.items()}
    carriers = {name: offer.value.distribution for name, offer in hookspecs.TRANSPORTS.all().items()}
    assert carriers == {name: one.name for name, one in TRANSPORTS.items()}


def test_a_strangers_backend_is_told_to_have_the_same_bound() -> None:
    text = (ROOT / "docs" / "write-a-backend.md").read_text("utf-8")
    example = tomllib.loads(text.partition("```toml\n")[2].partition("```")[0])
    assert example["project"]["dependencies"] == BACKENDS["torch"].project["dependencies"]


# bills of materials


def test_an_environment_has_what_its_requirements_ask_for_in_turn() -> None:
    found = dependencies(environment("torch"))
    assert found["unitp-torch"] == {"torch", "unitp"}
    assert {"unitp-numpy", "numpy", "msgspec"} <= found["unitp"]
    assert "mpi4py" not in found, "the extra of another distribution"
    assert "pytest" not in found, "an extra that nobody asks for"
    assert found["jinja2"] == {"markupsafe"}
    assert set().union(*found.values()) <= set(found)


def test_a_bill_lists_an_environment_the_same_every_time_and_no_path_of_this_machine() -> None:
    text = text_of(bill("numpy"))
    everything_installed.cache_clear()
    assert text == text_of(bill("numpy"))
    document = json.loads(text)
    assert document["metadata"]["component"]["name"] == "unitp-numpy"
    listed = {one["name"].lower(): one["version"] for one in document["components"]}
    assert listed["mpi4py"] == version("mpi4py")
    assert "unitp" in listed
    assert "torch" not in listed
    assert [word for word in ("serialNumber", "timestamp", "file:", str(ROOT)) if word in text] == []


def test_a_bill_is_what_the_schema_says() -> None:
    document = bill("numpy")
    for one in document["components"][5:]:
        one.pop("externalReferences", None)  # many, of one kind: `make sbom` looks at each
    require_valid(text_of(document))
    document["components"][0].pop("name")
    with pytest.raises(ValueError, match=r"no valid CycloneDX 1\.6 document"):
        require_valid(text_of(document))


def test_licences_that_somebody_should_look_at_are_those_that_somebody_has_looked_at() -> None:
    """Other pins may bring others along. These are used as they are, and ask nothing of unitp's own code."""
    found = {row.package: row.look for row in rows({name: bill(name) for name in BACKENDS}) if row.look}
    assert found == {
        "certifi": "copyleft limited",  # MPL-2.0: a list of certificates
        "mpich": "not known",  # its own licence, permissive; libraries inside have licence files beside it
        "namex": "names no licence",  # its licence file is Apache 2.0
        "tqdm": "copyleft limited",  # MPL-2.0 AND MIT
    }


def test_every_requirement_that_an_environment_has_is_pinned() -> None:
    """The constraints are one set of versions with which all four live together."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {canonicalize_name(Requirement(line).name) for line in lines}
    own = {one.name for one in DISTRIBUTIONS}
    for backend in BACKENDS:
        assert set(dependencies(environment(backend))) - own - pinned <= {"setuptools", "wheel"}
