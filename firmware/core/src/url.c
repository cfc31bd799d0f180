#include "towline/url.h"

#include <string.h>

#include "towline/bytes.h"

static const struct {
    const char *secure, *plain;
    uint16_t secure_port, plain_port;
} KINDS[] = {
    [TL_URL_GATEWAY] = {"https", "http", 443, 80},
    [TL_URL_TUNNEL] = {"wss", "ws", 443, 80},
    [TL_URL_BROKER] = {"mqtts", "mqtt", 8883, 1883},
};

/* Visible ASCII, and nothing that begins a user, a query or a fragment, or that a log or a path could take for
 * something else. */
static bool is_plain(tl_span text)
{
    for (size_t i = 0; i < text.n; i++) {
        const uint8_t c = text.at[i];
        if (c <= ' ' || c >= 0x7f || strchr("\"#<>?@\\^`{|}", c) != NULL) {
            return false;
        }
    }
    return true;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool read_port(tl_span text, uint16_t *port)
{
    uint32_t value = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (!is_digit(text.at[i]) || value > UINT16_MAX) {
            return false;
        }
        value = value * 10 + (text.at[i] - '0');
    }
    *port = (uint16_t)value;
    return value > 0 && value <= UINT16_MAX;
}

/* 127.0.0.0/8, ::1 and localhost; other names may resolve anywhere. */
static bool is_loopback(tl_span host)
{
    if (tl_is(host, "localhost") || tl_is(host, "::1")) {
        return true;
    }
    size_t dots = 0;
    for (size_t i = 0; i < host.n; i++) {
        dots += host.at[i] == '.';
        if (host.at[i] != '.' && !is_digit(host.at[i])) {
            return false;
        }
    }
    return dots == 3 && host.n > 4 && memcmp(host.at, "127.", 4) == 0;
}

/* host, host:port, [v6] or [v6]:port. */
static bool read_host(tl_span authority, tl_url *url)
{
    tl_span rest = authority;
    const bool bracket = authority.n > 0 && authority.at[0] == '[';
    if (bracket) {
        (void)tl_take(&rest, 1);
        url->host = tl_split(&rest, ']');
        if (url->host.n + 2 > authority.n || (rest.n > 0 && *rest.at != ':')) {
            return false;
        }
        (void)tl_take(&rest, 1);
    } else {
        url->host = tl_split(&rest, ':');
    }
    const bool told = rest.n > 0 || authority.at[authority.n - 1] == ':';
    return url->host.n > 0 && (!told || read_port(rest, &url->port));
}

const char *tl_url_read(tl_span text, tl_url_kind kind, tl_url *url)
{
    tl_span rest = text;
    const tl_span scheme = tl_split(&rest, ':');
    url->secure = tl_is(scheme, KINDS[kind].secure);
    url->port = url->secure ? KINDS[kind].secure_port : KINDS[kind].plain_port;
    if ((!url->secure && !tl_is(scheme, KINDS[kind].plain)) || rest.n < 3 || memcmp(rest.at, "//", 2) != 0) {
        return "an address of another kind";
    }
    (void)tl_take(&rest, 2);
    const uint8_t *slash = memchr(rest.at, '/', rest.n);
    const tl_span authority = tl_take(&rest, slash != NULL ? (size_t)(slash - rest.at) : rest.n);
    url->path = rest;
    if (text.n > TL_URL_MAX || !is_plain(text) || authority.n == 0 || !read_host(authority, url)) {
        return "not an address";
    }
    return url->secure || is_loopback(url->host) ? NULL : "plain text to another machine";
}
