"""Banks: who owns which rows of the caches. A session has a fixed number of rows, one for each open sequence.

A *bank* is one set of all states, with a row for each of the sequences that are fed together. A bank is leased: only the
holder of the lease runs programs on it, and its rows are free again when the lease is closed or garbage-collected. A bank
keeps its contents until its rows are needed, so that the next conversation with the same beginning can reuse them. The
session tells the ranks: it allocates a bank that is not `made`, zeroes one that is `dirty`, and frees the `doomed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import ref

from unitp.errors import InputError

Tokens = list[int]


class Bank:
    """One set of all states. `number` is its id in the ranks (0 means no bank), `held` the tokens of each row.

    `sizes` are those of the symbolic dims of the states. A `dirty` bank has contents that nobody may see, so it is zeroed
    before its next use.
    """

    def __init__(self, number: int, sizes: Mapping[str, int], rows: int, *, made: bool) -> None:
        self.number, self.sizes, self.rows = number, dict(sizes), rows
        self.held: list[Tokens] = [[] for _ in range(rows)]
        self.made = self.dirty = made

    def spoil(self) -> None:
        """Forget the contents, which are of no use."""
        self.held = [[] for _ in range(self.rows)]
        self.dirty = self.made

    def shared(self, prompts: Sequence[Tokens]) -> int:
        """How many tokens of `prompts` need not be computed again, because the rows begin with them."""
        return sum(_alike(held, prompt) for held, prompt in zip(self.held, prompts, strict=True))

    def keep(self, prompts: Sequence[Tokens]) -> None:
        """Forget all tokens after the common beginnings of rows and prompts."""
        for held, prompt in zip(self.held, prompts, strict=True):
            del held[_alike(held, prompt) :]


def _alike(held: Tokens, prompt: Tokens) -> int:
    """The length of the common beginning. The last token of a prompt is always fed, because its outputs are needed."""
    most = min(len(held), len(prompt) - 1)
    return next((i for i in range(most) if held[i] != prompt[i]), most)


class Lease:
    """The right to use a bank, until the lease is closed or garbage-collected."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.closed = False

    def close(self) -> None:
        """Give the rows back. Any thread may call it, also twice."""
        self.closed = True


class Banks:
    """The rows of a session. `spared` is the bank whose rows are taken last."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.spared: Bank | None = None
        self.doomed: list[int] = []
        self._open: list[tuple[ref[Lease], Bank]] = []
        self._idle: list[Bank] = []
        self._number = 0

    def lease(self, sizes: Mapping[str, int], rows: int, prompts: Sequence[Tokens] = ()) -> Lease:
        """A lease of a bank for `rows` sequences; if `prompts` are given, of the idle bank that shares most tokens with them.

        Raises InputError if there are not enough free rows.
        """
        self._take_back()
        self._require(rows)
        alike = [bank for bank in self._idle if bank.sizes == sizes and bank is not self.spared]
        best = max(alike, key=lambda bank: bank.shared(prompts), default=None) if prompts else None
        if best is not None and best.shared(prompts):
            self._idle.remove(best)
            best.keep(prompts)
            return self._opened(best)
        return self._opened(self._vacant(sizes, rows))

    def again(self, bank: Bank) -> Lease | None:
        """A new lease of the same bank with its contents, or None if its rows have been given to others."""
        self._take_back()
        if bank not in self._idle:
            return None
        self._idle.remove(bank)
        return self._opened(bank)

    def _opened(self, bank: Bank) -> Lease:
        lease = Lease(bank)
        self._open.append((ref(lease), bank))
        return lease

    def _take_back(self) -> None:
        """Move banks whose leases have ended to the idle ones."""
        opened, self._open = self._open, []
        for lease, bank in opened:
            held = lease()
            if held is None or held.closed:
                self._idle.append(bank)
            else:
                self._open.append((lease, bank))

    def _require(self, rows: int) -> None:
        taken = sum(bank.rows for _, bank in self._open)
        if taken + rows <= self.rows:
            return
        open_ = f"; {taken} of them are taken by what is open" if taken else ""
        raise InputError(
            f"{rows} {'sequence needs a row' if rows == 1 else 'sequences need a row each'} of the caches, "
            f"and the session has {self.rows}{open_}",
            hint=f"Launch it with sequences={taken + rows}"
            + (", or end or drop a generation that is open." if taken else "."),
        )

    def _vacant(self, sizes: Mapping[str, int], rows: int) -> Bank:
        """An empty bank: an idle one of the same sizes, else a new one. Idle banks are freed until there is room for it."""
        idle = sorted(self._idle, key=lambda bank: bank is self.spared)
        reused = next((bank for bank in idle if bank.sizes == sizes and bank is not self.spared), None)
        taken = sum(bank.rows for _, bank in self._open)
        while reused is None and taken + sum(bank.rows for bank in self._idle) + rows > self.rows:
            bank = idle.pop(0)
            if bank.sizes == sizes:
                reused = bank
            else:
                self._idle.remove(bank)
                self.doomed += [bank.number] if bank.made else []
        if reused is None:
            self._number += 1
            return Bank(self._number, sizes, rows, made=False)
        self._idle.remove(reused)
        return Bank(reused.number, sizes, rows, made=reused.made)


class LastRun:
    """The states that the last `run` left, for a run with `keep`. Generations do not touch them."""

    def __init__(self, banks: Banks) -> None:
        self._banks = banks
        self._bank: Bank | None = None
        self._problem = ""

    @property
    def length(self) -> int:
        """How many tokens its longest row holds."""
        return max(map(len, self._bank.held), default=0) if self._bank is not None else 0

    def forget(self, problem: str = "") -> None:
        """Let the next run start from zeros. If there is a `problem`, a run with `keep` fails with it."""
        if self._bank is not None:
            self._bank.spoil()  # nobody has looked whether it holds finite numbers
        self._bank, self._problem, self._banks.spared = None, problem, None

    @contextmanager
    def states(self, sizes: Mapping[str, int], rows: int, keep: bool, *, by_tokens: bool = False) -> Iterator[Bank]:
        """A context with the bank of a run: with `keep` what the last run left, otherwise (or if there was none) zeros.

        With `by_tokens` the run records the tokens of its rows. Raises InputError if nothing is left to keep. After a run that
        fails, nothing is left.
        """
        lease = self._kept(sizes, by_tokens) if keep and (self._bank or self._problem) else None
        if lease is None:
            self._banks.spared = None  # its rows may be needed
            try:
                lease = self._banks.lease(sizes, rows)
            finally:
                self._banks.spared = self._bank
            self.forget()
        bank, self._bank, self._problem = lease.bank, None, "the last run failed"
        if not by_tokens:
            bank.held = [[] for _ in bank.held]
        try:
            yield bank
        except BaseException:
            bank.spoil()  # ranks may have written something
            raise
        finally:
            lease.close()
        self._bank, self._problem, self._banks.spared = bank, "", bank

    def _kept(self, sizes: Mapping[str, int], by_tokens: bool) -> Lease:
        bank, problem = self._bank, self._problem
        if bank is not None and bank.sizes != sizes:
            problem = f"the last run had {_sizes(bank.sizes)}, this one has {_sizes(sizes)}"
        elif bank is not None and by_tokens and not all(bank.held):
            problem = "the last run was given its places in the caches, and what they hold is not known"
        elif bank is not None and (lease := self._banks.again(bank)) is not None:
            return lease
        problem = problem or "its rows of the caches were needed for other sequences (launch with more of them)"
        raise InputError(f"there is nothing to keep: {problem}", hint="Run without keep, or reset the session.")


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{symbol}={n}" for symbol, n in sizes.items())
