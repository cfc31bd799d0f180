/* Enrolment, renewal and connection as conversations with a gateway. */
#include "gateway_world.h"

#define BEGUN \
    "{\"enrolment_id\":\"" ENROLMENT "\",\"device_id\":\"" DEVICE "\",\"status\":\"pending\",\"poll_secret\":\"" SECRET "\"}"
#define PENDING "{\"status\":\"pending\",\"device_id\":\"" DEVICE "\"}"

static void ask_for_it(world *w)
{
    const tl_enrolment_ask ask = the_ask();
    CHECK(tl_gateway_enrol(&w->gateway, &ask) == NULL);
}

static bool has(const text *t, const char *part)
{
    return strstr(t->at, part) != NULL;
}

static bool is_free(const world *w)
{
    return w->workspace.holder == NULL && w->number == 0;
}

/* --- enrolment --- */

static void the_request(void)
{
    world *w = new_world();
    CHECK(!asks_within(w, 100000)); /* nobody asked for it */
    ask_for_it(w);
    CHECK(asks_within(w, 0));
    CHECK(strcmp(w->method, "POST") == 0 && strcmp(w->path.at, "/base/v1/enrolments") == 0);
    CHECK(strcmp(w->host, "gateway.example") == 0 && w->told_port == 8443 && w->bearer.n == 0 && w->ca.n == 0);
    tl_json body, member;
    CHECK(tl_json_check((tl_span){(const uint8_t *)w->body.at, w->body.n}, &body) == TL_JSON_FINE);
    CHECK(tl_json_member(&body, "token", &member) && tl_json_says(&member, tl_text("token-1")));
    CHECK(tl_json_member(&body, "name", &member) && tl_json_says(&member, tl_text("Greenhouse")));
    CHECK(tl_json_member(&body, "hardware_id", &member) && tl_json_says(&member, tl_text("mac-0011")));
    CHECK(tl_json_member(&body, "software", &member) && tl_json_says(&member, tl_text("towline-firmware/1")));
    CHECK(tl_json_member(&body, "csr", &member) && has(&w->body, "-----BEGIN CERTIFICATE REQUEST-----\\n"));
    CHECK(!asks_within(w, 1000000)); /* one at a time; the port ends it in time */
    free(w);
}

static void approved_by_a_person(void)
{
    world *w = new_world();
    ask_for_it(w);
    CHECK(asks_within(w, 0) && !tl_gateway_waits(&w->gateway));
    answer_in(w, 201, BEGUN, 1);
    CHECK(tl_gateway_waits(&w->gateway) && is_free(w));
    for (unsigned i = 0; i < TL_LOOKS_QUICK + 3; i++) {
        CHECK(asks_within(w, i < TL_LOOKS_QUICK + 1 ? TL_LOOK_MS : TL_LOOK_SLOW_MS));
        CHECK(strcmp(w->method, "GET") == 0 && strcmp(w->path.at, "/base/v1/enrolments/" ENROLMENT) == 0);
        CHECK(strcmp(w->bearer.at, SECRET) == 0 && w->body.n == 0);
        answer(w, 200, PENDING);
    }
    CHECK(asks_within(w, TL_LOOK_SLOW_MS) && w->told[TL_GATEWAY_ENROLLED] == 0);
    const text t = approved(w, &(approval){0});
    answer_in(w, 200, t.at, 3);
    CHECK(w->told[TL_GATEWAY_ENROLLED] == 1 && is_free(w) && !tl_gateway_waits(&w->gateway));
    free(w);
}

static void check_identity(world *w)
{
    const tl_identity *id = &w->identity;
    const text pem = certificate(w, CERTIFICATE_FROM, CERTIFICATE_UNTIL);
    uint8_t room[TL_KEY_LIST_TEXT_MAX];
    tl_out list = {room, 0, sizeof room, false};
    const text wanted = key_list(7);
    tl_url url;
    CHECK(id->enrolled && tl_is(tl_identity_device(id), DEVICE));
    CHECK(memcmp(id->root, root_point, sizeof root_point) == 0);
    CHECK(id->validity.from_s == NOW_S && id->validity.until_s == NOW_S + LIFE_S);
    CHECK(tl_is((tl_span){id->gateway, id->gateway_n}, "https://new.example"));
    CHECK(tl_is(tl_identity_server_ca(id), CA_TEXT) && id->server_ca[id->server_ca_n] == 0);
    CHECK(id->certificate_n > 100 && id->certificate[id->certificate_n] == 0);
    CHECK(memcmp(id->certificate, pem.at, 28) == 0);
    CHECK(tl_identity_tunnel(id, 0, &url) && tl_is(url.host, "one.example") && url.port == 443 && url.secure);
    CHECK(tl_identity_tunnel(id, 1, &url) && tl_is(url.host, "two.example") && url.port == 444 && tl_is(url.path, "/t"));
    CHECK(!tl_identity_tunnel(id, 2, &url) && !tl_identity_tunnel(id, 200, &url));
    CHECK(tl_identity_key_list(w->port.kv, &list) && list.n == wanted.n && memcmp(room, wanted.at, 300) == 0);
}

