"""Entry points that need others: which of them have to run, and running them."""
