"""The API held to its own document: `make contract`. Every call, with data of every kind, against a role that runs.

stage.py     a database, an api role, and tenants with something in every room
role.py      the api role, with all patience for tokens that are refused
tamer.py     generated calls do not leave this machine, or take away what the run stands on
hooks.py     puts the tamer before every call of schemathesis
__main__.py  runs schemathesis with both kinds of token, and tells what came of it
"""