static void what_enrolment_gave_outlives_a_restart(void)
{
    world *w = enrolled_world();
    uint8_t key[TL_P256_PRIVATE];
    check_identity(w);
    memcpy(key, w->identity.key, sizeof key);
    start_again(w);
    check_identity(w);
    CHECK(memcmp(key, w->identity.key, sizeof key) == 0);
    CHECK(!asks_within(w, 1000000));
    CHECK(tl_identity_forget(&w->identity, w->port.kv) && !w->identity.enrolled);
    start_again(w);
    CHECK(!w->identity.enrolled && memcmp(key, w->identity.key, sizeof key) == 0);
    free(w);
}

static void a_wait_outlives_a_restart(void)
{
    world *w = new_world();
    ask_for_it(w);
    CHECK(asks_within(w, 0));
    answer(w, 201, BEGUN);
    start_again(w);
    ask_for_it(w);
    CHECK(tl_gateway_waits(&w->gateway) && asks_within(w, 0) && strcmp(w->method, "GET") == 0);
    CHECK(strcmp(w->path.at, "/base/v1/enrolments/" ENROLMENT) == 0 && strcmp(w->bearer.at, SECRET) == 0);
    start_again(w);
    tl_enrolment_ask ask = the_ask();
    ask.gateway = tl_text("https://other.example"); /* the other one knows nothing of it */
    CHECK(tl_gateway_enrol(&w->gateway, &ask) == NULL && asks_within(w, 0) && strcmp(w->method, "POST") == 0);
    free(w);
}

/* Whoever corrects the address meanwhile must not be told what the former gateway says, nor lose the new token. */
static void another_gateway_meanwhile(void)
{
    world *w = new_world();
    tl_enrolment_ask other = the_ask();
    other.gateway = tl_text("https://other.example");
    other.token = tl_text("token-2");
    ask_for_it(w);
    CHECK(asks_within(w, 0) && tl_gateway_enrol(&w->gateway, &other) == NULL && !asks_within(w, 1000));
    answer(w, 201, BEGUN);
    CHECK(!tl_gateway_waits(&w->gateway) && is_free(w) && asks_within(w, 0));
    CHECK(strcmp(w->host, "other.example") == 0 && strcmp(w->method, "POST") == 0 && strstr(w->body.at, "token-2") != NULL);
    ask_for_it(w);
    answer(w, 403, "{}");
    CHECK(w->told[TL_GATEWAY_NOT_ENROLLED] == 0 && asks_within(w, 0) && strcmp(w->host, "gateway.example") == 0);
    CHECK(tl_gateway_enrol(&w->gateway, &other) == NULL);
    break_off(w);
    CHECK(asks_within(w, 0) && strcmp(w->host, "other.example") == 0);
    free(w);
}

static void a_lost_answer_is_asked_for_again(void)
{
    world *w = new_world();
    char first[sizeof w->body.at];
    ask_for_it(w);
    CHECK(asks_within(w, 0));
    memcpy(first, w->body.at, w->body.n + 1);
    for (int i = 0; i < 12; i++) {
        break_off(w);
        CHECK(is_free(w) && asks_within(w, TL_ENROL_RETRY_MAX_MS));
        CHECK(strcmp(w->body.at, first) == 0); /* for the same key: the gateway knows it again */
    }
    answer(w, 503, "{}");
    CHECK(asks_within(w, TL_ENROL_RETRY_MAX_MS));
    answer(w, 429, "");
    CHECK(asks_within(w, TL_ENROL_RETRY_MAX_MS));
    answer(w, 201, BEGUN);
    CHECK(asks_within(w, 0));
    break_off(w);
    CHECK(asks_within(w, TL_ENROL_RETRY_MS) && strcmp(w->method, "GET") == 0);
    free(w);
}

