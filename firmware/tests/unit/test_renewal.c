/* Renewal and connection as conversations with a gateway. */
#include "gateway_world.h"

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
        CHECK_TEST(power_cuts_while_it_is_renewed),
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
