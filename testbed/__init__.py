"""The product started for tests and benchmarks: real processes, settings files, people over the real API.

    ports, waiting, programs     what everything else needs
    processes                    start, stop, kill, logs
    settings_tables              what stands in a gateway's, a node's, an agent's file
    services                     their commands, a node's certificate, a device's enrolment
    certificates                 an authority of the run's own, and self-signed ones
    postgres_server, nginx       what stands beside and in front
    ops                          what operators see: readiness, metrics
    people                       who logs in, opens a session, follows a link
    up                           `towline up` as a person starts it
    gateways                     a gateway of N replicas with any settings, as one object

Imports the product and is imported by `tests` and `loadtests`, never the other way round. No pytest in here.
"""
