"""The Linux device side of the tunnel: dials out, checks every grant itself, splices streams to allowed
local services.
"""
