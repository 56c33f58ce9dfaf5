"""Properties of images: free text, so nothing is refused; those that mean something are told here."""

from lxdpy.config.key import Key, KeyTable

IMAGE = KeyTable("image", [
    Key(name="architecture", doc="What it runs on, as the image's maker calls it."),
    Key(name="description", doc="One line to show in lists."),
    Key(name="name", doc="What its maker calls it."),
    Key(name="os", doc="The operating system inside."),
    Key(name="release", doc="The operating system's release."),
    Key(name="requirements.*", doc="What it needs to run, as `requirements.nesting`."),
    Key(name="serial", doc="Date or number that tells builds of the same release apart."),
    Key(name="variant", doc="Which of several builds of a release this is."),
    Key(name="*", doc="Anything you like."),
])  # fmt: skip
