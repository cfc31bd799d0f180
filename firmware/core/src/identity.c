#include "towline/identity.h"

#include <stddef.h>
#include <string.h>

#define FORMAT 1u

static bool keep(const tl_port_kv *kv, const char *name, tl_span value)
{
    return value.n > 0 ? kv->set(kv->with, name, value) : kv->erase(kv->with, name);
}

static tl_out over(uint8_t *room, size_t cap)
{
    return (tl_out){room, 0, cap, false};
}

/* --- from the store --- */

#define RECORD_AT offsetof(tl_identity, format)
#define RECORD (offsetof(tl_identity, certificate_n) - RECORD_AT)

/* The stored key; a new one where there is none, and nothing that needs it. */
static bool load_key(tl_identity *id, const tl_port_kv *kv, const tl_crypto *crypto, bool make)
{
    tl_out key = over(id->key, sizeof id->key);
    bool there = kv->get(kv->with, "key", &key) && key.n == sizeof id->key;
    if (!there && make) {
        there = crypto->p256_new(id->key) && keep(kv, "key", (tl_span){id->key, sizeof id->key}) &&
                kv->commit(kv->with);
    }
    if (!there || !crypto->p256_public(id->key, id->point)) {
        return false;
    }
    tl_key_id(crypto, id->point, id->key_id);
    return true;
}

static bool load_pem(const tl_port_kv *kv, const char *name, uint8_t *to, size_t cap, uint16_t *n)
{
    tl_out out = over(to, cap - 1);
    const bool there = kv->get(kv->with, name, &out);
    to[out.n] = 0;
    *n = (uint16_t)out.n;
    return there;
}

static bool load_rest(tl_identity *id, const tl_port_kv *kv)
{
    return id->format == FORMAT && id->device_n <= sizeof id->device && id->gateway_n <= sizeof id->gateway &&
           id->urls_n <= sizeof id->urls &&
           load_pem(kv, "certificate", id->certificate, sizeof id->certificate, &id->certificate_n) &&
           (!id->has_ca || load_pem(kv, "server_ca", id->server_ca, sizeof id->server_ca, &id->server_ca_n));
}

bool tl_identity_load(tl_identity *id, const tl_port_kv *kv, const tl_crypto *crypto)
{
    memset(id, 0, sizeof *id);
    tl_out record = over((uint8_t *)id + RECORD_AT, RECORD);
    const bool there = kv->get(kv->with, "identity", &record);
    const bool has_key = load_key(id, kv, crypto, !there);
    id->enrolled = has_key && there && record.n == RECORD && load_rest(id, kv);
    return has_key;
}

bool tl_identity_key_list(const tl_port_kv *kv, tl_out *text)
{
    return kv->get(kv->with, "key_list", text);
}

bool tl_identity_keep_key_list(const tl_port_kv *kv, tl_span text)
{
    return keep(kv, "key_list", text) && kv->commit(kv->with);
}

bool tl_identity_tunnel(const tl_identity *id, size_t index, tl_url *url)
{
    tl_span rest = {id->urls, id->urls_n}, text;
    do {
        text = tl_split(&rest, '\n');
    } while (index-- > 0);
    return tl_url_read(text, TL_URL_TUNNEL, url) == NULL;
}

bool tl_identity_forget(tl_identity *id, const tl_port_kv *kv)
{
    id->enrolled = false;
    return kv->erase(kv->with, "identity") && kv->commit(kv->with);
}

/* --- the gateway's answers --- */

/* A string of at least one byte, unescaped into `room`. */
static bool text_of(const tl_json *answer, const char *name, const tl_out *room, tl_span *text)
{
    tl_json value;
    tl_out out = *room;
    if (!tl_json_member(answer, name, &value) || !tl_json_unescape(&value, &out)) {
        return false;
    }
    *text = (tl_span){out.at, out.n};
    return out.n > 0;
}

/* Every address must be one that may be dialled; those that do not fit are left out. */
static const char *read_urls(const tl_json *urls, tl_out *out)
{
    tl_json one;
    tl_url url;
    if (urls->kind != TL_JSON_LIST) {
        return "the answer names no tunnel server";
    }
    for (tl_span rest = urls->text; tl_json_next_item(&rest, &one);) {
        uint8_t room[TL_URL_MAX];
        tl_out text = over(room, sizeof room);
        if (!tl_json_unescape(&one, &text) || tl_url_read((tl_span){room, text.n}, TL_URL_TUNNEL, &url) != NULL) {
            return "the answer holds an odd tunnel address";
        }
        if (out->cap - out->n > text.n) {
            tl_put(out, room, text.n);
            tl_put_u8(out, '\n');
        }
    }
    return out->n > 0 ? NULL : "the answer names no tunnel server";
}

/* What an answer changes, as far as it must be checked before anything is kept. */
typedef struct {
    const tl_json *answer;
    tl_out room;
    tl_validity validity;
    bool has_urls, has_ca; /* the answer says something about them */
} offer;

