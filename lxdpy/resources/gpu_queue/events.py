"""PURE: what is told of the queue for GPUs: who comes, who is served, who leaves without."""

from cluster.state.txn import Change


def told(change: Change) -> tuple[str, dict[str, str]] | None:
    """Action and context of a change of the table `gpu_queue`; None: it is not told. Our own names."""
    before, after = change.before, change.after
    if after is None:
        return None
    context = {"instances": ",".join(key.partition("/")[2] for key in after.keys)}
    if after.status == "waiting" and before is None:
        return "gpu-queue-joined", context
    if before is None or before.status == after.status:
        return None
    if after.status == "granted" and before.status == "waiting":
        return "gpu-queue-granted", context
    return ("gpu-queue-left", context | {"reason": after.err}) if after.status == "ended" else None
