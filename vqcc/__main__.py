"""`python -m vqcc` is `vqcc`."""

from vqcc.cli import main

main()
