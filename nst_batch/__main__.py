"""`python -m nst_batch` is `nst-batch`."""

from nst_batch.cli.program import main

main()
