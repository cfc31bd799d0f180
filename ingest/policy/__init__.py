"""What ingest decides: values and the time in, decisions out."""
