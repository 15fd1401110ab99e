"""Certificates that only a cluster's own processes and its owner hold: with them etcd knows whom to answer.

Made anew for each cluster and valid for nothing else. Neither another user of the machine nor a page in a browser has
one, so that etcd ends their connections before it reads a request.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CertificateFiles", "client_context", "make_certificates"]

_CLIENT: Final = "client.patroni-db.invalid"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the certificates of a cluster are.

    :param directory: the cluster's folder
    """

    directory: Path

    @property
    def authority(self) -> Path:
        """The certificate of the authority that signed the others."""
        return self.directory / "tls" / "ca.pem"

    @property
    def server(self) -> Path:
        """Key and certificate of etcd."""
        return self.directory / "tls" / "server.pem"

    @property
    def client(self) -> Path:
        """Key and certificate of those that etcd answers."""
        return self.directory / "tls" / "client.pem"


def make_certificates(host: str) -> dict[str, str]:
    """Return the text of each certificate file, by its name in :class:`CertificateFiles`.

    :param host: etcd's address
    """
    import trustme  # noqa: PLC0415 - of the extra `cluster`, which is asked for at the start

    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    # etcd's JSON gateway is a client of etcd's own and shows the server's certificate: trustme's are good for both.
    issued = {
        "server": authority.issue_cert(host, key_type=trustme.KeyType.ECDSA),
        "client": authority.issue_cert(_CLIENT, key_type=trustme.KeyType.ECDSA),
    }
    texts = {name: one.private_key_and_cert_chain_pem.bytes().decode() for name, one in issued.items()}
    return {"authority": authority.cert_pem.bytes().decode(), **texts}


def client_context(files: CertificateFiles) -> ssl.SSLContext:
    """Return what a client needs to speak with etcd.

    :raises OSError: when the files cannot be read
    """
    context = ssl.create_default_context(cafile=files.authority)
    context.load_cert_chain(files.client)
    return context
