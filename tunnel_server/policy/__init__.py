"""Pure decisions of the data plane: values in, actions out; no I/O, no clock."""
