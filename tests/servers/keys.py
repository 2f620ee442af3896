"""An authority and a server's key signed by it, for TLS on loopback.

Owns the calls of openssl. Does not own the servers' settings.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STORE_PASSWORD: Final = "only-for-tests"


@dataclass(frozen=True)
class Keys:
    """For 127.0.0.1: PEM, and PKCS #12 for Java."""

    authority: Path
    certificate: Path
    key: Path
    bundle: Path

    @property
    def of_kafka(self) -> Mapping[str, str]:
        """Give the properties of a Kafka node that shows this certificate."""
        return {
            "ssl.keystore.location": str(self.bundle),
            "ssl.keystore.password": STORE_PASSWORD,
            "ssl.keystore.type": "PKCS12",
            "ssl.truststore.location": str(self.authority),
            "ssl.truststore.type": "PEM",
        }

    @property
    def of_mosquitto(self) -> Mapping[str, str]:
        """Give the lines of a listener that shows this certificate."""
        return {"certfile": str(self.certificate), "keyfile": str(self.key)}


def openssl_refusal() -> str:
    """Tell why no keys can be made here; empty where they can."""
    return "" if shutil.which("openssl") else "no openssl to make keys with"


def make_keys(folder: Path) -> Keys:
    """Make an authority and a key for loopback in an existing folder."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n", encoding="utf-8")
    new_key = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    openssl("req", *new_key, "-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=server")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl("x509", "-req", "-in", "own.csr", *signed, "-out", "own.pem")
    bundled = ("-inkey", "own.key", "-in", "own.pem", "-passout", f"pass:{STORE_PASSWORD}")
    openssl("pkcs12", "-export", *bundled, "-out", "own.p12")
    return Keys(*(folder / name for name in ("ca.pem", "own.pem", "own.key", "own.p12")))
