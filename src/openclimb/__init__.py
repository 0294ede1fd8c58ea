"""Openclimb: find the best pre-training data mixture for a corpus and a goal, and write it out.

The library is the command line: ``run = openclimb.open("my-run"); run.run(); run.mixture()``.
"""

__version__ = "0.1.0"
