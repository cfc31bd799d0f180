/* A device's gateway module with a gateway that is played here: a port that remembers the request and is given the
 * answer, a store in memory, and real keys and certificates. */
#ifndef TOWLINE_GATEWAY_WORLD_H
#define TOWLINE_GATEWAY_WORLD_H

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>

#include "check.h"
#include "psa_crypto.h"
#include "towline/base64.h"
#include "towline/gateway.h"

#define DEVICE "d_abcdefghij234567"
#define GATEWAY "https://gateway.example:8443/base/"
#define ENROLMENT "0190f5a0-0000-7000-8000-000000000001"
#define SECRET "poll-secret_of_43_letters"
#define NONCE "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define NOW_S INT64_C(1795311000)
#define CERTIFICATE_FROM "20261122013000Z" /* NOW_S */
#define CERTIFICATE_UNTIL "20270220013000Z"
#define LIFE_S (INT64_C(90) * 86400)
#define CA_TEXT "-----BEGIN CERTIFICATE-----\nQ0E=\n-----END CERTIFICATE-----\n"

/* A text that grows, NUL at its end. */
typedef struct {
    char at[16384];
    size_t n;
} text;

#define STORE_KEYS 10u
#define STORE_BYTES 2100u

typedef struct {
    char key[TL_KV_KEY_MAX + 1];
    size_t n;
    uint8_t bytes[STORE_BYTES];
} pair;

/* As a chip's (durable when it is set) or as a file (durable when it is committed); `fails_at`: from the how many-th
 * change on nothing is written any more, 0: never. */
typedef struct {
    bool by_commit;
    uint32_t steps, fails_at;
    pair now[STORE_KEYS], durable[STORE_KEYS];
} memory_store;

typedef struct {
    tl_port port;
    tl_port_sys sys;
    tl_port_fetch fetch;
    tl_port_kv kv;
    memory_store store;
    uint64_t now_ms;
    int64_t wall_s;
    /* The last request; number 0: none under way. */
    uint32_t number, numbers;
    bool busy; /* another's fetch is under way */
    unsigned requests, stopped, lent;
    char method[8];
    text path, bearer, body, ca;
    uint16_t told_port;
    char host[64];
    /* What was told. */
    unsigned told[5];
    const char *why;
    /* The module and what it works with. */
    tl_log_ring log;
    tl_workspace workspace;
    tl_grants_scratch scratch;
    tl_identity identity;
    tl_grants grants;
    tl_gateway gateway;
} world;

static const tl_crypto *crypto;
static uint8_t root_key[TL_P256_PRIVATE], root_point[TL_P256_POINT];

static void write_text(text *t, const void *bytes, size_t n)
{
    if (n >= sizeof t->at) {
        abort();
    }
    if (n > 0) {
        memcpy(t->at, bytes, n);
    }
    t->at[n] = 0;
    t->n = n;
}

static void add_text(text *t, const char *more)
{
    const size_t n = strlen(more);
    if (t->n + n >= sizeof t->at) {
        abort();
    }
    memcpy(t->at + t->n, more, n + 1);
    t->n += n;
}

/* --- the store --- */

static pair *stored(memory_store *store, const char *key)
{
    for (size_t i = 0; i < STORE_KEYS; i++) {
        if (strcmp(store->now[i].key, key) == 0) {
            return &store->now[i];
        }
    }
    return NULL;
}

static bool changed(memory_store *store, bool durable)
{
    store->steps++;
    if (store->fails_at != 0 && store->steps >= store->fails_at) {
        return false;
    }
    if (durable) {
        memcpy(store->durable, store->now, sizeof store->now);
    }
    return true;
}

static bool store_get(void *with, const char *key, tl_out *value)
{
    const pair *found = stored(with, key);
    if (found == NULL || found->n > value->cap - value->n) {
        return false;
    }
    tl_put(value, found->bytes, found->n);
    return true;
}

