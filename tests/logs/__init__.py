"""Recorded logs of released versions: what they did once, they do for ever.

`level-N.jsonl` has one command a line, each with the checksum of the state after it and, if it was refused,
the kind of refusal. `level-N/` is the folder of a member that has these commands in snapshot and log, so the
bytes on disk are kept as well. `shapes.json` is what the fields of all commands and rows are.

A new command or field is added by hand as one more line at the end, without checksum; then
`python -m tests.logs.record` fills in what is missing. It changes nothing that is there. Before a first
release, while nobody has such logs, `--anew` records all that changed.
"""
