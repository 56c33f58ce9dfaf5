"""PURE: what is told of the ledger: cards that come, go, fail and recover; but not who holds them."""

from cluster.state.txn import Change


def told(change: Change) -> tuple[str, dict[str, str]] | None:
    """Action and context of a change of the table `gpus`; None for one that is not told. Our own names."""
    before, after = change.before, change.after
    if after is None:
        return "gpu-removed", {}
    context = {"health": after.health, "reason": after.reason, "state": after.state}
    context = {key: value for key, value in context.items() if value}
    if before is None:
        return "gpu-added", context
    same = all(
        getattr(before, field) == getattr(after, field)
        for field in ("health", "reason", "missing", "draining", "claimed_by", "partitioned")
    )
    return None if same else ("gpu-updated", context)
