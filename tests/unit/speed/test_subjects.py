"""Who is measured, and what they are called."""

from __future__ import annotations

import msgspec
import pytest
from speed.subjects import (
    BFLOAT16,
    EVEN_HEADS,
    LLAMA,
    Q4_1,
    TRANSFORMERS,
    Subject,
    chosen,
    everyone,
    of_backend,
    options_of,
)

from unitp.plugins.discover import backends


def test_a_name_says_what_is_not_as_usual():
    assert Subject("numpy").name == "numpy tp=1"
    assert Subject("torch", 2, transport="mpi").name == "torch mpi tp=2"
    assert Subject(LLAMA, threads=2, weights=Q4_1).name == "llama.cpp 2 threads Q4_1"
    assert Subject(TRANSFORMERS).name == "transformers 1 thread"
    assert Subject(TRANSFORMERS, 2, shape=EVEN_HEADS).name == "transformers tp=2 8/4 heads"


def test_no_two_subjects_have_one_name():
    names = [subject.name for subject in everyone(backends())]
    assert len({*names}) == len(names)


def test_every_backend_runs_on_one_rank_and_on_two():
    found = {(s.maker, s.ranks) for s in everyone(backends()) if not s.shape}
    assert {(name, ranks) for name in backends() for ranks in (1, 2)} <= found


def test_each_transport_of_a_backend_is_a_subject():
    spec = msgspec.structs.replace(backends()["torch"], transports=("mpi", "native"))
    found = [*of_backend(spec)]
    assert [(s.ranks, s.transport) for s in found] == [(1, ""), (2, "mpi"), (2, "native")]
    assert options_of(found[0]) == {"threads": 1}
    assert options_of(found[1]) == {"threads": 1, "transport": "mpi"}
    without_its_own = msgspec.structs.replace(spec, cluster="")
    assert [s.transport for s in of_backend(without_its_own)] == ["", "mpi"]
    narrow = [s for s in of_backend(msgspec.structs.replace(spec, weights=(BFLOAT16,))) if s.weights == BFLOAT16]
    assert narrow == [Subject("torch", 2, transport="mpi", weights=BFLOAT16)]


def test_words_choose_subjects_by_their_names():
    subjects = [Subject("numpy"), Subject("torch"), Subject(LLAMA), Subject(LLAMA, threads=2)]
    assert chosen(subjects, "") == subjects
    assert chosen(subjects, "numpy, llama.cpp 2") == [subjects[0], subjects[3]]


def test_a_word_that_nobody_has_in_the_name_is_told():
    with pytest.raises(ValueError, match='no subject has "nunpy" in its name: numpy tp=1'):
        chosen([Subject("numpy")], "numpy,nunpy")
