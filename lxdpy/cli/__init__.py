"""`lxdpy`: what the stock `lxc` cannot do: set a server up, join it to others, make images, look at GPUs.

A verb is a click command over a coroutine; `verbs.py` gives it a client of the local daemon. Everything goes
through the public API: whatever can be done here can be done by others.
"""
