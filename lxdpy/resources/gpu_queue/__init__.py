"""/1.0/gpu-queue: requests that wait for GPUs, and groups of instances that are granted all or none.

Such a request is a row, a `Turn`, and belongs to no member: whoever took it may die. Its operation is made
from the row, by any member, until it is granted. The leader looks at the queue whenever something has changed
(`plan` in cluster/scheduler), and proposes what follows from it: which GPUs are kept for the first, who is
served. Each is checked again in its apply, where all members see the same rows: nobody is granted what is
kept for somebody before it, be it another of the queue or a request that does not wait. A member that was
chosen finds the grant among what it applies and carries it out, under the id that the client was told;
after a crash, at its next start.
"""
