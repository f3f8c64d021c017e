"""What is built in and what strangers add come through the same hooks; names are taken once; what breaks is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import unitp
from unitp.cli.plugins import broken, every_hook
from unitp.cost.machine_file import load_machine
from unitp.engine.operators import DECOMPOSITIONS
from unitp.errors import GraphError, InputError, ModelError
from unitp.frontends import FRONT_ENDS, FrontEnd
from unitp.frontends.builder import Builder
from unitp.graph.ops import OPERATORS, known_ops, unregister
from unitp.mesh import Mesh
from unitp.plugins import discover, entry_points, hooks
from unitp.plugins.hooks import Hook, hookimpl, hookspec
from unitp.report.export import EXPORTS, export

STRANGERS = Path(__file__).parents[2] / "fakes" / "strangers"


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The distributions of tests/fakes/strangers are installed too."""
    monkeypatch.syspath_prepend(str(STRANGERS))
    monkeypatch.setenv("PYTHONPATH", str(STRANGERS))
    discover.forget()
    yield
    if "Blend" in known_ops():
        unregister("Blend")
    monkeypatch.undo()
    discover.forget()


def blend(tmp_path: Path) -> Path:
    path = tmp_path / "mine.blend"
    path.write_text("2 6 8")
    return path


@pytest.mark.parametrize("hook", every_hook(), ids=lambda hook: hook.kind)
def test_what_is_built_in_comes_through_the_hook(hook: Hook[Any]) -> None:
    offers = hook.all()
    own = {name for name, offer in offers.items() if offer.distribution.startswith("unitp")}
    assert own == set(offers) - set(hook.strangers()) or hook.kind in ("backend", "transport")
    assert len(own) >= (1 if hook.kind == "transport" else 3)
    assert {offer.version for offer in hook.built_in.values()} <= {version("unitp")}


@pytest.mark.usefixtures("guest")
def test_a_guest_brings_one_of_each_kind() -> None:
    added = {hook.kind: [n for n, o in hook.all().items() if o.distribution == "unitp-guest"] for hook in every_hook()}
    assert added == {
        "backend": [],
        "transport": [],
        "front end": ["blend"],
        "operator": ["Blend"],
        "decomposition": ["Blend"],
        "export": ["names"],
        "machine profile": ["abacus"],
    }


@pytest.mark.usefixtures("guest")
def test_a_guests_model_is_planned_for_its_machine_and_exported_by_it(tmp_path: Path) -> None:
    model = unitp.load(blend(tmp_path))
    plan = unitp.plan(model, Mesh(tp=2), machine=load_machine("abacus"))
    assert plan.certificate.objective_s > 0.5  # an abacus takes its time
    assert export(plan, model.graph, "names").data == b"scale\nshift"


@pytest.mark.system
@pytest.mark.timeout(120)
@pytest.mark.usefixtures("guest")
def test_a_guests_operator_runs_sharded_on_real_ranks(tmp_path: Path) -> None:
    model = unitp.load(blend(tmp_path))
    x = np.random.default_rng(0).standard_normal((2, 6, 8))
    found = {}
    for width in (1, 2):
        plan = unitp.plan(model, Mesh(tp=width))
        with unitp.launch(model, plan, "numpy", dtype="float64") as session:
            found[width] = session.run(x=x)["blend_0"].astype(float)
    assert plan.phases[0].nodes["blend_0"], "the operator is split"
    assert np.linalg.norm(found[2] - found[1]) <= 1e-12 * np.linalg.norm(found[1])


def test_without_the_guest_its_names_are_unknown(tmp_path: Path) -> None:
    discover.forget()
    with pytest.raises(ModelError, match=r"no front end reads .*mine.blend"):
        unitp.load(blend(tmp_path))
    with pytest.raises(GraphError, match='unknown operator "Blend"'):
        Builder("b").Blend("x")
    with pytest.raises(InputError, match='unknown export format "names"'):
        EXPORTS.find("names") or export(None, None, "names")  # type: ignore[arg-type]
    with pytest.raises(InputError, match='there is no machine "abacus"'):
        load_machine("abacus")