static void retries_wait_longer_and_longer(void)
{
    world *w = new_world();
    uint64_t last = 0, longest = 0;
    ask_for_it(w);
    CHECK(asks_within(w, 0));
    for (int i = 0; i < 300; i++) {
        last = w->now_ms;
        break_off(w);
        CHECK(asks_within(w, TL_ENROL_RETRY_MAX_MS));
        const uint64_t waited = w->now_ms - last;
        longest = waited > longest ? waited : longest;
        CHECK(waited >= TL_ENROL_RETRY_MS / 2 && (i < 5 || waited >= TL_ENROL_RETRY_MAX_MS / 2));
    }
    CHECK(longest > TL_ENROL_RETRY_MAX_MS / 2 && longest <= TL_ENROL_RETRY_MAX_MS);
    free(w);
}

static void refusals_end_it(void)
{
    static const struct {
        uint16_t status;
        const char *body, *why;
    } refusals[] = {
        {403, "{\"code\":\"registration_token_unknown\"}", "registration_token_unknown"},
        {410, "{\"code\":\"registration_token_used\",\"detail\":\"x\"}", "registration_token_used"},
        {409, "{\"code\":\"hardware_id_conflict\"}", "hardware_id_conflict"},
        {422, "{\"code\":\"<script>\"}", "the gateway refused it"},
        {404, "{\"code\":\"a_code_that_is_longer_than_any_that_there_is\"}", "the gateway refused it"},
        {400, "<html>", "the gateway refused it"},
        {400, "[]", "the gateway refused it"},
        {302, "", "the gateway refused it"},
        {200, "<html>", "the address does not answer as a gateway does"},
        {200, "[]", "the address does not answer as a gateway does"},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        for (int looking = 0; looking < 2; looking++) {
            world *w = new_world();
            ask_for_it(w);
            CHECK(asks_within(w, 0));
            if (looking) {
                answer(w, 201, BEGUN);
                CHECK(asks_within(w, 0));
            }
            answer(w, refusals[i].status, refusals[i].body);
            CHECK(w->told[TL_GATEWAY_NOT_ENROLLED] == 1 && is_free(w));
            CHECK_NAMED(strcmp(w->why, refusals[i].why) == 0, refusals[i].body);
            CHECK(!asks_within(w, 1000000) && !w->identity.enrolled);
            start_again(w);
            ask_for_it(w);
            CHECK(asks_within(w, 0) && strcmp(w->method, "POST") == 0); /* nothing is left of it */
            free(w);
        }
    }
    static const char *const ends[] = {"rejected", "revoked", ""};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        world *w = new_world();
        char body[100];
        ask_for_it(w);
        CHECK(asks_within(w, 0));
        answer(w, 201, BEGUN);
        CHECK(asks_within(w, 0));
        snprintf(body, sizeof body, "{\"status\":\"%s\"}", ends[i]);
        answer(w, 200, body);
        CHECK(w->told[TL_GATEWAY_NOT_ENROLLED] == 1 && !asks_within(w, 1000000));
        free(w);
    }
}

static void odd_beginnings(void)
{
    static const char *const bodies[] = {
        "{}",
        "{\"enrolment_id\":\"a/../b\",\"poll_secret\":\"x\"}",
        "{\"enrolment_id\":\"a\",\"poll_secret\":\"x\\r\\nEvil: 1\"}",
        "{\"enrolment_id\":\"\",\"poll_secret\":\"x\"}",
        "{\"enrolment_id\":1,\"poll_secret\":\"x\"}",
        "{\"enrolment_id\":\"0123456789012345678901234567890123456\",\"poll_secret\":\"x\"}",
        "{\"enrolment_id\":\"a\"}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        world *w = new_world();
        ask_for_it(w);
        CHECK(asks_within(w, 0));
        answer(w, 201, bodies[i]);
        CHECK_NAMED(!tl_gateway_waits(&w->gateway) && is_free(w), bodies[i]);
        CHECK_NAMED(asks_within(w, TL_ENROL_RETRY_MS) && strcmp(w->method, "POST") == 0, bodies[i]);
        free(w);
    }
}

