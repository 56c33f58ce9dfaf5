"""System containers on a cluster: LXD's REST API over a replicated state machine, liblxc, a GPU scheduler."""

VERSION = "5.0.2"
"""What clients are told: the version of LXD whose API this is. They refuse features by API extension."""
