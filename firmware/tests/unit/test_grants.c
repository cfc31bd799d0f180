/* The shared cases (grants.json), and what only this book does. */
#include <stdlib.h>

#include "check.h"
#include "token_crypto.h"
#include "towline/bytes.h"
#include "towline/grants.h"
#include "vectors.h"

#define NOW_S INT64_C(1800000000) /* of the cases that say nothing else */
#define MONO_MS UINT64_C(1000000)
#define HOUR_MS UINT64_C(3630000) /* with the leeway */
#define SERVER 1u
#define WEB "web"

typedef struct {
    tl_grants g;
    tl_grants_scratch scratch;
} book;

static const tl_crypto *crypto;

static tl_span device(void)
{
    return tl_text(vector_grants_case.device);
}

static const char *take_list(book *b, size_t i, bool *newer)
{
    return tl_grants_take_keys(&b->g, vector_key_lists[i].text, MONO_MS, newer);
}

static book *new_book(size_t list)
{
    book *b = malloc(sizeof *b);
    bool newer;
    memset(b, 0xA5, sizeof *b); /* nothing may be taken from memory that was not written */
    tl_grants_init(&b->g, crypto, &b->scratch, device(), vector_grants_case.root.at, vector_grants_case.earliest_s);
    CHECK(take_list(b, list, &newer) == NULL && newer);
    tl_grants_connected(&b->g);
    return b;
}

static size_t in_force(const book *b)
{
    size_t n = 0;
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        n += b->g.accepted[i].ends_at_ms != 0;
    }
    return n;
}

/* In memory of the exact size. */
static tl_verdict offer_raw(book *b, const uint8_t *id, tl_span token, int64_t wall_s)
{
    uint8_t *exact = malloc(token.n);
    if (token.n > 0) {
        memcpy(exact, token.at, token.n);
    }
    b->g.checked_to_ms = 0; /* one after the other: how many at a time has a test of its own */
    const tl_verdict verdict = tl_grants_offer(&b->g, id, (tl_span){exact, token.n}, wall_s, MONO_MS);
    free(exact);
    return verdict;
}

static const uint8_t *id_of(size_t i)
{
    return vector_tokens[i].grant_id.at;
}

static tl_verdict offer(book *b, size_t i, int64_t wall_s)
{
    return offer_raw(b, id_of(i), vector_tokens[i].token, wall_s);
}

static tl_verdict open_web(book *b, size_t i, int64_t wall_s, uint64_t now_ms)
{
    return tl_grants_open(&b->g, device(), tl_text(WEB), id_of(i), wall_s, now_ms);
}

static size_t named(const char *name)
{
    for (size_t i = 0; i < vector_tokens_count; i++) {
        if (strcmp(vector_tokens[i].name, name) == 0) {
            return i;
        }
    }
    abort();
}

static bool is_first(size_t i)
{
    return memcmp(id_of(i), id_of(0), TL_GRANT_ID) == 0;
}

static void every_token(void)
{
    for (size_t i = 0; i < vector_tokens_count; i++) {
        const vector_token *v = &vector_tokens[i];
        book *b = new_book(v->list);
        const tl_verdict offered = offer(b, i, v->wall_s);
        CHECK_NAMED((offered.code == 0) == (offered.reason == NULL), v->name);
        CHECK_NAMED(in_force(b) == (offered.code == 0), v->name);
        const tl_verdict opened = tl_grants_open(&b->g, device(), tl_text(v->service), id_of(i), v->wall_s, MONO_MS);
        CHECK_NAMED(opened.code == v->code, v->name);
        CHECK_NAMED((opened.code == 0) == (opened.reason == NULL), v->name);
        CHECK_NAMED(opened.code != 0 || v->has_signature, v->name);
        free(b);
    }
    CHECK(vector_tokens_count == 109);
}

static void a_forgery_displaces_no_genuine_grant(void)
{
    book *b = new_book(0);
    unsigned refused = 0;
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_HOLDS);
    for (size_t i = 1; i < vector_tokens_count; i++) {
        if (is_first(i) && !tl_same(vector_tokens[i].token, vector_tokens[0].token) && i != named("as long as allowed")) {
            CHECK_NAMED(offer(b, i, NOW_S).code != TL_GRANT_HOLDS, vector_tokens[i].name);
            const tl_verdict verdict = open_web(b, 0, NOW_S, MONO_MS);
            CHECK_NAMED(verdict.code == TL_GRANT_HOLDS && verdict.grant->ends_at_ms == MONO_MS + HOUR_MS, vector_tokens[i].name);
            refused++;
        }
    }
    CHECK(refused >= 60);
    free(b);
}

