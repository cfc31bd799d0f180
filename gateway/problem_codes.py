"""Every code that a problem of the gateway can have: the one table for programs, people and the reference.

A code never changes its meaning. `Problem` takes no code that is missing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final


@dataclass(frozen=True, slots=True)
class ProblemCode:
    """What one code says. `internal`: only nodes are told it."""

    status: HTTPStatus
    meaning: str
    internal: bool = False


_S = HTTPStatus

CODES: Final[dict[str, ProblemCode]] = {
    "bad_authorization": ProblemCode(
        _S.BAD_REQUEST, "an app asks for a login in a way that cannot be answered"
    ),
    "bad_json": ProblemCode(
        _S.BAD_REQUEST, "the body is not JSON as RFC 8259 has it, in UTF-8, each member once"
    ),
    "bad_link": ProblemCode(_S.BAD_REQUEST, "no link of this gateway, or for another host"),
    "bad_request": ProblemCode(_S.BAD_REQUEST, "the request cannot be understood"),
    "login_not_open": ProblemCode(
        _S.BAD_REQUEST, "a login by a provider took too long, was used, or began in another browser"
    ),
    "login_needed": ProblemCode(_S.UNAUTHORIZED, "no login, or it ended"),
    "bad_device_token": ProblemCode(
        _S.UNAUTHORIZED, "no device's token, or it is over: the device asks for its connection again"
    ),
    "wrong_login": ProblemCode(_S.UNAUTHORIZED, "name, password or welcome secret is wrong"),
    "bad_nonce": ProblemCode(_S.FORBIDDEN, "the nonce is unknown, used or over two minutes old"),
    "bad_signature": ProblemCode(_S.FORBIDDEN, "not signed by the device's key"),
    "binding": ProblemCode(
        _S.FORBIDDEN, "a link of binding `browser` was given directly, or a `click` link asks for a code"
    ),
    "cross_origin": ProblemCode(_S.FORBIDDEN, "the request does not come from the gateway's own pages"),
    "device_pending": ProblemCode(_S.FORBIDDEN, "the device is not approved yet"),
    "device_rejected": ProblemCode(_S.FORBIDDEN, "the device was rejected"),
    "device_revoked": ProblemCode(_S.FORBIDDEN, "the device was revoked"),
    "forbidden": ProblemCode(_S.FORBIDDEN, "your role, or your API token's scopes, do not allow this"),
    "person_needed": ProblemCode(
        _S.FORBIDDEN, "no API token does this, whatever its scopes: a person must, by a login"
    ),
    "account_disabled": ProblemCode(_S.FORBIDDEN, "an administrator disabled the account"),
    "email_domain": ProblemCode(
        _S.FORBIDDEN, "the provider does not vouch for an address of this organisation"
    ),
    "no_account": ProblemCode(_S.FORBIDDEN, "the person has no account, and logging in opens none"),
    "login_denied": ProblemCode(_S.FORBIDDEN, "the provider did not log the person in"),
    "pending": ProblemCode(_S.FORBIDDEN, "the device may not connect yet", internal=True),
    "registration_token_unknown": ProblemCode(_S.FORBIDDEN, "no such registration token"),
    "revoked": ProblemCode(_S.FORBIDDEN, "the device may not connect", internal=True),
    "wrong_kind": ProblemCode(_S.FORBIDDEN, "the link is for the other kind of service (web, tcp)"),
    "wrong_peer": ProblemCode(_S.FORBIDDEN, "the certificate is another kind of peer's", internal=True),
    "wrong_node": ProblemCode(_S.FORBIDDEN, "the certificate names another node", internal=True),
    "not_found": ProblemCode(_S.NOT_FOUND, "does not exist, or is not yours"),
    "unknown_service": ProblemCode(_S.NOT_FOUND, "the device has announced no such service"),
    "method_not_allowed": ProblemCode(
        _S.METHOD_NOT_ALLOWED, "the address does not take this method; see `Allow`"
    ),
    "already_asked": ProblemCode(_S.CONFLICT, "you have an open support request for this device"),
    "already_member": ProblemCode(_S.CONFLICT, "you have that role there already, or a greater one"),
    "already_there": ProblemCode(_S.CONFLICT, "the device is in this site"),
    "device_not_approved": ProblemCode(_S.CONFLICT, "the device is pending, rejected or revoked"),
    "device_offline": ProblemCode(_S.CONFLICT, "no node holds a tunnel of the device"),
    "hardware_id_conflict": ProblemCode(
        _S.CONFLICT,
        "a device with this hardware id is enrolled: its owner revokes it, or an administrator frees the id",
    ),
    "idempotency_key_in_use": ProblemCode(
        _S.CONFLICT, "a request with this key is being answered: ask again"
    ),
    "last_admin": ProblemCode(_S.CONFLICT, "make somebody else an administrator first"),
    "last_owner": ProblemCode(_S.CONFLICT, "make somebody else an owner first"),
    "not_released": ProblemCode(_S.CONFLICT, "the device has an owner, who must release it first"),
    "org_not_empty": ProblemCode(_S.CONFLICT, "delete the org's sites first"),
    "site_not_empty": ProblemCode(_S.CONFLICT, "revoke the site's devices or release them first"),
    "token_does_not_approve": ProblemCode(_S.CONFLICT, "a claim needs a registration token that approves"),
    "too_many_api_tokens": ProblemCode(_S.CONFLICT, "end one of your API tokens first"),
    "too_many_device_types": ProblemCode(_S.CONFLICT, "the installation has as many types as it can"),
    "too_many_invitations": ProblemCode(_S.CONFLICT, "withdraw an open invitation first"),
    "too_many_members": ProblemCode(_S.CONFLICT, "nobody else fits in there"),
    "too_many_orgs": ProblemCode(_S.CONFLICT, "you own as many orgs as a person can"),
    "too_many_sites": ProblemCode(_S.CONFLICT, "the org has as many sites as it can"),
    "user_not_disabled": ProblemCode(_S.CONFLICT, "only a disabled person is succeeded: disable them first"),
    "username_taken": ProblemCode(_S.CONFLICT, "somebody has this name"),
    "wrong_state": ProblemCode(_S.CONFLICT, "the support request's state does not allow this step"),
    "wrong_status": ProblemCode(_S.CONFLICT, "the device's status does not allow this step"),
    "invitation_gone": ProblemCode(_S.GONE, "the invitation is unknown, used or too old"),
    "invitation_void": ProblemCode(_S.GONE, "whoever invited may not give this role any more"),
    "link_expired": ProblemCode(_S.GONE, "open the device again"),
    "link_used": ProblemCode(_S.GONE, "open the device again"),
    "registration_token_expired": ProblemCode(_S.GONE, "make a new one"),
    "registration_token_used": ProblemCode(_S.GONE, "make a new one"),
    "registration_token_void": ProblemCode(
        _S.GONE, "who made it may not do so any more, or by an API token that was ended"
    ),
    "session_ended": ProblemCode(_S.GONE, "open the device again"),
    "version_conflict": ProblemCode(_S.PRECONDITION_FAILED, "it changed since the `ETag` of your `If-Match`"),
    "too_large": ProblemCode(_S.REQUEST_ENTITY_TOO_LARGE, "the body is too large"),
    "unsupported_media_type": ProblemCode(
        _S.UNSUPPORTED_MEDIA_TYPE, "the body must be `application/json` in UTF-8"
    ),
    "bad_parameter": ProblemCode(
        _S.UNPROCESSABLE_ENTITY,
        "`field` of a command's parameters, or of a configuration, is not what the device's type says",
    ),
    "unknown_device_type": ProblemCode(_S.UNPROCESSABLE_ENTITY, "there is no such type of devices"),
    "unsupported_configuration": ProblemCode(
        _S.UNPROCESSABLE_ENTITY, "devices of this type take no configuration"
    ),
    "unsupported_command": ProblemCode(
        _S.UNPROCESSABLE_ENTITY, "the device, or its type, does not know this command"
    ),
    "idempotency_key_reused": ProblemCode(
        _S.UNPROCESSABLE_ENTITY, "this `Idempotency-Key` was sent with another request"
    ),
    "log_full": ProblemCode(
        _S.SERVICE_UNAVAILABLE, "the log holds all it may of what nobody has stored", internal=True
    ),
    "log_refused": ProblemCode(
        _S.UNPROCESSABLE_ENTITY, "the log never takes this: no such part, or no entries", internal=True
    ),
    "invalid_field": ProblemCode(
        _S.UNPROCESSABLE_ENTITY, "`field` is missing, malformed, unknown or out of range"
    ),
    "upgrade_required": ProblemCode(_S.UPGRADE_REQUIRED, "this address speaks WebSocket alone"),
    "too_many_requests": ProblemCode(_S.TOO_MANY_REQUESTS, "a rate limit; `Retry-After` says how long"),
    "too_many_commands": ProblemCode(_S.TOO_MANY_REQUESTS, "as many wait for the device as can"),
    "too_many_sessions": ProblemCode(_S.TOO_MANY_REQUESTS, "end one of your sessions first"),
    "too_many_exports": ProblemCode(_S.TOO_MANY_REQUESTS, "let one of your exports end first"),
    "too_many_streams": ProblemCode(_S.TOO_MANY_REQUESTS, "end one of your event streams first"),
    "internal": ProblemCode(_S.INTERNAL_SERVER_ERROR, "the gateway failed; its log says why"),
    "provider_refused": ProblemCode(_S.BAD_GATEWAY, "the provider gave an answer that cannot be trusted"),
    "device_away": ProblemCode(
        _S.SERVICE_UNAVAILABLE, "the device is not connected, and the command was not to wait for it"
    ),
    "ingest_unavailable": ProblemCode(
        _S.SERVICE_UNAVAILABLE, "what devices say cannot be taken now: say it again after `Retry-After`"
    ),
    "provider_unavailable": ProblemCode(_S.SERVICE_UNAVAILABLE, "the provider does not answer"),
    "streams_full": ProblemCode(
        _S.SERVICE_UNAVAILABLE, "as many follow events as this gateway takes: ask again after `Retry-After`"
    ),
    "store_unavailable": ProblemCode(
        _S.SERVICE_UNAVAILABLE, "a store of the gateway does not answer: ask again"
    ),
}