static bool store_set(void *with, const char *key, tl_span value)
{
    memory_store *store = with;
    pair *to = stored(store, key);
    to = to != NULL ? to : stored(store, "");
    if (to == NULL || strlen(key) > TL_KV_KEY_MAX || value.n > STORE_BYTES) {
        abort();
    }
    strcpy(to->key, key);
    memcpy(to->bytes, value.at, value.n);
    to->n = value.n;
    return changed(store, !store->by_commit);
}

static bool store_erase(void *with, const char *key)
{
    memory_store *store = with;
    pair *found = stored(store, key);
    if (found != NULL) {
        memset(found, 0, sizeof *found);
    }
    return changed(store, !store->by_commit);
}

static bool store_commit(void *with)
{
    return changed(with, true);
}

/* --- the port --- */

static uint64_t world_now(void *with)
{
    return ((world *)with)->now_ms;
}

static int64_t world_wall(void *with)
{
    return ((world *)with)->wall_s;
}

static void world_log(void *with, tl_log_level level, tl_span line)
{
    (void)with;
    (void)level;
    (void)line;
}

static uint32_t world_start(void *with, const tl_fetch_request *request)
{
    world *w = with;
    if (w->number != 0 || w->busy) {
        return 0;
    }
    snprintf(w->method, sizeof w->method, "%s", request->method);
    snprintf(w->host, sizeof w->host, "%.*s", (int)request->to.host.n, (const char *)request->to.host.at);
    w->told_port = request->to.port;
    write_text(&w->path, request->to.path.at, request->to.path.n);
    write_text(&w->bearer, request->bearer.at, request->bearer.n);
    write_text(&w->body, request->body.at, request->body.n);
    write_text(&w->ca, request->to.ca.at, request->to.ca.n);
    w->requests++;
    w->number = ++w->numbers;
    return w->number;
}

static void world_release(void *with, tl_span data)
{
    (void)data;
    ((world *)with)->lent--;
}

static void world_stop(void *with)
{
    world *w = with;
    w->stopped++;
    w->number = 0;
}

static void world_tell(void *owner, tl_gateway_news news, const char *why)
{
    world *w = owner;
    w->told[news]++;
    w->why = why;
    CHECK((why != NULL) == (news == TL_GATEWAY_NOT_ENROLLED || news == TL_GATEWAY_NO_CONNECTION));
}

/* As after a start: nothing but the store survived. */
static void start_again(world *w)
{
    const tl_gateway_parts parts = {&w->port,     &w->log,    &w->workspace, &w->scratch,
                                    &w->identity, &w->grants, world_tell,    w};
    memset(&w->identity, 0xa5, sizeof w->identity);
    memset(&w->gateway, 0xa5, sizeof w->gateway);
    memcpy(w->store.now, w->store.durable, sizeof w->store.now);
    w->store.fails_at = 0;
    w->workspace.holder = NULL;
    w->number = 0;
    tl_log_init(&w->log, &w->sys, TL_LOG_DEBUG);
    CHECK(tl_identity_load(&w->identity, w->port.kv, crypto));
    tl_gateway_init(&w->gateway, &parts);
    if (w->identity.enrolled) {
        tl_grants_init(&w->grants, crypto, &w->scratch, tl_identity_device(&w->identity), w->identity.root,
                       w->identity.validity.from_s);
    }
}

static world *new_world(void)
{
    world *w = calloc(1, sizeof *w);
    w->now_ms = 1000;
    w->wall_s = NOW_S;
    w->sys = (tl_port_sys){.with = w, .now_ms = world_now, .wall_s = world_wall, .log = world_log};
    w->fetch = (tl_port_fetch){w, world_start, world_release, world_stop};
    w->kv = (tl_port_kv){&w->store, store_get, store_set, store_erase, store_commit, NULL};
    w->port = (tl_port){.crypto = crypto, .sys = &w->sys, .fetch = &w->fetch, .kv = &w->kv};
    start_again(w);
    return w;
}

static tl_enrolment_ask the_ask(void)
{
    return (tl_enrolment_ask){tl_text(GATEWAY), tl_text("token-1"), tl_text("Greenhouse"), tl_text("mac-0011"),
                              tl_text("towline-firmware/1")};
}

/* --- the gateway's side --- */