static void every_byte_of_a_token_counts(void)
{
    book *b = new_book(0);
    uint8_t token[TL_GRANT_TOKEN_MAX];
    const tl_span genuine = vector_tokens[0].token;
    for (size_t i = 0; i < genuine.n; i++) {
        memcpy(token, genuine.at, genuine.n);
        token[i] ^= 1;
        CHECK(offer_raw(b, id_of(0), (tl_span){token, genuine.n}, NOW_S).code == TL_GRANT_INVALID);
        CHECK(offer_raw(b, id_of(0), (tl_span){genuine.at, i}, NOW_S).code == TL_GRANT_INVALID);
    }
    free(b);
}

static void what_a_grant_tells(void)
{
    book *b = new_book(0);
    tl_verdict verdict = offer(b, 0, NOW_S);
    CHECK(!verdict.grant->acting && verdict.grant->service_n == 3 && memcmp(verdict.grant->service, WEB, 3) == 0);
    CHECK(memcmp(verdict.grant->session, id_of(0), 16) == 0);
    const unsigned before = verified;
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_HOLDS && verified == before); /* the same again costs a hash */
    CHECK(offer(b, named("act"), NOW_S).grant->acting);
    CHECK(!offer(b, named("act null"), NOW_S).grant->acting);
    free(b);
}

static void it_opens_only_what_it_names(void)
{
    book *b = new_book(0);
    const uint8_t *id = id_of(0);
    CHECK(open_web(b, 0, NOW_S, MONO_MS).code == TL_GRANT_NONE);
    (void)offer(b, 0, NOW_S);
    CHECK(tl_grants_open(&b->g, device(), tl_text("ssh"), id, NOW_S, MONO_MS).code == TL_GRANT_INVALID);
    CHECK(tl_grants_open(&b->g, device(), tl_text(""), id, NOW_S, MONO_MS).code == TL_GRANT_INVALID);
    CHECK(tl_grants_open(&b->g, tl_text("d_other"), tl_text(WEB), id, NOW_S, MONO_MS).code == TL_GRANT_INVALID);
    const size_t ssh = named("a service of another kind");
    CHECK(offer(b, ssh, NOW_S).code == TL_GRANT_HOLDS);
    CHECK(open_web(b, ssh, NOW_S, MONO_MS).code == TL_GRANT_INVALID);
    tl_grants_connected(&b->g); /* known to its connection alone */
    CHECK(open_web(b, 0, NOW_S, MONO_MS).code == TL_GRANT_NONE);
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_HOLDS && open_web(b, 0, NOW_S, MONO_MS).code == TL_GRANT_HOLDS);
    CHECK(in_force(b) == 2);
    free(b);
}

static void revoked_before_and_after(void)
{
    book *b = new_book(0);
    const uint8_t *id = id_of(0);
    uint8_t ended[TL_GRANT_ID];
    (void)offer(b, 0, NOW_S);
    CHECK(tl_grants_revoke(&b->g, id, MONO_MS, SERVER) == TL_REVOKE_ENDED);
    CHECK(open_web(b, 0, NOW_S, MONO_MS).code == TL_GRANT_REVOKED);
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_REVOKED);
    CHECK(!tl_grants_expire(&b->g, MONO_MS + HOUR_MS - 1, ended));
    tl_grants_connected(&b->g);
    CHECK(offer(b, 0, NOW_S + 3600).code == TL_GRANT_REVOKED);
    CHECK(!tl_grants_expire(&b->g, MONO_MS + HOUR_MS + 2000, ended) && !tl_revoked_holds(&b->g.revoked, id));
    free(b);
    b = new_book(0);
    CHECK(tl_grants_revoke(&b->g, id, MONO_MS, SERVER) == TL_REVOKE_NEWS);
    CHECK(tl_grants_revoke(&b->g, id, MONO_MS, SERVER) == TL_REVOKE_KNOWN);
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_REVOKED);
    free(b);
}

static void ends_and_clocks(void)
{
    book *b = new_book(0);
    uint8_t ended[TL_GRANT_ID];
    CHECK(tl_grants_next_expiry(&b->g) == UINT64_MAX);
    (void)offer(b, 0, NOW_S);
    const uint64_t end = MONO_MS + HOUR_MS;
    CHECK(tl_grants_next_expiry(&b->g) == end);
    CHECK(open_web(b, 0, NOW_S - 3600, MONO_MS + 10).code == TL_GRANT_HOLDS);
    CHECK(open_web(b, 0, NOW_S + 365 * 86400, end - 1).code == TL_GRANT_HOLDS);
    CHECK(open_web(b, 0, NOW_S, end).code == TL_GRANT_EXPIRED);
    CHECK(!tl_grants_expire(&b->g, end - 1, ended));
    CHECK(tl_grants_expire(&b->g, end, ended) && memcmp(ended, id_of(0), TL_GRANT_ID) == 0);
    CHECK(!tl_grants_expire(&b->g, end, ended) && in_force(b) == 0);
    free(b);
}

