"""The GPUs of this host: which there are, what they are, which device files belong to them.

Everything is read below a `HostRoot`, so a made-up tree (`fake.py`) and the tests' fixtures are read by the
very code that reads a real host. What the kernel does not tell (memory, health and links of NVIDIA cards)
comes from `probe.py`: NVML on the real host, a file in a tree that is not. Nothing here is asynchronous: it
reads small files, and NVML may block, so callers on a loop use a thread.
"""
