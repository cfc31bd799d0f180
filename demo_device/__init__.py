"""A pretend device ("Greenhouse controller") with the habits of real device pages; needs the standard
library alone.
"""
