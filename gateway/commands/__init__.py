"""Commands to devices: sent by one entry, published by one dispatcher, ended by devices' answers or time."""
