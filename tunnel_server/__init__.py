"""The data plane: holds the devices' tunnels and proxies visitors' browsers into them; it has no database."""
