"""joserfc's signatures, with EdDSA by the name that providers use."""

from __future__ import annotations

import copy
from typing import Final

from joserfc.jwa import JWSAlgModel
from joserfc.jws import JWSRegistry

OLD_NAME: Final = "EdDSA"
NEW_NAME: Final = "Ed25519"


class Signatures(JWSRegistry):
    """These algorithms and no others. `EdDSA` is Ed25519 alone: joserfc's own would take Ed448 too, and warns
    of the name on each use (RFC 9864 names the curves instead).
    """

    def get_alg(self, name: str) -> JWSAlgModel:
        if name != OLD_NAME or name not in (self.allowed or ()):
            return super().get_alg(name)
        found = copy.copy(self.algorithms[NEW_NAME])
        found.name = OLD_NAME  # keys may be bound to the name
        return found
