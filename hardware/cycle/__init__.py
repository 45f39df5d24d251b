"""The cycle-level model of a processor. Three steps, each a function of integers alone:

1. `addresses`: positions to the cycles that each level's banks need for each sample,
2. `caches`: the lines that each sample fetches, where tables do not fit,
3. `timing`: a recurrence over samples that yields every start, stall and finish.

The reference of each step is plain NumPy; `compiled.py` does the same in Numba, to the same
integers.
"""
