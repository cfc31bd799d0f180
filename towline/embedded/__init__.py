"""What `towline up` brings along: a PostgreSQL of its own, and the child processes it keeps alive."""
