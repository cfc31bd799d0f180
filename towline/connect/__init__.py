"""`towline connect`: a local port, or standard input and output, that leads to a TCP service of a device."""
