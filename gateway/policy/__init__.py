"""Pure decisions: values in, verdicts out. Nothing here does I/O or reads a clock."""
