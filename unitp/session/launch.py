"""Start a session: check everything that can be checked first, then start the processes and load the parameters.

A bad request starts nothing. The operating system picks the ports. If another process takes one before the framework
does, the start is tried again with others. A port that the user named is the first one used, and must be free.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from shlex import quote

import msgspec

from unitp import plans
from unitp.config import python_of, settings, variables_of
from unitp.cpus import allowed
from unitp.errors import BackendWarning, InputError, IsolationWarning, RankError, did_you_mean
from unitp.frontends.model import Model
from unitp.graph.graph import Graph
from unitp.graph.stored import as_planned, stored_in
from unitp.graph.weights import require_weights
from unitp.host import at_host
from unitp.mesh import Mesh
from unitp.plans import Plan
from unitp.plugins import discover
from unitp.plugins.spec import BackendSpec, ClusterFunction, Process
from unitp.plugins.transports import Carrier, choose
from unitp.program.instructions import Program
from unitp.ranks.cluster import Cluster
from unitp.ranks.environment import KEPT, chosen
from unitp.ranks.interpreters import able_to_run
from unitp.ranks.isolation import Isolation, isolate, require_mode
from unitp.ranks.limits import Limits
from unitp.ranks.status import Places
from unitp.session.capacity import rows_for
from unitp.session.decoder import is_decoder, positions
from unitp.session.session import Session
from unitp.texts import shortened

DEFAULT_CONTEXT = 2048
MOST_THREADS = 4096
TRIES = 3
HOST = "127.0.0.1"
FIRST_PORT = 20000
"""Below those that Linux gives to connections (net.ipv4.ip_local_port_range)."""


def launch(
    model: Model | Graph,
    plan: Plan,
    backend: str | BackendSpec = "numpy",
    *,
    dtype: str = "float32",
    context: int | None = None,
    sequences: int | None = None,
    python: str | None = None,
    port: int = 0,
    threads: int = 1,
    isolation: str = "auto",
    transport: str | None = None,
    limits: Limits | None = None,
    verbose: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Session:
    """Start a session of `backend` that runs `model` as `plan` says. Use it in a `with` statement.

    Weights are stored as the plan was made for (`unitp.plan(weights=)`).

    * `context`: how many tokens the caches of a language model hold per sequence (default: the model's, at most 2048)
    * `sequences`: how many sequences may be open at once (default: 16, or as many as the memory limit of the plan and the
      memory of its machine allow).
      Caches are allocated when they are needed.
    * `python`: the interpreter of the ranks (default: that of the settings, else this one)
    * `port`: the first port to use (default: free ones are picked)
    * `threads`: per rank
    * `isolation`: whether ranks run in a network namespace of their own, which nothing outside can reach: "auto" (if the
      host can make one, else an IsolationWarning says what is reachable), "require" (else HostError) or "off"
    * `transport`: what carries the ranks' collectives: "native" (the framework's own runtime), that of a plug-in ("mpi"), or
      "auto", the one that the backend prefers of those that are installed (default: that of the settings, else "auto")
    * `limits`: the watchdog's time limits (default: the backend's, and longer where ranks share cores)
    * `verbose`: print the output of ranks on standard error, each line with the name of its rank
    * `say`: is called with a text for each stage, once all checks have passed

    Raises InputError or BackendError for a bad request, HostError for what this host cannot do, and RankError if a rank
    does not start.
    """
    require_mode(isolation)
    graph = as_planned(model if isinstance(model, Graph) else model.graph, plan.graph)
    spec = discover.backend(backend) if isinstance(backend, str) else backend
    size, python, carrier = check(
        graph, plan, spec, dtype=dtype, context=context, python=python, threads=threads, transport=transport
    )
    rows = rows_for(graph, plan, size, sequences) if is_decoder(graph) else 1
    variables = variables_of(spec.name, settings())
    limits = (limits or Limits()).of_group(spec.start_limit_s, plan.mesh.size)
    programs: dict[int, Program] = {}
    if spec.prepare:
        inherited = chosen(os.environ, [*KEPT, *spec.passes])
        if slower := discover.resolve(spec.prepare)(python, inherited, say):
            warnings.warn(slower, BackendWarning, stacklevel=2)
    say(f"starting {_ranks(spec, plan.mesh.size, carrier)}")
    with at_host(f"starting {spec.name}"):
        isolated = isolate(isolation, python)
    if isolation == "auto" and not isolated.on and plan.mesh.size > 1:
        _warn(spec, carrier, isolated)
    with closing(isolated):
        places = Places(programs, graph)
        cluster = _start(plan.mesh, spec, carrier, limits, places, isolated, port, threads, verbose, variables)
    stop_ids = model.decoder.stop_ids if isinstance(model, Model) and model.decoder else ()
    session = Session(graph, plan, spec, dtype, cluster, programs, size, rows, stop_ids)
    say(f"loading {count(len(graph.parameters), 'parameter')}")
    try:
        session.load()
    except BaseException:
        session.close()
        raise
    return session


def check(
    graph: Graph,
    plan: Plan,
    spec: BackendSpec,
    *,
    dtype: str = "float32",
    context: int | None = None,
    python: str | None = None,
    threads: int = 1,
    transport: str | None = None,
) -> tuple[int, str, Carrier]:
    """Check a request without starting anything. Return the context, the interpreter of the ranks and their transport.

    Raises what `launch` would raise before it starts anything: ModelError if the graph has no weights, PlanError if the plan is
    not for it, BackendError if the framework is missing, and InputError for a dtype, weights of 16 bits, a context or a number of
    threads that the backend or the model does not allow.
    """
    require_weights(graph)
    plans.require(plan, graph)
    if refused := [kind for kind in stored_in(graph) if kind not in spec.weights]:
        able = [s.name for s in discover.backends().values() if set(refused) <= set(s.weights)]
        raise InputError(
            f"backend {spec.name} does not hold weights in {', '.join(refused)}",
            hint=f"Plan with --weights float32{f', or take backend {chr(32).join(able)}' if able else ''}.",
        )
    if dtype not in spec.dtypes:
        raise InputError(f"backend {spec.name} does not compute in {dtype}", hint=did_you_mean(dtype, spec.dtypes))
    if not 1 <= threads <= MOST_THREADS:
        raise InputError(f"a rank cannot have {shortened(threads)} threads", hint=f"It has from 1 to {MOST_THREADS}.")
    size = context_of(graph, context)
    python = python or python_of(spec.name, settings()) or sys.executable
    return size, python, carrier_of(spec, plan.mesh.size, transport, dtype, python)


def carrier_of(spec: BackendSpec, ranks: int, transport: str | None, dtype: str, python: str) -> Carrier:
    """The transport of ranks in this interpreter (default: that of the settings). Raises BackendError if it, the transport or
    the framework cannot be used.
    """
    wanted = transport or str(settings()["transport"].value)
    if python == sys.executable:
        discover.require(spec, ranks)
        return choose(spec, wanted, ranks, dtype, discover.missing)
    answer = able_to_run(python, spec, ranks)
    return choose(spec, wanted, ranks, dtype, answer.lacking, f"{quote(python)} -m ")


def _ranks(spec: BackendSpec, ranks: int, carrier: Carrier) -> str:
    """How many ranks start, over what, and whether they have to share processors."""
    over = f" over {carrier.runtime}" if ranks > 1 else ""
    cores = len(allowed())
    shared = f", which share {count(cores, 'core')}" if ranks > cores else ""
    return f"{count(ranks, 'rank')} of {spec.name}{over}{shared}"


def _warn(spec: BackendSpec, carrier: Carrier, isolation: Isolation) -> None:
    """Warn about what of a session over this transport can be reached from outside it."""
    if carrier.exposed:
        text = f"sessions of {spec.name} are not isolated: {isolation.why}. {carrier.exposed}."
        warnings.warn(text, IsolationWarning, stacklevel=3)


def count(number: int, what: str) -> str:
    """A number with its noun: `1 rank`, `2 ranks`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def context_of(graph: Graph, context: int | None) -> int:
    """The number of positions that the caches hold: `context`, by default the model's, at most 2048.

    Raises InputError for more positions than the model was made for.
    """
    known = positions(graph) if is_decoder(graph) else None
    if context is None:
        return min(known or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    if context < 1 or (known is not None and context > known):
        most = f" to {known}, which is what the model was made for" if known else " on"
        raise InputError(f"a context of {shortened(context)} tokens cannot be", hint=f"It is from 1{most}.")
    return context


def _start(
    mesh: Mesh, spec: BackendSpec, carrier: Carrier, limits: Limits, places: Places, isolation: Isolation, port: int,
    threads: int, verbose: bool, variables: Mapping[str, str],
) -> Cluster:  # fmt: skip
    """Start the processes. If another process took one of the ports in the meantime, try again.

    The user's settings (`variables`) override what the backend sets, which overrides what is inherited.
    """
    processes: ClusterFunction = discover.resolve(carrier.cluster) if carrier.cluster else _alone
    passed = chosen(os.environ, spec.passes)
    of_role = {"worker": {**passed, **spec.variables}}
    tries = 1 if port else TRIES
    while True:
        tries -= 1
        ports = Ports(port, alone=isolation.on)
        started = processes(mesh, ports.next)
        plan = [
            msgspec.structs.replace(one, env={**of_role.get(one.role, passed), **one.env, **variables})
            for one in started
        ]
        with at_host(f"starting {spec.name}"):
            cluster = Cluster(mesh, spec, limits, places, carrier, verbose=verbose)
        places.pages = cluster.pages
        try:
            with at_host(f"starting {spec.name}"):
                cluster.start(plan, isolation, threads)
        except BaseException as error:
            again = tries > 0 and isinstance(error, RankError) and cluster.collided(carrier.port_taken)
            cluster.close()
            if not again:
                raise
        else:
            return cluster


def _alone(mesh: Mesh, free_port: Callable[[], int]) -> list[Process]:
    """What is started where one rank needs no transport."""
    return [Process("worker", (0,))]


class Ports:
    """Free loopback ports: any, or if the user named one, that and the following. `alone` means a namespace without other users."""

    def __init__(self, first: int = 0, *, alone: bool = False) -> None:
        if not 0 <= first < 1 << 16:
            raise InputError(f"port {first} cannot be", hint="Ports are numbers from 1 to 65535.")
        self._named = first or (FIRST_PORT if alone else 0)
        self._alone = alone
        self._given: set[int] = set()

    def next(self) -> int:
        """A free port that was not given before. Raises InputError if a named port is in use."""
        if self._named:
            port, self._named = self._named, self._named + 1
            if port >= 1 << 16:
                raise InputError("there are not enough ports after the one that is named", hint="Name a lower one.")
            if not self._alone and not _bindable(port):
                raise InputError(
                    f"port {port} is in use", hint="Name another port, or none: then free ones are picked."
                )
            return port
        while (port := _any_port()) in self._given:
            continue
        self._given.add(port)
        return port


def _any_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _bindable(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True
