"""GPUs of a running instance given back for a while, and taken again: parking.

A parked instance runs on without its GPUs. It bears the note PARKED, with which its GPU devices are left out
of what takes effect (`instances.expand`), so that all else follows by itself: what it has is brought in line
with that, by whoever does it, after whatever crash. It is parked by hand, because its cards were idle
(`gpu.idle`), or as its lease ran out (`gpu.lease`). A stop ends it, as does `lxdpy gpu unpark`; a restart
does not.

A program that has a card open keeps it, whatever becomes of the card's file. So it has to end first: by
itself if the card is taken by hand, unless that is forced; it is ended with a lease, or when a card was idle
for too long.

No fence is needed for the sake of the cards of a member that falls silent (for that of its work see
`daemon.fence`): a card can be used on its own member only, nobody but that member says that one of its
instances has given it back, and who is silent is given nothing new. What its instances hold stays theirs
until it speaks again, or has been removed, its cards with it.
"""