static void happen(world *w, tl_event event)
{
    event.number = w->numbers;
    (void)tl_gateway_event(&w->gateway, &event);
}

/* The answer in pieces of `piece` bytes, each in memory of its exact size. */
static void answer_in(world *w, uint16_t status, const char *body, size_t piece)
{
    const size_t n = strlen(body);
    const uint32_t number = w->number;
    happen(w, (tl_event){.kind = TL_EVENT_FETCH_HEAD, .status = status, .length = TL_LENGTH_NOT_TOLD});
    for (size_t at = 0; at < n && w->number == number; at += piece) {
        const size_t size = n - at < piece ? n - at : piece;
        uint8_t *exact = malloc(size);
        memcpy(exact, body + at, size);
        w->lent++;
        happen(w, (tl_event){.kind = TL_EVENT_FETCH_DATA, .bytes = {exact, size}});
        free(exact);
    }
    CHECK(w->lent == 0);
    if (w->number == number) {
        w->number = 0;
        happen(w, (tl_event){.kind = TL_EVENT_FETCH_END});
    }
}

static void answer(world *w, uint16_t status, const char *body)
{
    answer_in(w, status, body, 700);
}

static void break_off(world *w)
{
    w->number = 0;
    happen(w, (tl_event){.kind = TL_EVENT_FETCH_FAILED, .why = "no answer"});
}

/* Runs it until it asks for something, or for `at_most_ms`; whether it asked. */
static bool asks_within(world *w, uint64_t at_most_ms)
{
    const uint64_t until = w->now_ms + at_most_ms;
    const unsigned before = w->requests;
    for (;;) {
        const uint64_t next = tl_gateway_run(&w->gateway);
        if (w->requests != before) {
            return true;
        }
        if (next > until) {
            w->now_ms = until;
            return false;
        }
        CHECK(next > w->now_ms); /* else it would spin */
        w->wall_s += w->wall_s < 0 ? 0 : (int64_t)(next / 1000 - w->now_ms / 1000);
        w->now_ms = next;
    }
}

/* --- what the gateway makes: certificates, key lists --- */

static void add_quoted(text *t, const char *name, const char *value)
{
    char room[8192];
    tl_out out = {(uint8_t *)room, 0, sizeof room - 1, false};
    tl_json_writer w = tl_json_to(&out);
    tl_json_put_text(&w, tl_text(value));
    room[out.n] = 0;
    add_text(t, t->n > 1 ? ",\"" : "\"");
    add_text(t, name);
    add_text(t, "\":");
    add_text(t, room);
}

static EVP_PKEY *key_of(const uint8_t *key, const uint8_t *point)
{
    uint8_t room[TL_PEM_KEY_MAX];
    tl_out out = {room, 0, sizeof room, false};
    tl_pem_put_private(&out, key, point);
    BIO *bio = BIO_new_mem_buf(room, (int)out.n);
    EVP_PKEY *found = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    return found;
}

static text taken(BIO *bio)
{
    text t;
    char *at;
    const long n = BIO_get_mem_data(bio, &at);
    write_text(&t, at, (size_t)n);
    BIO_free(bio);
    return t;
}

static text certificate_for(EVP_PKEY *of, const char *from, const char *until)
{
    X509 *x = X509_new();
    ASN1_TIME *time = ASN1_TIME_new();
    BIO *bio = BIO_new(BIO_s_mem());
    X509_set_version(x, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 7);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)DEVICE, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    ASN1_TIME_set_string_X509(time, from);
    X509_set1_notBefore(x, time);
    ASN1_TIME_set_string_X509(time, until);
    X509_set1_notAfter(x, time);
    X509_set_pubkey(x, of);
    CHECK(X509_sign(x, of, EVP_sha256()) > 0 && PEM_write_bio_X509(bio, x) == 1);
    ASN1_TIME_free(time);
    X509_free(x);
    return taken(bio);
}

/* For the device's own key. */
static text certificate(const world *w, const char *from, const char *until)
{
    EVP_PKEY *key = key_of(w->identity.key, w->identity.point);
    const text t = certificate_for(key, from, until);
    EVP_PKEY_free(key);
    return t;
}