/* Each part of an approval: what is odd is not taken, and nothing of the rest is kept. */
static void odd_approvals(void)
{
    world *w = new_world();
    EVP_PKEY *stranger = EVP_EC_gen("P-256");
    const text strange = certificate_for(stranger, CERTIFICATE_FROM, CERTIFICATE_UNTIL);
    const text own = certificate(w, CERTIFICATE_FROM, CERTIFICATE_UNTIL);
    static char long_ca[TL_CA_MAX + 40], long_certificate[TL_CERTIFICATE_MAX + 2];
    snprintf(long_ca, sizeof long_ca, ",\"server_ca\":\"%0*d\"", (int)TL_CA_MAX + 1, 0);
    memset(long_certificate, '#', TL_CERTIFICATE_MAX + 1);
    memcpy(long_certificate, own.at, own.n);
    const approval odd[] = {
        {.certificate = ""},
        {.certificate = "x"},
        {.certificate = long_certificate},
        {.certificate = strange.at},
        {.root = ""},
        {.root = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"},
        {.list = ""},
        {.list = "a.b.c"},
        {.urls = ""},
        {.urls = ",\"tunnel_urls\":null"},
        {.urls = ",\"tunnel_urls\":[]"},
        {.urls = ",\"tunnel_urls\":\"wss://one.example\""},
        {.urls = ",\"tunnel_urls\":[\"wss://one.example\",\"ws://two.example\"]"},
        {.urls = ",\"tunnel_urls\":[7]"},
        {.ca = ",\"server_ca\":7"},
        {.ca = ",\"server_ca\":\"\""},
        {.ca = long_ca},
        {.device = ""},
        {.device = "D_UPPER"},
        {.device = "../../x"},
    };
    ask_for_it(w);
    CHECK(asks_within(w, 0));
    answer(w, 201, BEGUN);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        const text t = approved(w, &odd[i]);
        CHECK(asks_within(w, TL_ENROL_RETRY_MAX_MS));
        answer(w, 200, t.at);
        CHECK_NAMED(!w->identity.enrolled && is_free(w) && w->told[TL_GATEWAY_ENROLLED] == 0, t.at);
        CHECK(stored(&w->store, "identity") == NULL && stored(&w->store, "certificate") == NULL);
        CHECK(stored(&w->store, "key_list") == NULL);
        CHECK(tl_gateway_waits(&w->gateway)); /* it may be mended at the gateway */
    }
    const text fine = approved(w, &(approval){.ca = ",\"server_ca\":null", .gateway = "ftp://x"});
    CHECK(asks_within(w, TL_ENROL_RETRY_MAX_MS));
    answer(w, 200, fine.at);
    CHECK(w->identity.enrolled && w->identity.server_ca_n == 0 && stored(&w->store, "server_ca") == NULL /* it never was */);
    CHECK(tl_is((tl_span){w->identity.gateway, w->identity.gateway_n}, GATEWAY)); /* where it was asked for */
    EVP_PKEY_free(stranger);
    free(w);
}

static void too_long_an_answer(void)
{
    static char body[TL_WORKSPACE + 10];
    memset(body, ' ', sizeof body - 1);
    world *w = new_world();
    ask_for_it(w);
    CHECK(asks_within(w, 0));
    answer(w, 201, body);
    CHECK(w->stopped == 1 && is_free(w) && asks_within(w, TL_ENROL_RETRY_MS));
    w->number = 0;
    free(w);
}

/* The power goes at each change of the store: afterwards there is no identity, or all of it; the enrolment that
 * waits brings it then. */
static bool cut_while_it_is_kept(uint32_t cut, bool by_commit)
{
    world *w = new_world();
    w->store.by_commit = by_commit;
    ask_for_it(w);
    CHECK(asks_within(w, 0));
    answer(w, 201, BEGUN);
    CHECK(asks_within(w, 0));
    const text t = approved(w, &(approval){0});
    w->store.steps = 0;
    w->store.fails_at = cut;
    answer(w, 200, t.at);
    const bool all = w->store.steps < cut;
    CHECK(!all || w->identity.enrolled);
    start_again(w);
    if (!w->identity.enrolled) {
        ask_for_it(w);
        CHECK(asks_within(w, 0) && strcmp(w->method, "GET") == 0);
        answer(w, 200, t.at);
    }
    check_identity(w);
    free(w);
    return all;
}

static void power_cuts_while_it_is_kept(void)
{
    for (int by_commit = 0; by_commit < 2; by_commit++) {
        uint32_t cut = 1;
        while (!cut_while_it_is_kept(cut, by_commit != 0)) {
            cut++;
        }
        CHECK(cut > 5);
    }
}

static bool loads(world *w)
{
    return tl_identity_load(&w->identity, w->port.kv, crypto);
}

static void a_store_that_loses_parts(void)
{
    static const char *const parts[] = {"key", "certificate", "server_ca", "identity"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        world *w = enrolled_world();
        CHECK(store_erase(&w->store, parts[i]));
        CHECK_NAMED(loads(w) == (i > 0), parts[i]); /* no new key over one that may only be unreadable now */
        CHECK_NAMED(!w->identity.enrolled, parts[i]);
        free(w);
    }
    world *w = enrolled_world();
    pair *record = stored(&w->store, "identity");
    const size_t n = record->n;
    for (record->n = 0; record->n < n; record->n++) {
        CHECK(loads(w) && !w->identity.enrolled);
    }
    record->n = n + 1;
    CHECK(loads(w) && !w->identity.enrolled);
    free(w);
}

