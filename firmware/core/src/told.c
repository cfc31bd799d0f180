#include "towline/told.h"

#include "towline/bytes.h"

#define TRACE_CHARACTERS 55u
#define REASON_MAX 64u

static bool count(const tl_json *object, const char *name, uint64_t least, uint64_t *value)
{
    tl_json found;
    int64_t whole;
    if (!tl_json_member(object, name, &found) ||
        !tl_json_whole(&found, (int64_t)least, (int64_t)TL_NUMBER_MAX, &whole)) {
        return false;
    }
    *value = (uint64_t)whole;
    return true;
}

/* An object of version 1. */
static bool open_message(tl_span raw, tl_json *body)
{
    uint64_t version;
    return tl_json_check(raw, body) == TL_JSON_FINE && count(body, "v", 1, &version) && version == 1;
}

/* About the device, or where it stands: the message may be taken later. */
static bool is_of_the_message(const tl_json *reason)
{
    static const char *const others[] = {"bad_topic",      "wrong_device", "unknown_device",
                                         "device_revoked", "wrong_place",  "no_space"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (tl_json_says(reason, tl_text(others[i]))) {
            return false;
        }
    }
    return true;
}

static bool read_refused(const tl_json *body, const tl_json *reason, tl_told *told)
{
    tl_json id;
    told->what = TL_TOLD_REFUSED;
    told->by_itself = is_of_the_message(reason);
    told->has_id = tl_json_member(body, "id", &id) && id.kind != TL_JSON_NULL;
    return reason->kind == TL_JSON_STRING && tl_json_length(reason) <= REASON_MAX &&
           (!told->has_id || tl_uuid7_read(&id, told->id));
}

static bool read_answer(const tl_json *body, tl_told *told)
{
    tl_json prefix;
    tl_out out = {told->prefix, 0, sizeof told->prefix, false};
    uint64_t time_ms;
    told->what = TL_TOLD_ANSWER;
    if (!count(body, "hello", 0, &told->hello_boot) || !count(body, "time", 0, &time_ms) ||
        !tl_json_member(body, "prefix", &prefix) || !tl_json_unescape(&prefix, &out)) {
        return false;
    }
    told->time_ms = (int64_t)time_ms;
    told->prefix_n = out.n;
    return tl_is_prefix((tl_span){told->prefix, out.n});
}

bool tl_told_accepted(tl_span raw, tl_told *told)
{
    tl_json body, member;
    if (!open_message(raw, &body)) {
        return false;
    }
    if (tl_json_member(&body, "refused", &member)) {
        return read_refused(&body, &member, told);
    }
    told->what = TL_TOLD_KEPT;
    return count(&body, "boot", 0, &told->number.boot) && count(&body, "seq", 0, &told->number.seq) &&
           (!tl_json_member(&body, "hello", &member) || read_answer(&body, told));
}

/* W3C traceparent of version 00. It is not carried on: the command's id tells which one an answer is of. */
static bool is_trace(const tl_json *text)
{
    uint8_t raw[TRACE_CHARACTERS], byte;
    tl_out out = {raw, 0, sizeof raw, false};
    if (!tl_json_unescape(text, &out) || out.n != sizeof raw || raw[0] != '0' || raw[1] != '0') {
        return false;
    }
    for (size_t i = 2; i < sizeof raw;) {
        if (i == 2 || i == 35 || i == 52) {
            if (raw[i++] != '-') {
                return false;
            }
        } else if (tl_hex(&raw[i], &byte)) {
            i += 2;
        } else {
            return false;
        }
    }
    return true;
}

static bool is_token(const tl_json *text)
{
    uint8_t raw[TL_MAX_NAME];
    tl_out out = {raw, 0, sizeof raw, false};
    return tl_json_unescape(text, &out) && tl_is_name((tl_span){raw, out.n});
}

bool tl_told_command(tl_span raw, tl_command *command)
{
    tl_json body, member;
    return open_message(raw, &body) && tl_json_member(&body, "id", &member) &&
           tl_uuid7_read(&member, command->id) && tl_json_member(&body, "name", &command->name) &&
           is_token(&command->name) && tl_json_member(&body, "params", &command->params) &&
           command->params.kind == TL_JSON_OBJECT && count(&body, "ttl_ms", 0, &command->ttl_ms) &&
           count(&body, "expires", 0, &command->expires_ms) &&
           count(&body, "timeout_ms", 0, &command->timeout_ms) &&
           (!tl_json_member(&body, "trace", &member) || is_trace(&member));
}

bool tl_told_desired(tl_span raw, tl_desired *desired)
{
    tl_json body, sha;
    uint8_t text[2 * TL_CONFIG_SHA];
    tl_out out = {text, 0, sizeof text, false};
    if (!open_message(raw, &body) || !count(&body, "version", 1, &desired->version) ||
        !tl_json_member(&body, "body", &desired->body) || desired->body.kind != TL_JSON_OBJECT ||
        !tl_json_member(&body, "sha256", &sha) || !tl_json_unescape(&sha, &out) || out.n != sizeof text) {
        return false;
    }
    for (size_t i = 0; i < TL_CONFIG_SHA; i++) {
        if (!tl_hex(&text[2 * i], &desired->sha256[i])) {
            return false;
        }
    }
    return true;
}
