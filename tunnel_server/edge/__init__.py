"""The visitors' side: HTTP/1.1 in, one canonical request out into a stream, and the answer back."""
