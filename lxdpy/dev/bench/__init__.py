"""How fast it is: `scripts/bench`. Figures are reported, never asserted.

A shared machine is slower or faster by a factor of two from one hour to the next, so only ratios count that
were taken in one run. Peers (this project, and Debian's LXD if asked for) stand side by side in namespaces of
their own, with the same pool driver and the same image, and take turns: A B A B. Each pair of turns gives
one ratio, and the median of those is what is told.

One client (`load`) drives all peers: it is spare, since on two cores its own work is taken from the daemon's.
"""
