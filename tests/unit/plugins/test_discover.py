"""Plug-ins are found by entry points and load one by one; what they need is asked of installed distributions, not of imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from unitp.errors import BackendError
from unitp.plugins import discover
from unitp.plugins.spec import BackendSpec, Requirement

STRANGERS = Path(__file__).parents[2] / "fakes" / "strangers"
FRAMEWORKS = {"torch", "tensorflow", "mxnet", "mpi4py"}


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> Iterator[discover.Registry]:
    """What is found where the distribution of tests/fakes/strangers is installed too."""
    monkeypatch.syspath_prepend(str(STRANGERS))
    discover.forget()
    yield discover.registry()
    discover.forget()


def test_the_four_backends_are_found() -> None:
    assert set(discover.backends()) >= {"numpy", "torch", "tensorflow", "mxnet"}
    assert discover.registry().broken == ()


@pytest.mark.system
def test_finding_backends_imports_no_framework() -> None:
    script = "import sys; from unitp.plugins.discover import backends, missing\n"
    script += "for s in backends().values(): missing(s, 2)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert FRAMEWORKS & set(done.stdout.split()) == set()


def test_a_broken_plug_in_is_a_line_and_the_others_work(strangers: discover.Registry) -> None:
    assert {b.name: b.reason.partition(":")[0] for b in strangers.broken} == {
        "broken": "ImportError",
        "mistaken": "unitp_backend returned str instead of a BackendSpec",
        "newer": f"unitp-newer 9.9 needs unitp<9.10,>=9.9, and this is unitp {version('unitp')}",
        "raising": "KeyError",
        "twin": 'another plug-in has a backend "numpy"',
    }
    assert {b.distribution for b in strangers.broken} == {"unitp-strange", "unitp-newer"}
    assert {"numpy", "torch", "tensorflow", "mxnet", "skewed", "absent"} == set(strangers.backends)
    assert strangers.backends["numpy"].engine == "unitp_numpy.executor:connect"


@pytest.mark.parametrize("entry", ["", ".", "full"])
def test_a_plug_in_of_the_current_folder_is_not_loaded(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook's path of imports begins with the current folder, and so does one of PYTHONPATH=$PYTHONPATH:/more."""
    (tmp_path / "evil-1.0.dist-info").mkdir()
    (tmp_path / "evil-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (tmp_path / "evil-1.0.dist-info" / "entry_points.txt").write_text("[unitp]\nevil = evil\nnumpy = evil\n")
    (tmp_path / "evil.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path) if entry == "full" else entry)
    discover.forget()
    try:
        found = discover.registry()
        with pytest.raises(
            BackendError, match="backend evil cannot be loaded: it lies in the current folder"
        ) as caught:
            discover.backend("evil")
    finally:
        discover.forget()
    assert not (tmp_path / "ran").exists()
    assert str(tmp_path) in caught.value.hint
    assert {"numpy", "torch", "tensorflow", "mxnet"} <= set(found.backends)
    assert found.backends["numpy"].engine == "unitp_numpy.executor:connect"


def test_asking_for_a_broken_backend_says_why(strangers: discover.Registry) -> None:
    with pytest.raises(BackendError, match=r"cannot be loaded: ImportError: libstrange.so.1") as caught:
        discover.backend("broken")
    assert caught.value.hint == "Run: pip install --force-reinstall unitp-strange"


def test_a_backend_for_another_unitp_is_named_with_both_versions_and_not_imported(strangers: discover.Registry) -> None:
    with pytest.raises(
        BackendError, match=r"unitp-newer 9\.9 needs unitp<9\.10,>=9\.9, and this is unitp \d"
    ) as caught:
        discover.backend("newer")
    assert caught.value.hint == "Run: pip install --upgrade unitp unitp-newer"
    assert "unitp_strange.newer" not in sys.modules


def test_an_unknown_backend_gets_the_nearest_name() -> None:
    with pytest.raises(BackendError, match='Did you mean "tensorflow"') as caught:
        discover.backend("tensorflw")
    assert caught.value.exit_code == 2
    with pytest.raises(BackendError, match="Known: mxnet, numpy, tensorflow, torch"):
        discover.backend("zzz")


def test_a_missing_framework_comes_with_the_command_that_installs_it(strangers: discover.Registry) -> None:
    with pytest.raises(BackendError, match="absent needs strange-framework") as caught:
        discover.require(strangers.backends["absent"])
    assert caught.value.hint == "Run: pip install strange-framework==2.1"


def test_some_requirements_hold_for_several_ranks_only() -> None:
    spec = BackendSpec(
        "x", "x", "x", (Requirement("not-there", multi=True),), "pip install not-there", (), "", "x:processes"
    )
    assert discover.missing(spec, 1) == []
    assert discover.missing(spec, 2) == ["not-there (not installed)"]


def test_another_version_or_another_distribution_of_the_same_thing() -> None:
    requirement = Requirement("thing-cpu", ">=2.20", instead=("thing",))
    assert requirement.unmet({"thing-cpu": "2.21.0"}) == ""
    assert requirement.unmet({"thing": "2.21.0rc1", "thing-cpu": None}) == ""
    assert requirement.unmet({"thing": "1.15"}) == "thing-cpu>=2.20 (thing 1.15 is installed)"
    assert requirement.unmet({}) == "thing-cpu>=2.20 (not installed)"


def test_a_function_is_named_by_module_and_name() -> None:
    assert discover.resolve("unitp.plugins.discover:resolve") is discover.resolve
