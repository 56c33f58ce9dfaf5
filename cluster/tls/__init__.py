"""Who is who: key pairs, pinned certificates, and the listener that asks for a certificate and accepts any.

No certificate authority is involved. Identity is the SHA-256 fingerprint of a self-signed certificate; the
fingerprints of clients and members stand in the replicated state, so trust is looked up after the handshake,
by whoever serves the request. Three kinds of context follow from that:

* `openssl.Adapter`: the API's listener. Asks for a certificate and takes any, or none.
* `contexts.pinned_client`: to a server known by its fingerprint; a handshake with another one fails.
* `contexts.Contexts`: Raft between members, verified by OpenSSL itself in both directions against exactly the
  members' certificates. A stranger does not get as far as a frame.
"""
