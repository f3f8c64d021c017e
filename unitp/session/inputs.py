"""The arrays that a user gives to `run`, checked against the graph: names, shapes, symbols, dtypes, all mistakes at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from unitp.engine.engine import Array
from unitp.errors import InputError, did_you_mean
from unitp.files import foreign
from unitp.graph.graph import Graph
from unitp.graph.values import TensorType
from unitp.texts import shortened

MOST_ID = 1 << 62


def bind(graph: Graph, given: Mapping[str, npt.ArrayLike]) -> tuple[dict[str, Array], dict[str, int]]:
    """The inputs as arrays of the graph's dtypes, and the sizes of the symbolic dims. Raises InputError with all mistakes."""
    problems = [
        f'there is no input "{name}" ({did_you_mean(name, graph.inputs)})' for name in given if name not in graph.inputs
    ]
    if absent := [name for name in graph.inputs if name not in given]:
        problems.append(f"no array is given for {', '.join(absent)}")
    arrays: dict[str, Array] = {}
    sizes: dict[str, int] = {}
    for name in filter(given.__contains__, graph.inputs):
        wanted = graph.inputs[name]
        try:
            with foreign(f"{name} is not an array"):  # ragged lists, what is not a number, what is somebody's own
                array = np.asarray(given[name])
        except InputError as error:
            problems.append(error.message)
            continue
        found = _dtype_problem(array, wanted) or _shape_problem(array, wanted, sizes) or _range_problem(array, wanted)
        if found:
            problems.append(f"{name} {found}")
        else:
            arrays[name] = array.astype(wanted.dtype, copy=False)
    if problems:
        raise InputError(
            f"graph {graph.name} cannot run with these inputs: " + "; ".join(problems),
            hint="It takes " + ", ".join(f"{name}: {type_}" for name, type_ in graph.inputs.items()) + ".",
        )
    return arrays, sizes


def _dtype_problem(array: Array, wanted: TensorType) -> str:
    """Return why an array cannot be used in the dtype of an input, or "". Kinds must agree, but integers may be given for floats."""
    kinds = {"float32": "fiu", "float64": "fiu", "int64": "iu", "int32": "iu", "bool": "b"}[wanted.dtype]
    return "" if array.dtype.kind in kinds else f"is {array.dtype} but must be {wanted.dtype}"


def _range_problem(array: Array, wanted: TensorType) -> str:
    """Return why integers do not fit into the dtype of an input, or "". NumPy would wrap them round."""
    if not {array.dtype.kind, np.dtype(wanted.dtype).kind} <= set("iu") or np.can_cast(array.dtype, wanted.dtype):
        return ""
    limits, least, most = np.iinfo(wanted.dtype), int(array.min()), int(array.max())
    return "" if limits.min <= least and most <= limits.max else f"has numbers beyond {wanted.dtype}: {least} to {most}"


def _shape_problem(array: Array, wanted: TensorType, sizes: dict[str, int]) -> str:
    """Why an array's shape does not fit. Sizes of symbolic dims are recorded on the way."""
    if array.ndim != len(wanted.shape):
        return f"has {array.ndim} dims {list(array.shape)} but must have {len(wanted.shape)}: {wanted}"
    for dim, (size, want) in enumerate(zip(array.shape, wanted.shape, strict=True)):
        if size == 0:
            return f"is empty in dim {dim}"
        expected = sizes.setdefault(want, size) if isinstance(want, str) else want
        if size != expected:
            name = f"{want} = {expected}" if isinstance(want, str) else str(want)
            return f"has {size} in dim {dim} but must have {name}"
    return ""


def token_lists(ids: object) -> tuple[list[list[int]], bool]:
    """Prompts as lists of ids, and whether one prompt was given.

    Takes a list of ids, a list of such lists, or an integer array [seq] or [batch, seq]. Raises InputError for others.
    """
    if isinstance(ids, np.ndarray):
        if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2):
            raise InputError(
                f"token ids are {ids.dtype} with {ids.ndim} dims", hint="Give integers, [seq] or [batch, seq]."
            )
        ids = ids.tolist()
    if not isinstance(ids, list | tuple) or not ids:
        raise InputError("no token ids are given", hint="Give a list of integers, or a list of such lists.")
    single = not isinstance(ids[0], list | tuple | np.ndarray)
    with foreign("these are not token ids", hint="Give a list of integers, or a list of such lists."):
        prompts = [list(prompt) for prompt in ([ids] if single else ids)]
    strange = [t for prompt in prompts for t in prompt if not _is_whole(t)]
    if strange:
        raise InputError(f"{shortened(strange[0])} is not a token id", hint="Token ids are integers.")
    return [[int(t) for t in prompt] for prompt in prompts], single


def _is_whole(value: object) -> bool:
    """Whether a value is an integer that an int64 array can hold."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and -MOST_ID <= int(value) <= MOST_ID


def token_rows(ids: npt.ArrayLike) -> list[list[int]]:
    """Return the sequences of `input_ids` [batch, seq]. Raises InputError for another number of dims, and for what is not a token id."""
    with foreign("input_ids is not an array", hint="Sequences in one array are equally long."):
        array = np.asarray(ids)
    if array.ndim != 2:
        raise InputError(
            f"input_ids has {array.ndim} dims {list(array.shape)} but must have 2",
            hint="Write [ids] for one sequence.",
        )
    return token_lists(array)[0]
