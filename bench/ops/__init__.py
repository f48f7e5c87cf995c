"""One benchmark a file for one op: verified first, then timed against what it replaces."""
