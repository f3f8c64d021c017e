"""A backend that was made for another unitp, whose version of the contract this one lacks: it must not even be imported."""

raise SystemExit("a plug-in for another unitp was imported")
