"""The ``towline`` command, and everything on one machine in one command: ``towline up``.

The only package that may import several services; it does so for their command lines and for the documents
of their settings. At run time the services are processes of their own that meet on the wire.
"""
