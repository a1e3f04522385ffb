"""Carrying jobs from one broker to another: `dibs move`.

`ends.py` has what a broker must be able to do as the source or the target of a move; each broker does it in a file of
its own. `mover.py` carries batches from one to the other, `tally.py` counts what it did.
"""
