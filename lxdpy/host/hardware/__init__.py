"""What this host has, read from the kernel's trees below a HostRoot, in the shapes of LXD's /1.0/resources.

All of it is blocking file reading (5 to 50 ms in all), to be called by `asyncio.to_thread`. Fields that LXD
leaves out when they are empty have defaults here and are left out too. GPUs: `lxdpy.host.gpu.resources`.
"""
