"""Tuning: candidates of the cost model timed on a GPU, and the lock file that records what they took."""