static void without_the_time(void)
{
    static const int64_t early[] = {-1, 0, 1000, NOW_S - 86400 - 31};
    const size_t forged = named("claims changed, end");
    for (size_t i = 0; i < sizeof early / sizeof *early; i++) {
        book *b = new_book(0);
        CHECK(offer(b, 0, early[i]).code == TL_GRANT_NO_TIME && open_web(b, 0, early[i], MONO_MS).code == TL_GRANT_NO_TIME);
        CHECK(open_web(b, 0, NOW_S, MONO_MS).code == TL_GRANT_HOLDS && in_force(b) == 1);
        CHECK(b->g.waiting[0].n == 0 && open_web(b, 0, -1, MONO_MS).code == TL_GRANT_HOLDS);
        free(b);
        b = new_book(0);
        CHECK(offer(b, forged, early[i]).code == TL_GRANT_NO_TIME);
        CHECK(open_web(b, forged, NOW_S, MONO_MS).code == TL_GRANT_INVALID);
        CHECK(open_web(b, forged, NOW_S, MONO_MS).code == TL_GRANT_INVALID && in_force(b) == 0);
        free(b);
    }
    /* A grant of its future: the clock is behind, and may be set. */
    book *b = new_book(0);
    const size_t later = named("too early");
    CHECK(offer(b, later, NOW_S).code == TL_GRANT_NO_TIME && open_web(b, later, NOW_S, MONO_MS).code == TL_GRANT_NO_TIME);
    CHECK(open_web(b, later, NOW_S + 1, MONO_MS).code == TL_GRANT_HOLDS);
    /* Only so many wait; what waited ends with its connection, and by its revocation. */
    CHECK(offer(b, 0, -1).code == TL_GRANT_NO_TIME && offer(b, named("act"), -1).code == TL_GRANT_NO_TIME);
    CHECK(offer(b, named("act null"), -1).code == TL_GRANT_INVALID);
    CHECK(tl_grants_revoke(&b->g, id_of(0), MONO_MS, SERVER) == TL_REVOKE_NEWS);
    CHECK(offer(b, named("act null"), -1).code == TL_GRANT_NO_TIME);
    tl_grants_connected(&b->g);
    CHECK(open_web(b, named("act null"), NOW_S, MONO_MS).code == TL_GRANT_NONE);
    free(b);
}

static void key_lists(void)
{
    book *b = new_book(1);
    bool newer;
    uint8_t ended[TL_GRANT_ID];
    const size_t other = named("another key, list 1");
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_HOLDS && offer(b, other, NOW_S).code == TL_GRANT_HOLDS);
    CHECK(take_list(b, 0, &newer) == NULL && !newer && b->g.keys.number == 2 && b->g.keys.count == 2);
    CHECK(take_list(b, 1, &newer) == NULL && !newer);
    CHECK(take_list(b, 2, &newer) == NULL && newer);
    CHECK(open_web(b, 0, NOW_S, MONO_MS).code == TL_GRANT_EXPIRED);
    CHECK(tl_grants_expire(&b->g, MONO_MS, ended) && memcmp(ended, id_of(0), TL_GRANT_ID) == 0);
    CHECK(!tl_grants_expire(&b->g, MONO_MS, ended));
    CHECK(open_web(b, other, NOW_S, MONO_MS).code == TL_GRANT_HOLDS);
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_INVALID);
    CHECK(take_list(b, 3, &newer) == NULL && newer && b->g.keys.number == (INT64_C(1) << 53) - 1);
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_HOLDS); /* its key is listed again */
    CHECK(open_web(b, other, NOW_S, MONO_MS).code == TL_GRANT_EXPIRED);
    free(b);
    b = new_book(0);
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_HOLDS);
    CHECK(take_list(b, 2, &newer) == NULL && newer && take_list(b, 3, &newer) == NULL && newer);
    CHECK(open_web(b, 0, NOW_S, MONO_MS).code == TL_GRANT_EXPIRED); /* it ended, and a later list brings it not back */
    free(b);
}