static void a_key_that_cannot_be_kept_is_none(void)
{
    for (uint32_t cut = 1; cut <= 2; cut++) {
        world *w = new_world();
        CHECK(store_erase(&w->store, "key"));
        w->store.steps = 0;
        w->store.fails_at = cut;
        CHECK(!loads(w));
        free(w);
    }
}

static void the_gateway_s_ca_and_odd_addresses(void)
{
    world *w = new_world();
    tl_enrolment_ask ask = the_ask();
    ask.gateway = tl_text("http://gateway.example");
    CHECK(tl_gateway_enrol(&w->gateway, &ask) != NULL && !asks_within(w, 100000));
    CHECK(store_set(&w->store, "gateway_ca", tl_text(CA_TEXT)));
    ask_for_it(w);
    w->busy = true; /* another fetch is under way */
    CHECK(!asks_within(w, 10000) && is_free(w));
    w->busy = false;
    CHECK(tl_workspace_take(&w->workspace, w) && !asks_within(w, 10000));
    tl_workspace_give_back(&w->workspace, w);
    CHECK(asks_within(w, TL_BUSY_MS) && strcmp(w->ca.at, CA_TEXT) == 0);
    tl_gateway_stop(&w->gateway);
    CHECK(is_free(w) && w->stopped == 1 && !asks_within(w, 100000));
    free(w);
}

/* Its NUL is in the workspace too. */
static void the_longest_ca(void)
{
    world *w = new_world();
    uint8_t longest[TL_CA_MAX];
    memset(longest, 'c', sizeof longest);
    CHECK(store_set(&w->store, "gateway_ca", (tl_span){longest, sizeof longest}));
    ask_for_it(w);
    CHECK(asks_within(w, 0) && w->ca.n == TL_CA_MAX && w->workspace.bytes[TL_WORKSPACE - 1] == 0);
    free(w);
}

/* --- renewal --- */

/* Brings it to the call that is to renew; the signed challenge is checked on the way. */
static void challenge(world *w, const char *path, const char *purpose)
{
    uint8_t signature[TL_P256_SIGNATURE], message[200];
    tl_json body, member;
    tl_out out = {message, 0, sizeof message, false}, raw = {signature, 0, sizeof signature, false};
    CHECK(strcmp(w->path.at, "/v1/devices/" DEVICE "/certificate/challenge") == 0 && strcmp(w->body.at, "{}") == 0);
    CHECK(strcmp(w->host, "new.example") == 0);
    answer(w, 200, "{\"nonce\":\"" NONCE "\"}");
    CHECK(w->number != 0 && strcmp(w->path.at, path) == 0);
    CHECK(tl_json_check((tl_span){(const uint8_t *)w->body.at, w->body.n}, &body) == TL_JSON_FINE);
    CHECK(tl_json_member(&body, "nonce", &member) && tl_json_says(&member, tl_text(NONCE)));
    CHECK(tl_json_member(&body, "signature", &member) && tl_base64url_decode(member.text, &raw) && raw.n == 64);
    tl_put_text(&out, purpose);
    CHECK(tl_base64url_decode(tl_text(NONCE), &out));
    tl_put_text(&out, DEVICE);
    CHECK(crypto->p256_verify(w->identity.point, (tl_span){message, out.n}, signature));
}

#define RENEW_PATH "/v1/devices/" DEVICE "/certificate"
#define CONNECT_PATH "/v1/devices/" DEVICE "/connection"

static text renewed(const world *w, const char *more)
{
    const text pem = certificate(w, "20270201000000Z", "20270502000000Z");
    text t = {.at = "{", .n = 1};
    add_quoted(&t, "certificate", pem.at);
    add_text(&t, more);
    add_text(&t, "}");
    return t;
}

