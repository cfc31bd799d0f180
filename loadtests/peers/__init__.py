"""Those beside whom the product is measured: each a context manager that yields a `Target`."""