static void bad_lists(void)
{
    unsigned odd_though_signed = 0;
    for (size_t i = 0; i < vector_bad_lists_count; i++) {
        const vector_bad_list *v = &vector_bad_lists[i];
        tl_grants_scratch scratch;
        const tl_out room = {scratch.decoded, 0, sizeof scratch.decoded, false};
        CHECK_NAMED(tl_key_list_read(&scratch.list, v->text, vector_grants_case.bad_lists_root.at, crypto, room) != NULL, v->name);
        odd_though_signed += v->has_signature;
    }
    CHECK(vector_bad_lists_count == 41 && odd_though_signed >= 30);
    book *b = new_book(0);
    bool newer;
    CHECK(tl_grants_take_keys(&b->g, vector_bad_lists[0].text, MONO_MS, &newer) != NULL);
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_HOLDS); /* a refused list leaves the one in force */
    free(b);
}

/* A book of made-up grants: what counts is which of them goes. */
static void which_goes_when_all_places_are_taken(void)
{
    book *b = new_book(0);
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        b->g.accepted[i] = (tl_grant){.id = {(uint8_t)(i + 1)}, .ends_at_ms = MONO_MS * 9, .used = (uint32_t)i + 1, .here = i != 5};
    }
    b->g.uses = 100;
    b->g.accepted[0].streams = 1;
    CHECK(offer(b, 0, NOW_S).grant == &b->g.accepted[5]); /* of an earlier connection */
    CHECK(offer(b, named("act"), NOW_S).grant == &b->g.accepted[1]); /* unused for longest, without a stream */
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        b->g.accepted[i].streams = 1;
    }
    CHECK(offer(b, named("act null"), NOW_S).code == TL_GRANT_INVALID);
    CHECK(open_web(b, named("act null"), NOW_S, MONO_MS).code == TL_GRANT_INVALID);
    free(b);
}

static void a_flood_costs_few_signatures(void)
{
    const tl_span genuine = vector_tokens[0].token;
    uint8_t *forged = malloc(genuine.n);
    memcpy(forged, genuine.at, genuine.n);
    forged[genuine.n - 4] ^= 1; /* of the signature */
    book *b = new_book(0);
    const unsigned before = verified;
    for (size_t i = 0; i < 500; i++) {
        CHECK(tl_grants_offer(&b->g, id_of(0), (tl_span){forged, genuine.n}, NOW_S, MONO_MS).code == TL_GRANT_INVALID);
    }
    CHECK(verified - before == TL_GRANT_CHECKS_MAX);
    CHECK(tl_grants_offer(&b->g, id_of(0), genuine, NOW_S, MONO_MS + TL_GRANT_CHECK_MS - 1).code == TL_GRANT_INVALID);
    CHECK(tl_grants_offer(&b->g, id_of(0), genuine, NOW_S, MONO_MS + TL_GRANT_CHECK_MS).code == TL_GRANT_HOLDS);
    CHECK(verified - before == TL_GRANT_CHECKS_MAX + 1);
    CHECK(tl_grants_offer(&b->g, id_of(0), genuine, NOW_S, MONO_MS + TL_GRANT_CHECK_MS).code == TL_GRANT_HOLDS);
    CHECK(verified - before == TL_GRANT_CHECKS_MAX + 1); /* one that is known costs none */
    free(b);
    free(forged);
}

static void memory_is_bounded(void)
{
    book *b = new_book(0);
    uint8_t id[TL_GRANT_ID] = {0};
    (void)offer(b, 0, NOW_S);
    CHECK(tl_grants_revoke(&b->g, id_of(0), MONO_MS, SERVER) == TL_REVOKE_ENDED);
    for (uint32_t i = 0; i < 4000; i++) {
        memcpy(id, &i, sizeof i);
        CHECK(tl_grants_revoke(&b->g, id, MONO_MS, 2) == TL_REVOKE_NEWS);
        CHECK(offer_raw(b, id, tl_text("junk"), NOW_S).code != TL_GRANT_HOLDS);
    }
    CHECK(offer(b, 0, NOW_S).code == TL_GRANT_REVOKED);
    free(b);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(every_token),
        CHECK_TEST(a_forgery_displaces_no_genuine_grant),
        CHECK_TEST(every_byte_of_a_token_counts),
        CHECK_TEST(what_a_grant_tells),
        CHECK_TEST(it_opens_only_what_it_names),
        CHECK_TEST(revoked_before_and_after),
        CHECK_TEST(ends_and_clocks),
        CHECK_TEST(without_the_time),
        CHECK_TEST(key_lists),
        CHECK_TEST(bad_lists),
        CHECK_TEST(which_goes_when_all_places_are_taken),
        CHECK_TEST(a_flood_costs_few_signatures),
        CHECK_TEST(memory_is_bounded),
    };
    crypto = counting_crypto();
    return crypto == NULL ? 1 : CHECK_ALL(tests);
}
