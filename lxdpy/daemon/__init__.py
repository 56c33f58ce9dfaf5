"""lxdpyd: puts the parts together, and acts on what this member has applied.

`context.py` is what handlers and actions may reach and so is imported by them; everything else here imports
them.
"""
