"""What `make load` does: visitors for locust. Needs locust, which lives in an environment of its own."""
