/* Who this device is and whom it trusts: what enrolment gave, kept in the key-value store.
 *
 * key          the P-256 private number; made once, before anyone hears of it
 * certificate  of the gateway's CA for that key, PEM
 * server_ca    of the tunnel servers and the broker, PEM; counts when `identity` says so, else the system's roots do
 * gateway_ca   of the gateway's HTTPS, PEM; absent: the system's roots; whoever sets the device up puts it there
 * key_list     the newest verified list of grant keys, as it came
 * identity     device id, pinned root, addresses, the certificate's times; written last: there, the rest is whole
 */
#ifndef TOWLINE_IDENTITY_H
#define TOWLINE_IDENTITY_H

#include "towline/bytes.h"
#include "towline/grants.h"
#include "towline/json.h"
#include "towline/pem.h"
#include "towline/url.h"
#include "towline_port.h"

#define TL_CERTIFICATE_MAX 1536u /* the gateway's have 900 bytes */
#define TL_CA_MAX 2048u          /* two certificates of P-256, or one of RSA */
#define TL_TUNNEL_URLS_MAX 512u  /* all together, each with its end; those that do not fit are left out */
/* A NUL stands behind each text of PEM, as some libraries want one. */
typedef struct {
    bool enrolled; /* everything below is there; before that only the key and its derivates are */
    uint8_t key[TL_P256_PRIVATE];
    uint8_t point[TL_P256_POINT];
    uint8_t key_id[TL_KEY_ID];
    /* From here to `urls` it is the record, kept as it stands: a change of it is another `format`. */
    uint8_t format;
    uint8_t root[TL_P256_POINT];
    bool has_ca; /* one that was lost must not turn into "the system's roots" */
    uint8_t device_n;
    uint8_t device[TL_MAX_NAME];
    uint8_t gateway_n;
    uint8_t gateway[TL_URL_MAX];
    uint16_t urls_n; /* each ends with a line's end */
    tl_validity validity; /* the certificate's */
    uint8_t urls[TL_TUNNEL_URLS_MAX];
    uint16_t certificate_n, server_ca_n;
    uint8_t certificate[TL_CERTIFICATE_MAX + 1];
    uint8_t server_ca[TL_CA_MAX + 1];
} tl_identity;

/* Reads everything, and makes the key where there is none. False: no key could be read, or kept. */
bool tl_identity_load(tl_identity *, const tl_port_kv *, const tl_crypto *);

static inline tl_span tl_identity_device(const tl_identity *identity)
{
    return (tl_span){identity->device, identity->device_n};
}

static inline tl_span tl_identity_server_ca(const tl_identity *identity)
{
    return (tl_span){identity->server_ca, identity->server_ca_n};
}

static inline tl_span tl_identity_certificate(const tl_identity *identity)
{
    return (tl_span){identity->certificate, identity->certificate_n};
}

/* The tunnel servers' addresses, from 0; false where there are no more. */
bool tl_identity_tunnel(const tl_identity *, size_t index, tl_url *url);
/* The list in the store, for tl_grants_take_keys after a start; false where there is none. */
bool tl_identity_key_list(const tl_port_kv *, tl_out *text);
bool tl_identity_keep_key_list(const tl_port_kv *, tl_span text);

/* What the gateway's answers hold for the device. Each is checked as a whole before anything of it is kept, and what
 * is kept is durable when NULL comes back; else the reason. `room`: ≥ TL_CA_MAX bytes beside the answer. */

/* An approval: it pins the root. `asked`: the address where it was asked for, taken where the answer names none. */
const char *tl_identity_enrol(tl_identity *, const tl_port_kv *, const tl_crypto *, tl_grants_scratch *,
                              const tl_json *answer, tl_span asked, tl_out room);
/* A renewal: what is absent stays as it is; root and key always do. A newer key list goes to `grants`. */
const char *tl_identity_renew(tl_identity *, const tl_port_kv *, tl_grants *grants, const tl_json *answer,
                              tl_out room, uint64_t now_ms);

/* Forgets all but the key: the owner gave the device away, or it enrols anew. */
bool tl_identity_forget(tl_identity *, const tl_port_kv *);

#endif
