"""How a rank carries out a program on the arrays of a framework; `base.py` is the contract with backends."""
