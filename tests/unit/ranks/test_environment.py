"""What the processes of a session inherit: a list of what they need, whatever else the driver's environment has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unitp.mesh import Mesh
from unitp.plugins.discover import backends, resolve
from unitp.plugins.hookspecs import TRANSPORTS
from unitp.plugins.spec import Process
from unitp.ranks.environment import KEPT, NUMBER, THREADS, chosen, for_process
from unitp.testing.surroundings import HOSTILE

OWN = {
    "MALLOC_ARENA_MAX",
    "PYTHONUNBUFFERED",
    "TMPDIR",
    "UNITP_SESSION",
    "UNITP_ROLE",
    "UNITP_FOLDER",
    NUMBER,
    *THREADS,
}


def made(base: dict[str, str], **own: str) -> dict[str, str]:
    return for_process(base, own, mark="secret", role="worker", number=1, folder="/tmp/unitp-x", threads=2)


def test_nothing_is_inherited_that_is_not_on_the_list() -> None:
    plain = made({})
    assert set(plain) == OWN
    bad = {name: value for name, value in HOSTILE.items() if name not in ("LC_ALL", "PYTHONPATH")}
    assert made(bad) == plain
    assert made({"LD_PRELOAD": "x", "CUDA_VISIBLE_DEVICES": "9", "Path": "x", "SOMETHING": "new"}) == plain


def test_who_and_where_the_user_is_stays() -> None:
    base = {
        "HOME": "/home/me",
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/lib",
        "LC_CTYPE": "C.UTF-8",
        "LANG": "de",
        "TZ": "UTC",
    }
    assert made(base).items() >= base.items()


def test_what_the_backend_sets_counts_more_and_the_mark_of_the_session_most() -> None:
    found = made({"HOME": "/home/me"}, HOME="/other", OMP_NUM_THREADS="7", UNITP_SESSION="stranger")
    assert (found["HOME"], found["OMP_NUM_THREADS"], found["UNITP_SESSION"]) == ("/other", "7", "secret")


def test_names_that_are_let_through_are_whole_or_beginnings() -> None:
    base = {"CUDA_HOME": "a", "CUDA": "b", "NCCL_DEBUG": "c", "NCCL": "d"}
    assert chosen(base, ("CUDA", "NCCL_*")) == {"CUDA": "b", "NCCL_DEBUG": "c"}


@pytest.mark.parametrize("name", ["PATH", "LD_LIBRARY_PATH", "PYTHONPATH"])
def test_search_paths_lose_the_current_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for here in ("", ".", "./", "x/..", ":", ".:"):
        assert chosen({name: here}, KEPT)[name] == "", here
    assert chosen({name: f":/usr/bin:.:lib::{tmp_path}"}, KEPT)[name] == f"/usr/bin:{tmp_path}/lib:{tmp_path}"
    tmp_path.joinpath("gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    assert chosen({name: ".:/bin"}, KEPT)[name] == "/bin"


def test_what_backends_set_does_not_depend_on_schedulers_and_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    def started() -> list[list[Process]]:
        ports = iter(range(5000, 6000))
        known = [spec.cluster for spec in backends().values()] + [o.value.cluster for o in TRANSPORTS.all().values()]
        return [resolve(cluster)(Mesh(tp=2), lambda: next(ports)) for cluster in known if cluster]

    clean = started()
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    assert started() == clean
    assert all(chosen(HOSTILE, spec.passes) == {} for spec in backends().values())
