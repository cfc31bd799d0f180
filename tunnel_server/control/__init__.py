"""The gateway's internal listener as this node sees it: calls, the revocation feed, presence."""
