/* Enrolment as a conversation with a gateway. */
#include "gateway_world.h"

#define BEGUN \
    "{\"enrolment_id\":\"" ENROLMENT "\",\"device_id\":\"" DEVICE "\",\"status\":\"pending\",\"poll_secret\":\"" SECRET "\"}"
#define PENDING "{\"status\":\"pending\",\"device_id\":\"" DEVICE "\"}"

static void ask_for_it(world *w)
{
    const tl_enrolment_ask ask = the_ask();
    CHECK(tl_gateway_enrol(&w->gateway, &ask) == NULL);
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
        CHECK_TEST(a_store_that_loses_parts),
        CHECK_TEST(a_key_that_cannot_be_kept_is_none),
        CHECK_TEST(the_gateway_s_ca_and_odd_addresses),
        CHECK_TEST(the_longest_ca),
    };
    crypto = tl_psa_crypto();
    if (crypto == NULL || !crypto->p256_new(root_key) || !crypto->p256_public(root_key, root_point)) {
        return 1;
    }
    return CHECK_ALL(tests);
}
