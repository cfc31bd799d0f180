"""`towline up`: the order in which everything starts, and what a person is told meanwhile."""