static text root_text(void)
{
    EVP_PKEY *key = key_of(root_key, root_point);
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(PEM_write_bio_PUBKEY(bio, key) == 1);
    EVP_PKEY_free(key);
    return taken(bio);
}

/* A list of one key, which signs nothing here. */
static text key_list(unsigned number)
{
    uint8_t modulus[256], signature[TL_P256_SIGNATURE], room[2048];
    text claims = {.n = 0}, t;
    memset(modulus, 0xff, sizeof modulus);
    tl_out out = {room, 0, sizeof room, false};
    tl_put_base64url(&out, (tl_span){modulus, sizeof modulus});
    room[out.n] = 0;
    snprintf(claims.at, sizeof claims.at, "{\"n\":%u,\"iat\":%lld,\"keys\":[{\"kty\":\"RSA\",\"kid\":\"k%u\",\"e\":\"AQAB\",\"n\":\"%s\"}]}",
             number, (long long)NOW_S - 60, number, (const char *)room);
    out.n = 0;
    tl_put_base64url(&out, tl_text("{\"alg\":\"ES256\",\"typ\":\"keys+jwt\"}"));
    tl_put_u8(&out, '.');
    tl_put_base64url(&out, tl_text(claims.at));
    CHECK(crypto->p256_sign(root_key, (tl_span){room, out.n}, signature));
    tl_put_u8(&out, '.');
    tl_put_base64url(&out, (tl_span){signature, sizeof signature});
    write_text(&t, room, out.n);
    return t;
}

/* What an approval says; a test changes a member by giving it, "" leaves it out. */
typedef struct {
    const char *certificate, *root, *list, *urls, *ca, *device, *gateway;
} approval;

static text approved(const world *w, const approval *changed)
{
    const text certificate_text = certificate(w, CERTIFICATE_FROM, CERTIFICATE_UNTIL), root = root_text(), list = key_list(7);
    const struct {
        const char *name, *usual, *changed;
    } members[] = {
        {"device_id", DEVICE, changed->device},          {"certificate", certificate_text.at, changed->certificate},
        {"device_root", root.at, changed->root},         {"key_list", list.at, changed->list},
        {"gateway_url", "https://new.example", changed->gateway},
    };
    text t = {.at = "{", .n = 1};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const char *value = members[i].changed != NULL ? members[i].changed : members[i].usual;
        if (*value != 0) {
            add_quoted(&t, members[i].name, value);
        }
    }
    add_quoted(&t, "status", "approved");
    add_text(&t, changed->urls != NULL ? changed->urls : ",\"tunnel_urls\":[\"wss://one.example/tunnel\",\"wss://two.example:444/t\"]");
    if (changed->ca == NULL) {
        add_quoted(&t, "server_ca", CA_TEXT);
    } else {
        add_text(&t, changed->ca);
    }
    add_text(&t, ",\"ca\":\"ignored\"}");
    return t;
}

/* An enrolled world. */
static world *enrolled_world(void)
{
    world *w = new_world();
    const tl_enrolment_ask ask = the_ask();
    CHECK(tl_gateway_enrol(&w->gateway, &ask) == NULL && asks_within(w, 0));
    answer(w, 201, "{\"enrolment_id\":\"" ENROLMENT "\",\"device_id\":\"" DEVICE "\",\"status\":\"approved\",\"poll_secret\":\"" SECRET "\"}");
    CHECK(asks_within(w, 0));
    const text t = approved(w, &(approval){0});
    answer(w, 200, t.at);
    CHECK(w->told[TL_GATEWAY_ENROLLED] == 1 && w->identity.enrolled);
    tl_grants_init(&w->grants, crypto, &w->scratch, tl_identity_device(&w->identity), w->identity.root,
                   w->identity.validity.from_s);
    return w;
}

static inline bool has(const text *t, const char *part)
{
    return strstr(t->at, part) != NULL;
}

static inline bool is_free(const world *w)
{
    return w->workspace.holder == NULL && w->number == 0;
}

#endif
