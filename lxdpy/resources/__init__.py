"""The nouns of the API: folder = first part of the URL after /1.0/, "-" as "_".

Each has the same files: `model.py` (rows, bodies), `commands.py` (what changes the rows), `handlers.py`
(routes), `actions.py` (what the owner does with its hands). `tables.py` and `routes.py` list them: a noun is
added there.
"""
