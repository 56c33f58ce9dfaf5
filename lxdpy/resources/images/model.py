"""Images and their aliases: rows and bodies."""

import msgspec

from cluster.state.table import Stored, Table


class Remote(Stored, frozen=True):
    """Where an image was got from, and can be asked for again."""

    server: str
    alias: str  # what is asked for; "": it was got by its fingerprint, and there is nothing newer
    certificate: str = ""  # of the server (PEM); "": one that the host trusts
    protocol: str = "lxd"


class Asked(Stored, frozen=True):
    """An image of another server that is to be had, as it was asked for."""

    server: str
    alias: str = ""
    fingerprint: str = ""  # its beginning may be enough; clients put an alias here as well
    certificate: str = ""  # as in `Remote`
    protocol: str = "lxd"
    secret: str = ""  # by which that server gives away an image that is not public
    project: str = ""  # of that server

    @property
    def name(self) -> str:
        return self.alias or self.fingerprint


class Image(Stored, frozen=True):
    """An image. Key: "project/fingerprint". `members` (ids) hold its files."""

    project: str
    fingerprint: str
    filename: str = ""
    size: int = 0  # bytes, of all files
    architecture: str = ""
    public: bool = False
    auto_update: bool = False
    properties: dict[str, str] = {}
    profiles: tuple[str, ...] = ("default",)
    created_at: float = 0.0  # of its making, from the metadata
    uploaded_at: float = 0.0
    expires_at: float = 0.0  # 0: never
    last_used_at: float = 0.0
    split: bool = False  # metadata and rootfs are separate files
    members: tuple[str, ...] = ()
    remote: Remote | None = None
    cached: bool = False  # got for an instance, by itself: it goes when it has not been used for long

    @property
    def key(self) -> str:
        return f"{self.project}/{self.fingerprint}"


def notes_of(image: Image) -> dict[str, str]:
    """What the config of an instance tells of the image that it was made of."""
    said = {f"image.{key}": value for key, value in image.properties.items()}
    return said | {"volatile.base_image": image.fingerprint}


class Alias(Stored, frozen=True):
    """A name for an image. Key: "project/name"; names may hold slashes."""

    project: str
    name: str
    target: str  # fingerprint
    description: str = ""
    type: str = "container"

    @property
    def key(self) -> str:
        return f"{self.project}/{self.name}"


class ImageSource(msgspec.Struct):
    """What a new image is made of, if no files are sent."""

    type: str = ""
    name: str = ""  # of an instance, or `instance/snapshot`
    project: str = ""
    # Of an image, here or on another server:
    server: str = ""
    protocol: str = ""
    certificate: str = ""
    alias: str = ""
    fingerprint: str = ""
    secret: str = ""
    mode: str = ""


class NewAlias(msgspec.Struct):
    name: str = ""
    description: str = ""


class ImagesPost(msgspec.Struct):
    source: ImageSource = msgspec.field(default_factory=ImageSource)
    filename: str = ""
    public: bool = False
    auto_update: bool = False
    properties: dict[str, str] | None = None  # null: those of the image that the instance was made of
    profiles: list[str] | None = None
    expires_at: str | None = None
    compression_algorithm: str = ""
    aliases: list[NewAlias] | None = None


IMAGES: Table[Image] = Table("images", Image)
ALIASES: Table[Alias] = Table("image_aliases", Alias)
