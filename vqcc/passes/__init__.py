"""Analysis passes: pure functions from a `Problem` and a `Plan` to a `Plan`, one file each."""