/* The old certificate or the new one; never another's, and never none. */
static void power_cuts_while_it_is_renewed(void)
{
    for (uint32_t cut = 1;; cut++) {
        world *w = enrolled_world();
        const text list = key_list(8);
        text more = {.at = ",\"server_ca\":\"new\",\"tunnel_urls\":[\"wss://three.example\"]", .n = 0};
        more.n = strlen(more.at);
        add_quoted(&more, "key_list", list.at);
        const text t = renewed(w, more.at);
        w->wall_s += LIFE_S;
        CHECK(asks_within(w, 0));
        challenge(w, RENEW_PATH, "towline-renew-v1");
        w->store.steps = 0;
        w->store.fails_at = cut;
        answer(w, 200, t.at);
        const bool all = w->store.steps < cut;
        CHECK(all == (w->told[TL_GATEWAY_RENEWED] == 1));
        start_again(w);
        CHECK(w->identity.enrolled && tl_is(tl_identity_device(&w->identity), DEVICE));
        CHECK(w->identity.server_ca_n == 3 || tl_is(tl_identity_server_ca(&w->identity), CA_TEXT));
        free(w);
        if (all) {
            CHECK(cut > 4);
            return;
        }
    }
}

static void renewed_in_the_last_third(void)
{
    world *w = enrolled_world();
    CHECK(!asks_within(w, (uint64_t)LIFE_S * 2 / 3 * 1000 - 5000));
    CHECK(asks_within(w, (uint64_t)LIFE_S / 10 * 1000 + TL_RENEW_LOOK_MS));
    challenge(w, RENEW_PATH, "towline-renew-v1");
    CHECK(has(&w->body, "-----BEGIN CERTIFICATE REQUEST-----\\n"));
    const text list = key_list(8);
    text more = {.n = 0};
    add_text(&more, ",\"server_ca\":null,\"tunnel_urls\":[\"wss://three.example\"]");
    add_quoted(&more, "key_list", list.at); /* n > 1: begins with a comma */
    const text t = renewed(w, more.at);
    answer_in(w, 200, t.at, 64);
    CHECK(w->told[TL_GATEWAY_RENEWED] == 1 && is_free(w));
    for (int again = 0; again < 2; again++) {
        tl_url url;
        CHECK(w->identity.validity.from_s == 1801440000 && w->identity.validity.until_s == 1809216000);
        CHECK(w->identity.server_ca_n == 0 && tl_identity_tunnel(&w->identity, 0, &url) && tl_is(url.host, "three.example"));
        CHECK(!tl_identity_tunnel(&w->identity, 1, &url) && tl_is(tl_identity_device(&w->identity), DEVICE));
        start_again(w);
    }
    uint8_t room[TL_KEY_LIST_TEXT_MAX];
    tl_out stored = {room, 0, sizeof room, false};
    CHECK(tl_identity_key_list(w->port.kv, &stored) && stored.n == list.n && memcmp(room, list.at, list.n) == 0);
    CHECK(!asks_within(w, 86400000));
    free(w);
}

static void long_after_it_expired(void)
{
    world *w = enrolled_world();
    w->wall_s += 3 * 365 * INT64_C(86400);
    start_again(w);
    CHECK(w->identity.enrolled && asks_within(w, 0));
    challenge(w, RENEW_PATH, "towline-renew-v1");
    const text t = renewed(w, "");
    answer(w, 200, t.at);
    CHECK(w->told[TL_GATEWAY_RENEWED] == 1 && w->identity.validity.until_s == 1809216000);
    CHECK(tl_is(tl_identity_server_ca(&w->identity), CA_TEXT) && w->identity.urls_n > 40); /* absent: unchanged */
    CHECK(!asks_within(w, TL_RENEW_PAUSE_MS - 1000)); /* whatever the clock says */
    free(w);
}

static void not_before_the_time_is_known(void)
{
    world *w = enrolled_world();
    w->wall_s = -1;
    CHECK(!asks_within(w, 86400000));
    w->wall_s = NOW_S + LIFE_S;
    CHECK(asks_within(w, TL_NO_CLOCK_MS));
    free(w);
}

