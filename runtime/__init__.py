"""What every Towline process needs: settings, logs, metrics, tasks, shutdown, clock, malloc tuning.

Imports no service, and no protocol but for runtime.tunnel_link, which drives the tunnel's machine.
"""
