"""The language of devices: topics, envelopes, numbers, commands. Values in, values out; nothing is sent here.

The words and the rules: docs/protocol/device-v1.md.
"""
