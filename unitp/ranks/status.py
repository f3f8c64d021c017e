"""What a process is doing, in words, from its progress page. Errors use it to name rank and instruction."""

from __future__ import annotations

from collections.abc import Mapping

from unitp.graph.graph import Graph
from unitp.program import text
from unitp.program.instructions import Program
from unitp.ranks.progress import Activity, Page

WORDS = {
    Activity.STARTING: "starting",
    Activity.IMPORTING: "importing the backend (start-up)",
    Activity.JOINING: "joining the group of ranks (start-up)",
    Activity.IDLE: "waiting for a request",
    Activity.ALLOCATING: "making or zeroing states",
    Activity.PROBING: "summing a number over the ranks",
    Activity.CLOSING: "leaving the group of ranks",
    Activity.SERVING: "serving",
}


class Places:
    """A function `places(name)` for the processes with these `pages`. `programs` are numbered as in the pages."""

    def __init__(self, programs: Mapping[int, Program], graph: Graph) -> None:
        self.programs, self.graph = programs, graph
        self.pages: Mapping[str, Page] = {}

    def __call__(self, name: str) -> str:
        page = self.pages.get(name)
        if page is None:
            return "launching ranks"
        activity, subject = page.activity, page.subject
        if activity is Activity.LOADING:
            return f"loading parameter {self.graph.parameters[subject].name}"
        if activity not in (Activity.COMPILING, Activity.RUNNING):
            return WORDS[activity]
        program = self.programs[subject]
        sizes = " ".join(f"{symbol}={n}" for symbol, n in program.sizes.items())
        what = f"{'compiling' if activity is Activity.COMPILING else 'running'} {program.phase} ({sizes})"
        number = page.instruction
        if 0 <= number < len(program.instructions):
            return f"{what}, at {text.at(program, number)}"
        return f"{what}, a segment of {len(program.instructions)} instructions"
