"""Discrete optimisers put to use: against simulations, at the edge of stability, and what their parameters do."""
