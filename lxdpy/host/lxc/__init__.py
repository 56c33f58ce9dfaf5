"""LXC containers: configuration, life and death, processes inside. Knows containers, never instances.

Who does what, and why (all measured or reproduced with liblxc 5.0.2):

* The daemon's process never calls liblxc. `start` moves its *caller* into the container's monitor group,
  `attach` leaks a pidfd for each call and calls `_exit(1)` in its caller when a signal with a handler
  interrupts it, and python3-lxc holds the GIL: waiting 30 s for a shutdown would stop Raft's clock.
* `runtime` starts a container by spawning /usr/bin/lxc-start with a PATH that has no newuidmap in it: liblxc
  then writes the id map itself, which halves the time. The monitor is a small C process (0.4 MB).
* `helper` is a child process, alone with its thread: for each request it forks a child that may enter
  namespaces, attach or mount, and that ends at once. What it attached is re-parented to the helper (a child
  subreaper), which collects exit statuses; no process stays for a session.
* `monitor` learns of the end of containers by pidfds, so it need not be their parent: after a restart of the
  daemon, or its kill -9, `Runtime.reattach` opens them again.
* Control groups have fixed names (`lxdpy.host.cgroups`) and are read and written as files.
"""
