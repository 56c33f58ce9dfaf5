"""Raft commands of images and aliases."""

import msgspec

from cluster.errors import AlreadyExists, Conflict
from cluster.membership.model import MEMBERS
from cluster.state.command import Command
from cluster.state.etag import check_etag, etag_of
from cluster.state.txn import Txn
from lxdpy.resources.images.model import ALIASES, IMAGES, Alias, Image
from lxdpy.resources.instances.model import INSTANCES

replace = msgspec.structs.replace


class AddImage(Command, frozen=True, tag="image.add"):
    image: Image

    def apply(self, txn: Txn) -> None:
        if txn.find(IMAGES, self.image.key) is not None:
            raise AlreadyExists("Image with same fingerprint already exists")
        txn.insert(IMAGES, self.image.key, self.image)


class UpdateImage(Command, frozen=True, tag="image.update"):
    key: str
    public: bool
    auto_update: bool
    properties: dict[str, str]
    profiles: tuple[str, ...]
    expires_at: float
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.get(IMAGES, self.key)
        check_etag(self.etag, image_etag(before))
        after = replace(
            before,
            public=self.public,
            auto_update=self.auto_update,
            properties=self.properties,
            profiles=self.profiles,
            expires_at=self.expires_at,
        )
        txn.put(IMAGES, self.key, after)


class HoldImage(Command, frozen=True, tag="image.hold"):
    """A member has the image's files now, or (`holds` false) has them no more."""

    key: str
    member: str
    holds: bool = True

    def apply(self, txn: Txn) -> None:
        txn.get(MEMBERS, self.member)  # a removed one may still have had a report on its way
        row = txn.get(IMAGES, self.key)
        others = tuple(m for m in row.members if m != self.member)
        txn.put(IMAGES, self.key, replace(row, members=(*others, self.member) if self.holds else others))


class UseImage(Command, frozen=True, tag="image.use"):
    """Note that an instance was made of it."""

    key: str

    def apply(self, txn: Txn) -> None:
        txn.get(IMAGES, self.key)
        use(txn, self.key)


class KeepImage(Command, frozen=True, tag="image.keep"):
    """It was only cached, and now somebody wants it for itself."""

    key: str
    public: bool
    auto_update: bool

    def apply(self, txn: Txn) -> None:
        row = txn.get(IMAGES, self.key)
        if row.cached:
            after = replace(row, cached=False, public=self.public, auto_update=self.auto_update)
            txn.put(IMAGES, self.key, after)


class ExpireImage(Command, frozen=True, tag="image.expire"):
    """Forget a cached image that nobody has used since `before`, unix seconds. Raises Conflict otherwise."""

    key: str
    before: float

    def apply(self, txn: Txn) -> None:
        row = txn.get(IMAGES, self.key)
        if not row.cached or row.last_used_at >= self.before or row.fingerprint in in_making(txn):
            raise Conflict("The image is in use again", fingerprint=row.fingerprint)
        delete(txn, row)


class ReplaceImage(Command, frozen=True, tag="image.replace"):
    """A newer one takes the place of an image, its aliases with it. It may be there already.

    Raises Conflict while an instance is being built of the older one.
    """

    key: str
    image: Image

    def apply(self, txn: Txn) -> None:
        before, new = txn.get(IMAGES, self.key), self.image
        if before.fingerprint in in_making(txn):
            raise Conflict("Instances are being made of the image", fingerprint=before.fingerprint)
        there = txn.find(IMAGES, new.key)
        txn.put(IMAGES, new.key, new if there is None else there)
        for alias in list(txn.rows(ALIASES).values()):
            if alias.project == before.project and alias.target == before.fingerprint:
                txn.put(ALIASES, alias.key, replace(alias, target=new.fingerprint))
        txn.delete(IMAGES, before.key)


class DeleteImage(Command, frozen=True, tag="image.delete"):
    """Forget the image and its aliases; members drop its files when they apply this."""

    key: str

    def apply(self, txn: Txn) -> None:
        delete(txn, txn.get(IMAGES, self.key))


class CreateAlias(Command, frozen=True, tag="image-alias.create"):
    alias: Alias

    def apply(self, txn: Txn) -> None:
        txn.get(IMAGES, f"{self.alias.project}/{self.alias.target}")
        if txn.find(ALIASES, self.alias.key) is not None:
            raise AlreadyExists(f'Alias "{self.alias.name}" already exists')
        txn.insert(ALIASES, self.alias.key, self.alias)


class UpdateAlias(Command, frozen=True, tag="image-alias.update"):
    key: str
    description: str
    target: str
    etag: str = ""

    def apply(self, txn: Txn) -> None:
        before = txn.get(ALIASES, self.key)
        check_etag(self.etag, etag_of(before))
        txn.get(IMAGES, f"{before.project}/{self.target}")
        txn.put(ALIASES, self.key, replace(before, description=self.description, target=self.target))


class RenameAlias(Command, frozen=True, tag="image-alias.rename"):
    key: str
    name: str

    def apply(self, txn: Txn) -> None:
        after = replace(txn.get(ALIASES, self.key), name=self.name)
        if txn.find(ALIASES, after.key) is not None:
            raise AlreadyExists(f'Alias "{self.name}" already exists')
        txn.insert(ALIASES, after.key, after)
        txn.delete(ALIASES, self.key)


class DeleteAlias(Command, frozen=True, tag="image-alias.delete"):
    key: str

    def apply(self, txn: Txn) -> None:
        txn.delete(ALIASES, self.key)


def use(txn: Txn, key: str) -> None:
    """An instance is made of it, if it is there."""
    if row := txn.find(IMAGES, key):
        txn.put(IMAGES, key, replace(row, last_used_at=txn.now))


def in_making(txn: Txn) -> set[str]:
    """Fingerprints of images that instances are being built of, in whatever project."""
    rows = txn.rows(INSTANCES).values()
    return {row.source.fingerprint for row in rows if row.status == "Creating"}


def delete(txn: Txn, row: Image) -> None:
    """And its aliases."""
    txn.delete(IMAGES, row.key)
    for alias in list(txn.rows(ALIASES).values()):
        if alias.project == row.project and alias.target == row.fingerprint:
            txn.delete(ALIASES, alias.key)


def held_by(txn: Txn, member: str) -> list[str]:
    """Fingerprints of images that nobody else has."""
    return [row.fingerprint for row in txn.rows(IMAGES).values() if row.members == (member,)]


def forget_member(txn: Txn, member: str) -> None:
    """Images that nobody else has are gone with it."""
    for row in list(txn.rows(IMAGES).values()):
        rest = tuple(other for other in row.members if other != member)
        if rest:
            txn.put(IMAGES, row.key, replace(row, members=rest))
        elif row.members:
            delete(txn, row)


def image_etag(image: Image) -> str:
    return etag_of(image.public, image.auto_update, image.properties, image.profiles)


COMMANDS: tuple[type[Command], ...] = (
    AddImage,
    UpdateImage,
    HoldImage,
    UseImage,
    KeepImage,
    ExpireImage,
    ReplaceImage,
    DeleteImage,
    CreateAlias,
    UpdateAlias,
    RenameAlias,
    DeleteAlias,
)
