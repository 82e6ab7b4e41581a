"""DKIM: is the message what its signer signed? RFC 6376 as updated by RFC 8301, 8463 and 8616; `sign` makes signatures.

`check` judges every signature, `verdict` makes SES's dkimVerdict of that. dkimpy is the reference that the tests hold both to.
"""

from inbound.assess.dkim.check import check, is_signed
from inbound.assess.dkim.keys import KeyLookup
from inbound.assess.dkim.results import DkimResults, Result, Signature, verdict

__all__ = ["DkimResults", "KeyLookup", "Result", "Signature", "check", "is_signed", "verdict"]
