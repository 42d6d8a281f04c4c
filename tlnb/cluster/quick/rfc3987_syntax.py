"""Stands in for a package of that name in the processes of Ray that are started here: it is as if it were missing.

JupyterLab brings it, jsonschema imports it where it is there, and each process of Ray imports jsonschema. It compiles a
grammar of international addresses meanwhile, for two seconds of a processor, which eight processes at once on a machine
of two make fifteen: the time after which Ray gives up. Nothing in them checks such addresses.
"""

raise ImportError("left out, see the docstring")