def test_built_in_names_do_not_load_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "loaded", pytest.fail)
    for hook in (FRONT_ENDS, OPERATORS, DECOMPOSITIONS, EXPORTS):
        for name in hook.built_in:
            assert hook.find(name) is not None
    assert load_machine("h100-nvlink").name == "h100-nvlink"


# what strangers may not do


class Thing(SimpleNamespace):
    name: str


@hookspec
def unitp_things() -> list[Thing]:
    """Things."""
    return []


class Gives:
    """A plug-in that gives what it is told to."""

    def __init__(self, given: Callable[[], Any]) -> None:
        self._given = given

    @hookimpl
    def unitp_things(self) -> Any:
        """What was told."""
        return self._given()


def asked(monkeypatch: pytest.MonkeyPatch, *given: Callable[[], Any]) -> Hook[Thing]:
    """A hook with a built-in thing, and plug-ins of strangers that give these."""
    plugins = tuple(entry_points.Plugin(f"p{i}", Gives(g), "stranger", "1") for i, g in enumerate(given))
    monkeypatch.setattr(hooks, "loaded", lambda: (plugins, ()))
    monkeypatch.setattr(hooks, "_HOOKS", [])
    return Hook("thing", unitp_things, Thing, [Gives(lambda: [Thing(name="own")])])


def boom(*given: Any) -> Any:
    raise KeyError("boom")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (lambda: [Thing(name="own")], 'unitp has a thing "own"'),
        (lambda: [Thing(name="taken")], 'another plug-in has a thing "taken"'),
        (lambda: [Thing(name="x"), Thing(name="x")], 'ValueError: unitp_things returned "x" twice'),
        (lambda: "text", "unitp_things returned str instead of a Thing"),
        (lambda: [3], "unitp_things returned int instead of a Thing"),
        (lambda: {"": Thing(name="x")}, "unitp_things returned a thing without a name"),
        (lambda: [Thing(name=None)], "unitp_things returned a thing without a name"),
        (boom, "KeyError: 'boom'"),
    ],
)
def test_a_name_is_taken_once_and_what_breaks_is_told(
    monkeypatch: pytest.MonkeyPatch, given: Callable[[], Any], why: str
) -> None:
    hook = asked(monkeypatch, lambda: [Thing(name="taken")], given, lambda: Thing(name="single"), lambda: None)
    assert list(hook.all()) == ["own", "single", "taken"]
    assert [(one.name, one.distribution, one.reason) for one in hook.broken()] == [("p1", "stranger", why)]
    assert hook.all()["own"].distribution == "unitp"


def test_a_front_end_of_a_stranger_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer = hooks.Offer("odd", FrontEnd("odd", "odd files", lambda path: bool(boom()), boom), "odd", "unitp-odd", "1", "odd")  # fmt: skip
    monkeypatch.setattr(FRONT_ENDS, "strangers", lambda: {"odd": offer})
    (tmp_path / "a.odd").touch()
    with pytest.raises(ModelError, match=r"front end odd of unitp-odd failed on .*a\.odd: KeyError: 'boom'"):
        unitp.load(tmp_path / "a.odd")


# the verb


@pytest.mark.usefixtures("guest")
def test_the_verb_lists_all_with_origin_and_what_is_broken(
    unitp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = unitp("plugins").out
    assert all(len(line) <= 80 for line in shown.splitlines() if "broken" not in line)
    assert "unitp-guest 1.0" in shown
    assert "raising is broken: KeyError" in shown
    told: Mapping[str, Any] = json.loads(unitp("plugins", "--json").out)
    assert {"kind": "operator", "name": "Blend", "distribution": "unitp-guest", "version": "1.0"} in told["plugins"]
    assert {row["kind"] for row in told["plugins"]} == {hook.kind for hook in every_hook()}
    assert {row["name"] for row in told["broken"]} == {b.name for b in broken(every_hook())}
