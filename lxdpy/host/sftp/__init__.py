"""Files within a container's root, by the protocol of SFTP, version 3 (draft-ietf-secsh-filexfer-02).

`server` runs in a process that has entered the container (`lxdpy.host.lxc.helper`): whatever a path is made
of, links included, the kernel resolves it there, with the rights and the ids of the container's own root. It
does all reading and writing too, as files in a container may be of a file system that never answers. The
daemon speaks to it with `client`; programs of users, such as sshfs, with what they have.
"""
