"""The control plane: login, devices, sessions, links, revocation. The only owner of Postgres."""
