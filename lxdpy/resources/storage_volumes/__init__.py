"""/1.0/storage-pools/<pool>/volumes. Custom volumes have rows of their own; instances and images are looked
at only, as they have nouns to change them by.

A custom volume lies on one member. Several members may have one of the same name, each its own; a request
that could mean two has to name a member with `?target=`.
"""
