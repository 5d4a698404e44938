"""A manifest says what should be where.

Stager plans it into items, carries each out on the hosts, proves what landed, and when a dataset is
whole puts one trigger on the pipeline's queue. Status is what the database says.
"""

__version__ = "0.1.0"