/* Everything that both answers hold but the key list. `decoded`: for a certificate's DER. */
static const char *check_offer(offer *o, const tl_identity *id, tl_out decoded)
{
    tl_span text;
    tl_json value;
    if (!text_of(o->answer, "certificate", &o->room, &text) || text.n > TL_CERTIFICATE_MAX) {
        return "the answer holds no certificate";
    }
    const char *reason = tl_pem_read_certificate(text, id->point, decoded, &o->validity);
    if (reason != NULL) {
        return reason;
    }
    o->has_urls = tl_json_member(o->answer, "tunnel_urls", &value) && value.kind != TL_JSON_NULL;
    if (o->has_urls) {
        tl_out urls = over(o->room.at, TL_TUNNEL_URLS_MAX);
        reason = read_urls(&value, &urls);
    }
    o->has_ca = tl_json_member(o->answer, "server_ca", &value);
    if (o->has_ca && value.kind != TL_JSON_NULL &&
        (!text_of(o->answer, "server_ca", &o->room, &text) || text.n > TL_CA_MAX)) {
        return "the answer's server_ca is none, or too long";
    }
    return reason;
}

/* A PEM of the answer goes to its place and to the store. Where the answer has none, an old one stays in the store
 * unread: the record says that it does not count. */
static bool keep_pem(const offer *o, const tl_port_kv *kv, const char *name, uint8_t *to, uint16_t *n)
{
    tl_span text = {NULL, 0};
    if (text_of(o->answer, name, &o->room, &text)) {
        memcpy(to, text.at, text.n);
    }
    to[text.n] = 0;
    *n = (uint16_t)text.n;
    return text.n == 0 || keep(kv, name, text);
}

static const char *keep_offer(const offer *o, tl_identity *id, const tl_port_kv *kv)
{
    tl_json value;
    bool kept = keep_pem(o, kv, "certificate", id->certificate, &id->certificate_n);
    if (o->has_ca) {
        kept = keep_pem(o, kv, "server_ca", id->server_ca, &id->server_ca_n) && kept;
    }
    if (o->has_urls && tl_json_member(o->answer, "tunnel_urls", &value)) {
        tl_out urls = over(id->urls, sizeof id->urls);
        (void)read_urls(&value, &urls);
        id->urls_n = (uint16_t)urls.n;
    }
    id->validity = o->validity;
    id->has_ca = id->server_ca_n > 0;
    id->format = FORMAT;
    kept = kept && kv->commit(kv->with); /* what the record speaks of is there before it */
    return kept && keep(kv, "identity", (tl_span){(const uint8_t *)id + RECORD_AT, RECORD}) && kv->commit(kv->with)
               ? NULL
               : "the answer could not be stored";
}

static const char *read_root(const tl_json *answer, const tl_out *room, uint8_t root[TL_P256_POINT])
{
    tl_span text;
    return text_of(answer, "device_root", room, &text) && tl_pem_read_public(text, root)
               ? NULL
               : "the answer holds no device_root";
}

/* Names are what is checked last and kept first: this changes the identity when it holds. */
static const char *take_names(const tl_json *answer, const tl_out *room, tl_span asked, tl_identity *id)
{
    tl_span text;
    tl_url url;
    if (!text_of(answer, "device_id", room, &text) || !tl_is_name(text)) {
        return "the answer holds no device_id";
    }
    memcpy(id->device, text.at, text.n);
    id->device_n = (uint8_t)text.n;
    if (!text_of(answer, "gateway_url", room, &text) || tl_url_read(text, TL_URL_GATEWAY, &url) != NULL) {
        text = tl_take(&asked, TL_URL_MAX);
    }
    memcpy(id->gateway, text.at, text.n);
    id->gateway_n = (uint8_t)text.n;
    return NULL;
}

const char *tl_identity_enrol(tl_identity *id, const tl_port_kv *kv, const tl_crypto *crypto,
                              tl_grants_scratch *scratch, const tl_json *answer, tl_span asked, tl_out room)
{
    offer o = {.answer = answer, .room = room};
    const tl_out decoded = over(scratch->decoded, sizeof scratch->decoded);
    uint8_t root[TL_P256_POINT];
    tl_span text;
    const char *reason = read_root(answer, &room, root);
    if (reason == NULL) {
        reason = text_of(answer, "key_list", &room, &text)
                     ? tl_key_list_read(&scratch->list, text, root, crypto, decoded)
                     : "the answer holds no key_list";
    }
    if (reason == NULL) {
        reason = check_offer(&o, id, decoded);
    }
    if (reason == NULL && !o.has_urls) {
        reason = "the answer names no tunnel server";
    }
    if (reason == NULL) {
        reason = take_names(answer, &room, asked, id);
    }
    if (reason != NULL) {
        return reason;
    }
    memcpy(id->root, root, sizeof root);
    /* A former identity ends first: its root says nothing about the new list. */
    if (!tl_identity_forget(id, kv) || !text_of(answer, "key_list", &room, &text) || !keep(kv, "key_list", text)) {
        return "the answer could not be stored";
    }
    id->server_ca_n = 0;
    o.has_ca = true;
    reason = keep_offer(&o, id, kv);
    id->enrolled = reason == NULL;
    return reason;
}

const char *tl_identity_renew(tl_identity *id, const tl_port_kv *kv, tl_grants *grants, const tl_json *answer,
                              tl_out room, uint64_t now_ms)
{
    offer o = {.answer = answer, .room = room};
    tl_span text;
    bool newer = false;
    const char *reason = check_offer(&o, id, over(grants->scratch->decoded, sizeof grants->scratch->decoded));
    if (reason == NULL && text_of(answer, "key_list", &room, &text)) {
        reason = tl_grants_take_keys(grants, text, now_ms, &newer);
    }
    if (newer && !keep(kv, "key_list", text)) {
        reason = "the answer could not be stored";
    }
    return reason != NULL ? reason : keep_offer(&o, id, kv);
}
