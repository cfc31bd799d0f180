/* Addresses as the agent's rules take and refuse them (tunnel_agent/urls.py). */
#include <stdlib.h>

#include "check.h"
#include "towline/bytes.h"
#include "towline/url.h"

static const struct {
    const char *text;
    tl_url_kind kind;
    bool secure;
    uint16_t port;
    const char *host, *path;
} GOOD[] = {
    {"https://gateway.example", TL_URL_GATEWAY, true, 443, "gateway.example", ""},
    {"https://gateway.example/", TL_URL_GATEWAY, true, 443, "gateway.example", "/"},
    {"https://gateway.example:8443/a/b", TL_URL_GATEWAY, true, 8443, "gateway.example", "/a/b"},
    {"https://[2001:db8::1]:9/x", TL_URL_GATEWAY, true, 9, "2001:db8::1", "/x"},
    {"https://[2001:db8::1]", TL_URL_GATEWAY, true, 443, "2001:db8::1", ""},
    {"http://127.0.0.1:8080", TL_URL_GATEWAY, false, 8080, "127.0.0.1", ""},
    {"http://127.1.2.3", TL_URL_GATEWAY, false, 80, "127.1.2.3", ""},
    {"http://localhost:1", TL_URL_GATEWAY, false, 1, "localhost", ""},
    {"http://[::1]:65535/", TL_URL_GATEWAY, false, 65535, "::1", "/"},
    {"wss://node.example/tunnel", TL_URL_TUNNEL, true, 443, "node.example", "/tunnel"},
    {"ws://localhost/tunnel", TL_URL_TUNNEL, false, 80, "localhost", "/tunnel"},
    {"mqtts://broker.example", TL_URL_BROKER, true, 8883, "broker.example", ""},
    {"mqtt://127.0.0.1", TL_URL_BROKER, false, 1883, "127.0.0.1", ""},
};

static const struct {
    const char *text;
    tl_url_kind kind;
} BAD[] = {
    {"", TL_URL_GATEWAY},
    {"https", TL_URL_GATEWAY},
    {"https:", TL_URL_GATEWAY},
    {"https:/", TL_URL_GATEWAY},
    {"https://", TL_URL_GATEWAY},
    {"https:///path", TL_URL_GATEWAY},
    {"https://:80", TL_URL_GATEWAY},
    {"https://host:", TL_URL_GATEWAY},
    {"https://host:0", TL_URL_GATEWAY},
    {"https://host:65536", TL_URL_GATEWAY},
    {"https://host:4294967297", TL_URL_GATEWAY},
    {"https://host:8x", TL_URL_GATEWAY},
    {"https://host:-1", TL_URL_GATEWAY},
    {"https://user@host", TL_URL_GATEWAY},
    {"https://user:secret@host", TL_URL_GATEWAY},
    {"https://host?query", TL_URL_GATEWAY},
    {"https://host/path?query", TL_URL_GATEWAY},
    {"https://host/#part", TL_URL_GATEWAY},
    {"https://host/a b", TL_URL_GATEWAY},
    {"https://host/a\r\nX: y", TL_URL_GATEWAY},
    {"https://h\303\266st", TL_URL_GATEWAY},
    {"https://host\\x", TL_URL_GATEWAY},
    {"https://[::1", TL_URL_GATEWAY},
    {"https://[", TL_URL_GATEWAY},
    {"https://[]", TL_URL_GATEWAY},
    {"https://[::1]x", TL_URL_GATEWAY},
    {"https://[::1]:", TL_URL_GATEWAY},
    {"HTTPS://host", TL_URL_GATEWAY},
    {"wss://host", TL_URL_GATEWAY},
    {"https://host", TL_URL_TUNNEL},
    {"https://host", TL_URL_BROKER},
    {"http://gateway.example", TL_URL_GATEWAY},
    {"http://127.0.0.1.evil.example", TL_URL_GATEWAY},
    {"http://localhost.evil.example", TL_URL_GATEWAY},
    {"http://128.0.0.1", TL_URL_GATEWAY},
    {"http://127.1", TL_URL_GATEWAY},
    {"http://0.0.0.0", TL_URL_GATEWAY},
    {"http://[::2]", TL_URL_GATEWAY},
    {"ws://192.168.1.2/tunnel", TL_URL_TUNNEL},
    {"mqtt://broker.example", TL_URL_BROKER},
};

/* In memory of the exact size. */
static const char *read_it(const char *text, tl_url_kind kind, tl_url *url, uint8_t **memory)
{
    const size_t n = strlen(text);
    *memory = malloc(n + (n == 0));
    memcpy(*memory, text, n);
    return tl_url_read((tl_span){*memory, n}, kind, url);
}

static void good_ones(void)
{
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        tl_url url;
        uint8_t *memory;
        CHECK_NAMED(read_it(GOOD[i].text, GOOD[i].kind, &url, &memory) == NULL, GOOD[i].text);
        CHECK_NAMED(url.secure == GOOD[i].secure && url.port == GOOD[i].port, GOOD[i].text);
        CHECK_NAMED(tl_is(url.host, GOOD[i].host) && tl_is(url.path, GOOD[i].path), GOOD[i].text);
        free(memory);
    }
}

static void bad_ones(void)
{
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        tl_url url;
        uint8_t *memory;
        CHECK_NAMED(read_it(BAD[i].text, BAD[i].kind, &url, &memory) != NULL, BAD[i].text);
        free(memory);
    }
}

static void a_long_one(void)
{
    uint8_t text[TL_URL_MAX + 1];
    tl_url url;
    memset(text, 'a', sizeof text);
    memcpy(text, "https://", 8);
    CHECK(tl_url_read((tl_span){text, TL_URL_MAX}, TL_URL_GATEWAY, &url) == NULL);
    CHECK(tl_url_read((tl_span){text, sizeof text}, TL_URL_GATEWAY, &url) != NULL);
}

int main(void)
{
    static const check_test tests[] = {CHECK_TEST(good_ones), CHECK_TEST(bad_ones), CHECK_TEST(a_long_one)};
    return CHECK_ALL(tests);
}
