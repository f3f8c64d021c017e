"""Which transport is chosen, and what is said where it cannot be."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import msgspec
import pytest

from unitp.errors import BackendError, did_you_mean
from unitp.plugins import transports
from unitp.plugins.discover import backend, missing
from unitp.plugins.hookspecs import TRANSPORTS
from unitp.plugins.spec import BackendSpec, TransportSpec
from unitp.plugins.transports import Carrier, choose, native, usable
from unitp.ranks.interpreters import Description, TransportDescription
from unitp.session.launch import carrier_of

Lacking = Callable[[TransportSpec], list[str]]


def there(spec: TransportSpec) -> list[str]:
    return []


def absent(spec: TransportSpec) -> list[str]:
    return ["mpi4py>=4 (not installed)"]


def chosen(name: str, wanted: str, *, ranks: int = 2, dtype: str = "float32", lacking: Lacking = there) -> Carrier:
    return choose(backend(name), wanted, ranks, dtype, lacking)


@pytest.mark.parametrize("name", ["torch", "tensorflow", "mxnet"])
def test_auto_takes_mpi_where_it_is_installed_and_the_frameworks_own_elsewhere(name: str) -> None:
    assert chosen(name, "auto").name == "mpi"
    own = chosen(name, "auto", lacking=absent)
    assert (own.name, own.runtime, own.cluster) == ("native", backend(name).runtime, backend(name).cluster)
    assert chosen(name, "native") == own


def test_numpys_own_is_mpi() -> None:
    assert native(backend("numpy")) == "mpi"
    assert chosen("numpy", "native") == chosen("numpy", "auto") == chosen("numpy", "mpi") == chosen("torch", "mpi")
    assert usable(backend("numpy")) == ("mpi",)


@pytest.mark.parametrize("wanted", ["auto", "native", "mpi"])
def test_one_rank_has_no_transport_and_needs_none(wanted: str) -> None:
    carrier = chosen("torch", wanted, ranks=1, lacking=absent)
    assert (carrier.name, carrier.runtime) == ("", "one process")


def refused(name: str, wanted: str, said: str, hint: str, **more: object) -> None:
    with pytest.raises(BackendError, match=re.escape(said)) as caught:
        chosen(name, wanted, **more)  # type: ignore[arg-type]
    assert caught.value.hint == hint


def test_what_is_not_installed_is_named_with_the_command_that_mends_it() -> None:
    mend = 'Run: pip install "unitp-mpi[mpi]"'
    refused("torch", "mpi", "transport mpi needs mpi4py>=4 (not installed)", mend, lacking=absent)
    refused("numpy", "auto", "transport mpi needs mpi4py>=4 (not installed)", mend, lacking=absent)


def test_an_unknown_name_has_a_nearest_one() -> None:
    refused("torch", "mpj", 'unknown transport "mpj"', 'Did you mean "mpi"?')
    refused("torch", "natve", 'unknown transport "natve"', 'Did you mean "native"?', ranks=1)


def test_one_that_a_backend_cannot_use_is_refused_with_those_that_it_can() -> None:
    shy = msgspec.structs.replace(backend("torch"), name="shy", transports=("native",))
    with pytest.raises(BackendError, match="backend shy cannot use transport mpi") as caught:
        choose(shy, "mpi", 2, "float32", there)
    assert caught.value.hint == "It can use native."
    assert choose(shy, "auto", 2, "float32", there).name == "native"


def test_a_dtype_that_it_does_not_carry_is_refused_and_auto_takes_the_next() -> None:
    refused("torch", "mpi", "transport mpi does not carry bfloat16", "Give --transport native.", dtype="bfloat16")
    assert chosen("torch", "auto", dtype="bfloat16").name == "native"


def test_one_that_is_not_there_at_all_is_no_choice_of_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TRANSPORTS, "_strangers", ({}, ()))
    assert chosen("torch", "auto").name == "native"
    refused("torch", "mpi", 'unknown transport "mpi"', did_you_mean("mpi", transports.names()))
    assert missing(backend("numpy"), 2) == ["transport mpi (not installed)"]
    assert missing(backend("numpy"), 1) == []


def test_another_interpreter_is_asked_what_it_has() -> None:
    mpi = transports.transport("mpi")
    here = Description("", "", "", "0.1.0", (), {}, (TransportDescription("mpi", {"mpi4py": "4.1", "mpich": None}),))
    assert here.lacking(mpi) == ["mpich>=5 (not installed)"]
    assert msgspec.structs.replace(here, transports=()).lacking(mpi) == ["unitp-mpi (not installed)"]


def test_the_setting_decides_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(given: str | None) -> str:
        return carrier_of(backend("torch"), 2, given, "float32", sys.executable).name

    monkeypatch.setenv("UNITP_TRANSPORT", "native")
    assert (found(None), found("mpi")) == ("native", "mpi")
    monkeypatch.delenv("UNITP_TRANSPORT")
    assert found(None) == "mpi"


def test_a_spec_without_transports_has_its_own_alone() -> None:
    spec = BackendSpec("x", "x", "Xs own", (), "", ("float32",), "x:connect", "x:processes")
    assert choose(spec, "auto", 2, "float32", there).runtime == "Xs own"
