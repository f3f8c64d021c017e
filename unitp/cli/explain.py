"""`unitp explain`: the alternatives at a place of a plan, and their costs there and in total."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import rich_click as click

from unitp.cli.options import json_option, machine_option, options, plan_argument, read_machine
from unitp.cli.output import mebibytes, print_json, print_table, progress, remark, say, table
from unitp.cli.show import held_text, known_graph, model_option

if TYPE_CHECKING:
    from unitp.certificate import Unused
    from unitp.explain.alternatives import Alternatives
    from unitp.explain.answers import Place


@click.command("explain")
@plan_argument
@click.argument("name", metavar="[TENSOR|OPERATOR]", required=False)
@options(model_option, machine_option, json_option)
def command(plan_file: str, name: str | None, model: str | None, machine: str | None, as_json: bool) -> None:
    """Show the alternatives at a place of a plan: what each costs there, and in total.

    A place is a weight, a cache, a value or an operator, by name or pattern ("blk.*.ffn_down*"). A weight also stands for the
    operators that read it. Without a place: where a call spends most, and the choices whose alternatives cost least more.
    Costs are for the machine that the plan was made for, or for --machine.
    """
    from unitp.explain.alternatives import Alternatives, machine_note
    from unitp.plan_file import load

    plan, priced_on = load(plan_file), read_machine(machine)
    with progress() as tell:
        tell("pricing every alternative")
        found = Alternatives(plan, known_graph(plan, model), priced_on)
        places = found.at(name) if name else []
        spent, contested = ([], []) if name else (found.expensive(), found.contested())
        exact = found.exact
        left = () if name else found.left_whole()
    if as_json:
        print_json(
            {
                "objective_s": found.objective,
                "fastest_s": found.fastest,
                "held_bytes": found.held_bytes,
                "exact": exact,
                "same_prices": found.same_prices,
                "pins": plan.certificate.pins,
                "places": places,
                "expensive": spent,
                "contested": contested,
                "left_whole": left,
            }
        )
        return
    for place in places:
        _print_place(place, found)
    if not name:
        _print_overview(found, left)
    if note := machine_note(found):
        remark(note)
    if not exact:
        remark("Totals keep all other parameters and caches as they are: what can be reached.")


def _print_place(place: Place, found: Alternatives) -> None:
    """Print a table of the alternatives, with the plan's first."""
    alike = f", {len(place.names)} alike" if len(place.names) > 1 else ""
    where = f"in {place.phase}" if place.phase else "in all phases"
    few = ", ".join(place.names[:3]) + (", ..." if len(place.names) > 3 else "")
    say((place.what, "bold"), f" {where}{alike} ({few})")
    phases = [p.phase.name for p in found.plan.phases]
    rows = table(
        "", "choice", ">own", ">in", ">out", ">regret", ">held", *(f">{p}" for p in phases), ">others", "as a pin"
    )
    for choice in place.alternatives:
        mark = "plan" if choice.chosen else "pinned" if choice.pinned_out else ""
        calls = [milliseconds(choice.phases[p]) if choice.phases else "-" for p in phases]
        rows.add(
            mark,
            choice.choice,
            *(milliseconds(s) for s in (choice.own_s, choice.in_s, choice.out_s)),
            "impossible" if choice.total_s == float("inf") else milliseconds(choice.regret_s),
            mebibytes(choice.held_bytes) if choice.phases else "-",
            *calls,
            str(choice.others or ""),
            choice.pin,
        )
    print_table(rows)
    say("")


def _print_overview(found: Alternatives, left: Sequence[Unused]) -> None:
    say(f"objective {found.objective:.4g} s, which is time alone")
    say(
        held_text(found.plan.certificate)
        if found.same_prices
        else f"holds {mebibytes(found.held_bytes)} per rank on average"
    )
    if (least := found.plan.certificate.any_bound_s) and found.same_prices:
        say(f"no plan takes less than {least:.4g} s, not even one that holds weights in several layouts")
    say("")
    say("Where a call spends most:")
    rows = table("phase", ">alike", ">own", ">in", "place")
    for cost in found.expensive():
        rows.add(cost.phase, str(cost.count), milliseconds(cost.own_s), milliseconds(cost.in_s), cost.what)
    print_table(rows)
    say("")
    say("The choices that another comes nearest to, and what it would cost the objective:")
    near = table("phase", ">alike", ">regret", "choice", "instead", "place")
    for c in found.contested():
        near.add(
            c.phase or "all",
            str(c.count),
            milliseconds(c.regret_s),
            c.choice,
            c.instead,
            c.what,
        )
    print_table(near)
    if not left:
        return
    say("")
    say("Not every product is split over these axes; if all were, the best plan would cost:")
    calls = [p.phase.name for p in found.plan.phases]
    now = found.problem.seconds(found.choice)
    rows = table("over", ">objective", *(f">{phase}" for phase in calls), "left whole by")
    rows.add("this plan", f"{found.objective:.4g} s", *(milliseconds(now[phase]) for phase in calls), "")
    for other in left:
        times = (milliseconds(other.seconds[phase]) for phase in calls)
        rows.add(other.axis, f"{other.objective_s:.4g} s", *times, ", ".join(other.phases))
    print_table(rows)


def milliseconds(seconds: float) -> str:
    """A time in milliseconds with three digits after the point: `0.041 ms`."""
    return f"{seconds * 1e3:.3f} ms" if seconds else "0"