static void renewals_that_fail(void)
{
    world *w = enrolled_world();
    const text before = {.n = 0}, list = key_list(9);
    (void)before;
    tl_identity known = w->identity;
    EVP_PKEY *stranger = EVP_EC_gen("P-256");
    const text strange = certificate_for(stranger, CERTIFICATE_FROM, CERTIFICATE_UNTIL);
    text another = {.at = "{", .n = 1}, forged = {.n = 0};
    add_quoted(&another, "certificate", strange.at);
    add_text(&another, "}");
    add_quoted(&forged, "key_list", list.at);
    forged.at[forged.n - 3] ^= 1;
    forged.at[0] = ',';
    text forged_list = {.at = ",\"", .n = 2};
    add_text(&forged_list, forged.at + 1);
    const text odd[] = {another, renewed(w, forged_list.at), renewed(w, ",\"tunnel_urls\":[\"x\"]"), renewed(w, ",\"server_ca\":1")};
    w->wall_s += LIFE_S;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        CHECK(asks_within(w, TL_RENEW_RETRY_MAX_MS));
        challenge(w, RENEW_PATH, "towline-renew-v1");
        answer(w, 200, odd[i].at);
        CHECK_NAMED(w->told[TL_GATEWAY_RENEWED] == 0 && is_free(w), odd[i].at);
        CHECK_NAMED(memcmp(&w->identity, &known, sizeof known) == 0, odd[i].at);
    }
    CHECK(asks_within(w, TL_RENEW_RETRY_MAX_MS));
    break_off(w);
    CHECK(asks_within(w, TL_RENEW_RETRY_MAX_MS));
    answer(w, 403, "{\"code\":\"device_revoked\"}");
    CHECK(asks_within(w, TL_RENEW_RETRY_MAX_MS)); /* it may be taken back */
    static const char *const nonces[] = {"{}", "{\"nonce\":\"AAAA\"}", "{\"nonce\":\"not base64\"}", "{\"nonce\":7}"};
    for (size_t i = 0; i < sizeof nonces / sizeof *nonces; i++) {
        answer(w, 200, nonces[i]);
        CHECK_NAMED(is_free(w) && asks_within(w, TL_RENEW_RETRY_MAX_MS), nonces[i]);
        CHECK_NAMED(has(&w->path, "/challenge"), nonces[i]);
    }
    CHECK(memcmp(&w->identity, &known, sizeof known) == 0);
    EVP_PKEY_free(stranger);
    free(w);
}

/* --- connection --- */

static void connect_with(world *w, const char *body)
{
    tl_gateway_ask_connection(&w->gateway);
    CHECK(asks_within(w, 0));
    challenge(w, CONNECT_PATH, "towline-connection-v1");
    CHECK(!has(&w->body, "csr"));
    answer(w, 200, body);
    CHECK(is_free(w));
}

#define PREFIX "\"prefix\":\"o_one/s_two/esp32/" DEVICE "\""
#define CA_JSON "\"-----BEGIN CERTIFICATE-----\\nQ0E=\\n-----END CERTIFICATE-----\\n\""

static void where_messages_go(void)
{
    world *w = enrolled_world();
    const tl_connection *c = &w->gateway.connection;
    tl_address address;
    connect_with(w, "{" PREFIX ",\"mqtt\":{\"url\":\"mqtts://broker.example:8884\",\"ca\":" CA_JSON ",\"password\":null},\"telemetry\":null}");
    CHECK(w->told[TL_GATEWAY_CONNECTION] == 1 && tl_is((tl_span){c->prefix, c->prefix_n}, "o_one/s_two/esp32/" DEVICE));
    CHECK(tl_connection_address(c, &w->identity, &address) && tl_is(address.host, "broker.example"));
    CHECK(address.port == 8884 && address.secure && tl_is(address.ca, CA_TEXT) && c->password_n == 0);
    connect_with(w, "{" PREFIX ",\"mqtt\":{\"url\":\"mqtt://127.0.0.1:1884\",\"ca\":null,\"password\":\"secret\"}}");
    CHECK(w->told[TL_GATEWAY_CONNECTION] == 2 && tl_connection_address(c, &w->identity, &address));
    CHECK(!address.secure && address.port == 1884 && address.ca.n == 0 && tl_is((tl_span){c->password, c->password_n}, "secret"));
    free(w);
}

static void connections_that_are_none(void)
{
    static const char *const odd[] = {
        "{}",
        "{" PREFIX "}",
        "{" PREFIX ",\"mqtt\":null,\"telemetry\":{\"url\":\"https://x\"}}",
        "{" PREFIX ",\"mqtt\":7}",
        "{" PREFIX ",\"mqtt\":{}}",
        "{" PREFIX ",\"mqtt\":{\"url\":\"mqtt://broker.example\"}}",
        "{" PREFIX ",\"mqtt\":{\"url\":\"https://broker.example\"}}",
        "{" PREFIX ",\"mqtt\":{\"url\":\"mqtts://broker.example\",\"password\":7}}",
        "{" PREFIX ",\"mqtt\":{\"url\":\"mqtts://broker.example\",\"ca\":[]}}",
        "{\"prefix\":\"o_one/s_two/esp32/d_other\",\"mqtt\":{\"url\":\"mqtts://broker.example\"}}",
        "{\"prefix\":\"" DEVICE "\",\"mqtt\":{\"url\":\"mqtts://broker.example\"}}",
        "{\"prefix\":\"a/b/c/+\",\"mqtt\":{\"url\":\"mqtts://broker.example\"}}",
        "{\"prefix\":7,\"mqtt\":{\"url\":\"mqtts://broker.example\"}}",
    };
    world *w = enrolled_world();
    tl_address address;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        connect_with(w, odd[i]);
        CHECK_NAMED(w->told[TL_GATEWAY_NO_CONNECTION] == i + 1 && w->told[TL_GATEWAY_CONNECTION] == 0, odd[i]);
        CHECK_NAMED(!tl_connection_address(&w->gateway.connection, &w->identity, &address), odd[i]);
        CHECK(!asks_within(w, 10000)); /* whoever needs it asks again */
    }
    tl_gateway_ask_connection(&w->gateway);
    CHECK(asks_within(w, 0));
    break_off(w);
    CHECK(strcmp(w->why, "no answer") == 0 && is_free(w));
    tl_gateway_ask_connection(&w->gateway);
    CHECK(asks_within(w, 0));
    answer(w, 403, "{\"code\":\"device_revoked\"}");
    CHECK(strcmp(w->why, "device_revoked") == 0 && is_free(w));
    free(w);
}

