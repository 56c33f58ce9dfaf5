"""Placement: which member an instance goes to, and which of its GPUs it gets. Pure.

The scheduler sees asks and views, never instances or hosts, so any member may place on its own snapshot. Its
answer is a proposal: the command that records a grant repeats the cheap checks (`refusal`, `ungrantable`)
where all members see the same state, and refuses what raced. Scoring stays out of the log, so two versions
may rank differently and still agree on what was granted.
"""
