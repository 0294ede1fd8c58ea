"""How sure a difference is: intervals, the model of trial noise, and the correction for several comparisons."""