/* The keyring's CA changed: the renewal brings it, and is asked for at once, but not again and again. */
static void a_broker_with_another_ca(void)
{
    world *w = enrolled_world();
    static const char other[] = "{" PREFIX ",\"mqtt\":{\"url\":\"mqtts://broker.example\",\"ca\":\"other\"}}";
    connect_with(w, other);
    CHECK(w->told[TL_GATEWAY_NO_CONNECTION] == 1 && asks_within(w, 0));
    challenge(w, RENEW_PATH, "towline-renew-v1");
    const text t = renewed(w, ",\"server_ca\":\"other\"");
    answer(w, 200, t.at);
    CHECK(w->told[TL_GATEWAY_RENEWED] == 1);
    connect_with(w, other);
    CHECK(w->told[TL_GATEWAY_CONNECTION] == 1);
    connect_with(w, "{" PREFIX ",\"mqtt\":{\"url\":\"mqtts://broker.example\",\"ca\":\"third\"}}");
    CHECK(!asks_within(w, TL_RENEW_PAUSE_MS - 60000) && asks_within(w, 60000));
    free(w);
}

static void another_s_events_change_nothing(void)
{
    world *w = enrolled_world();
    const tl_event foreign = {.kind = TL_EVENT_FETCH_END, .number = 77}, link = {.kind = TL_EVENT_LINK_OPENED, .number = 1};
    CHECK(!tl_gateway_event(&w->gateway, &foreign) && !tl_gateway_event(&w->gateway, &link));
    tl_gateway_ask_connection(&w->gateway);
    CHECK(asks_within(w, 0) && !tl_gateway_event(&w->gateway, &foreign) && w->number != 0);
    const tl_event odd = {.kind = TL_EVENT_LINK_OPENED, .number = w->number};
    CHECK(!tl_gateway_event(&w->gateway, &odd) && w->number != 0);
    free(w);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(the_request),
        CHECK_TEST(approved_by_a_person),
        CHECK_TEST(what_enrolment_gave_outlives_a_restart),
        CHECK_TEST(a_wait_outlives_a_restart),
        CHECK_TEST(another_gateway_meanwhile),
        CHECK_TEST(a_lost_answer_is_asked_for_again),
        CHECK_TEST(retries_wait_longer_and_longer),
        CHECK_TEST(refusals_end_it),
        CHECK_TEST(odd_beginnings),
        CHECK_TEST(odd_approvals),
        CHECK_TEST(too_long_an_answer),
        CHECK_TEST(power_cuts_while_it_is_kept),
        CHECK_TEST(power_cuts_while_it_is_renewed),
        CHECK_TEST(a_store_that_loses_parts),
        CHECK_TEST(a_key_that_cannot_be_kept_is_none),
        CHECK_TEST(the_gateway_s_ca_and_odd_addresses),
        CHECK_TEST(the_longest_ca),
        CHECK_TEST(renewed_in_the_last_third),
        CHECK_TEST(long_after_it_expired),
        CHECK_TEST(not_before_the_time_is_known),
        CHECK_TEST(renewals_that_fail),
        CHECK_TEST(where_messages_go),
        CHECK_TEST(connections_that_are_none),
        CHECK_TEST(a_broker_with_another_ca),
        CHECK_TEST(another_s_events_change_nothing),
    };
    crypto = tl_psa_crypto();
    if (crypto == NULL || !crypto->p256_new(root_key) || !crypto->p256_public(root_key, root_point)) {
        return 1;
    }
    return CHECK_ALL(tests);
}
