"""The commands of `vc`, a module each; `client/cli.py` imports one when it is called."""
