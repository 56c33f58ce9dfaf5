"""What moves leave behind: rows."""

import msgspec

from cluster.state.table import Stored, Table


class Residue(Stored, frozen=True):
    """Files of an instance that a member is to remove, as they are not the instance's any more.

    Key: "member/pool/project/name".
    """

    member: str  # id
    pool: str
    instance: str  # key

    @property
    def key(self) -> str:
        return f"{self.member}/{self.pool}/{self.instance}"


class Relocation(msgspec.Struct):
    """Where an instance's owner is to send it. Between members."""

    to: str  # member id


RESIDUES: Table[Residue] = Table("residues", Residue)
